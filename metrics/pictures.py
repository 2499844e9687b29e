"""What metrics look at: pictures with what was asked for, and the three ways to be shown some.

Cameras are taken structurally (cam2world and intrinsics as in training/rendering/cameras.py: OpenCV axes, intrinsics of
an image that spans [0, 1]^2), because this floor may not import them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from dnnlib.errors import ConfigError
from torch_utils.record import Record

T = TypeVar("T")


@runtime_checkable
class Posed(Protocol):
    """A batch of cameras."""

    @property
    def cam2world(self) -> Float[Tensor, "N 4 4"]: ...

    @property
    def intrinsics(self) -> Float[Tensor, "N 3 3"]: ...


@dataclass(frozen=True, kw_only=True)
class Pictures(Record):
    """A batch of pictures and what they are meant to show. None where it is unknown or there is none."""

    image: Float[Tensor, "N 3 H W"]  # in [-1, 1]
    camera: Posed | None = None  # what was commanded, or what the data set says
    depth: Float[Tensor, "N 1 h w"] | None = None  # distance along the unit ray, scene units; 0 where nothing is
    label: Float[Tensor, "N label_dim"] | None = None  # the class asked for, one-hot
    label_map: Int[Tensor, "N 1 H W"] | None = None  # what each pixel is meant to be


@runtime_checkable
class Measured(Protocol):
    """Something that can be measured: usually a generator beside the data it was trained on."""

    def reals(self, n: int) -> Iterable[Pictures]:
        """The first n items of the data set (fewer if it is smaller), in batches."""
        ...

    def fakes(self, n: int) -> Iterable[Pictures]:
        """n samples at psi 1, with cameras and labels distributed as in training, in batches."""
        ...

    def views(self, seeds: Sequence[int], yaws: Sequence[float]) -> Iterable[tuple[Pictures, ...]]:
        """The scenes of these seeds (psi 1), batch by batch, each batch once per yaw.

        Yaws are offsets from the rig's mean pose. The conditioning camera stays at the mean; only the rendering camera
        moves.
        """
        ...


def rgb(image: Float[Tensor, "N C H W"]) -> Float[Tensor, "N 3 H W"]:
    """Colours, as detectors take them: a single channel is repeated to three."""
    return image.expand(-1, 3, -1, -1) if image.shape[1] == 1 else image


def required(value: T | None, metric: str, what: str) -> T:
    """value, or one sentence that says what the pictures lack."""
    if value is None:
        raise ConfigError(f"metric={metric} needs {what}, which these pictures do not have: leave this metric out.")
    return value
