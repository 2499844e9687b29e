"""From a seed to codes: the same for stills, films, meshes and metrics, so that a seed is one picture everywhere."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dnnlib.errors import ConfigError
from training.contracts import Codes, Condition


def latent(seed: int, z_dim: int) -> Float[Tensor, "1 z"]:
    """RandomState(seed).randn(1, z_dim): published seeds give published pictures."""
    return torch.from_numpy(np.random.RandomState(seed).randn(1, z_dim)).float()


def class_label(label_dim: int, index: int | None) -> Float[Tensor, "1 label_dim"] | None:
    """The one-hot label of a class; None for a network without labels. Raises ConfigError if they do not agree."""
    if label_dim == 0:
        if index is not None:
            raise ConfigError(f"--class={index}: this network was trained without classes; leave --class out")
        return None
    if index is None:
        raise ConfigError(f"this network is conditioned on classes: choose one with --class=0 to {label_dim - 1}")
    if not 0 <= index < label_dim:
        raise ConfigError(f"--class={index}: this network has the classes 0 to {label_dim - 1}")
    return torch.nn.functional.one_hot(torch.tensor([index]), label_dim).float()


@torch.no_grad()
def seed_codes(
    G: Any,
    seed: int,
    condition: Condition,
    psi: float = 1.0,
    cutoff: int | None = None,
    device: torch.device | str = "cpu",
) -> Codes:
    """Truncated codes, a batch of one: rows before cutoff (default all) go to mean + psi (code - mean).

    Mapped alone, so that a seed's picture does not depend on which other seeds are asked for.
    """
    codes = G.mapping(latent(seed, G.z_dim).to(device), condition.to(device))
    return codes if psi == 1 else G.mean_codes().lerp(codes, psi, slice(cutoff))
