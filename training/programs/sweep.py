"""Camera paths in fractions of the rig's range, as StyleNeRF writes them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dnnlib.errors import ConfigError
from training.contracts import Camera, CameraRig


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """For every height v, the camera goes from one side to the other, both ends included.

    u and v are fractions: 0 and 1 are the ends of the rig's range, which is its mean plus and minus its spread (also
    for a normal distribution); u grows with yaw, v grows downwards. Values outside [0, 1] go on beyond the range.
    """

    frames: int
    centre: float = 0.5  # of u
    relative_range_u_scale: float = 1.0  # width of the sweep, as a fraction of the range
    heights: Sequence[float] = (0.5,)  # v

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise ConfigError(f"frames={self.frames} makes no film: at least one frame is needed")

    def cameras(self, rig: CameraRig) -> list[Camera]:
        half = self.relative_range_u_scale / 2
        us = np.linspace(self.centre - half, self.centre + half, self.frames).tolist()
        return [camera_at_fractions(rig, u, v) for v in self.heights for u in us]


def camera_at_fractions(rig: CameraRig, u: float, v: float) -> Camera:
    """StyleNeRF's camera (u, v): it stands at (sin v' cos u', sin v' sin u', cos v') in a world with z up.

    Our axes are its (y, z, x), so yaw is u' and pitch is pi/2 - v'. A rig of the whole sphere covers all yaws, and
    heights evenly.
    """
    if rig.kind == "sphere":
        return rig.at(math.pi * (2 * u - 1), math.asin(min(max(1 - 2 * v, -1), 1)))
    return rig.at(rig.yaw_mean + rig.yaw_spread * (2 * u - 1), rig.pitch_mean - rig.pitch_spread * (2 * v - 1))
