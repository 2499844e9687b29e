"""Conditioning vectors: what is known about an image, as the numbers that a network is told."""

from collections.abc import Collection
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dnnlib.errors import ConfigError, DataError

CAMERA_NUMBERS = 25  # of a camera's label: cam2world and intrinsics, row by row


def parts_told(told: Collection[str], label_dim: int) -> dict[str, int]:
    """What a network can be told of an image, by name in order, with its numbers; a label of none is left out.

    Raises ConfigError for anything else.
    """
    numbers = {"camera": CAMERA_NUMBERS, "label": label_dim}
    unknown = [told] if isinstance(told, str) else [name for name in told if name not in numbers]
    if unknown:
        raise ConfigError(f"told={unknown[0]} cannot be told: give a list, empty or of {' and '.join(numbers)}.")
    return {name: count for name, count in numbers.items() if name in told and count}


def conditioning_vector(told: Collection[str], known: Any) -> Float[Tensor, "N c"] | None:
    """What is told of a Condition: camera, then label. None if nothing is told.

    Raises DataError naming a part that is told but not known.
    """
    parts, camera = [], known.camera
    for name, numbers in (("camera", None if camera is None else camera.label()), ("label", known.label)):
        if name in told:
            if numbers is None:
                raise DataError(
                    f"this network is told each image's {name}, and the data have none: set told without it."
                )
            parts.append(numbers)
    return torch.cat(parts, dim=1) if parts else None
