"""From seed to seed and back to the first, while the camera goes round."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from dnnlib.errors import ConfigError
from training.contracts import Camera, CameraRig, Codes, Shot


@runtime_checkable
class Loop(Protocol):
    """A closed camera path."""

    def at(self, t: float, rig: CameraRig) -> Camera:
        """The camera at time t of [0, 1)."""
        ...


@dataclass(frozen=True, kw_only=True)
class Interpolation:
    """Codes on the periodic cubic spline through the seeds' codes: smooth also where the film starts anew."""

    camera_path: Loop  # gone round once in the whole film
    frames: int = 120  # from one seed to the next
    fps: float = 60
    modalities: Sequence[str] = ("image",)
    blends_seeds: ClassVar[bool] = True  # one film of all seeds

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise ConfigError(f"frames={self.frames} makes no film: at least one frame from seed to seed is needed")

    def shots(self, codes: Sequence[Codes], rig: CameraRig) -> Iterator[Shot]:
        total = len(codes) * self.frames
        for frame, weights in enumerate(spline_weights(len(codes), self.frames)):
            blend = combine(codes, weights, frame // self.frames)
            yield Shot(codes=blend, camera=self.camera_path.at(frame / total, rig), scene=frame)


def spline_weights(knots: int, steps: int) -> np.ndarray:
    """[knots * steps, knots]: how much of every knot the periodic cubic spline has at time i / steps; rows sum to 1."""
    from scipy.interpolate import CubicSpline

    if knots == 1:
        return np.ones((steps, 1))
    closed = np.eye(knots)[np.arange(knots + 1) % knots]
    return CubicSpline(np.arange(knots + 1), closed, bc_type="periodic")(np.arange(knots * steps) / steps)


def combine(codes: Sequence[Codes], weights: np.ndarray, nearest: int) -> Codes:
    """The weighted sum of their rows; what is not blended comes from codes[nearest]."""

    def total(name: str) -> Tensor:
        return torch.stack([w * getattr(c, name) for w, c in zip(weights.tolist(), codes, strict=True)]).sum(dim=0)

    return replace(codes[nearest], **{name: total(name) for name in codes[nearest].rows})
