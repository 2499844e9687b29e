"""Camera paths that swing or turn round the subject and end where they began."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from dnnlib.errors import ConfigError
from dnnlib.limits import LIMITS
from training.contracts import Camera, CameraRig


@dataclass(frozen=True, kw_only=True)
class Orbit:
    """At time t of [0, 1], with a = 2 pi t, in radians from the centre:

        yaw = turns a + yaw sin a        pitch = lift + pitch cos a        field of view = fov + fov_swing sin a

    With both_ends the last frame repeats the first, as in the films of StyleNeRF and pi-GAN; without, frames * dt is
    one whole period and a film that is played in a loop neither jumps nor stops.
    """

    frames: int = 120
    yaw: float = 0.0
    pitch: float = 0.0
    lift: float = 0.0
    turns: float = 0.0
    centre: Sequence[float] | None = None  # yaw and pitch; default: the rig's mean
    fov: float | None = None  # degrees across the image; default: the rig's focal length
    fov_swing: float = 0.0
    both_ends: bool = False

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise ConfigError(f"frames={self.frames} makes no film: at least one frame is needed")
        limit = LIMITS["fov"]
        if self.fov is not None and not all(limit.admits(self.fov + s) for s in (self.fov_swing, -self.fov_swing)):
            raise ConfigError(
                f"fov={self.fov:g} and fov_swing={self.fov_swing:g}: the field of view would leave {limit.least:g} to "
                f"{limit.most:g} degrees"
            )

    def at(self, t: float, rig: CameraRig) -> Camera:
        """The camera at time t."""
        angle = math.tau * t
        yaw, pitch = self.centre or (rig.yaw_mean, rig.pitch_mean)
        if self.fov is not None:
            fov = math.radians(self.fov + self.fov_swing * math.sin(angle))
            rig = replace(rig, focal=0.5 / math.tan(fov / 2))
        yaw += self.turns * angle + self.yaw * math.sin(angle)
        return rig.at(yaw, pitch + self.lift + self.pitch * math.cos(angle))

    def cameras(self, rig: CameraRig) -> list[Camera]:
        period = max(self.frames - 1, 1) if self.both_ends else self.frames
        return [self.at(frame / period, rig) for frame in range(self.frames)]
