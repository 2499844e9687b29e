"""Camera positions on a grid of yaws and pitches."""

from dataclasses import dataclass

import numpy as np

from dnnlib.errors import ConfigError
from training.contracts import Camera, CameraRig


@dataclass(frozen=True, kw_only=True)
class AngleGrid:
    """Row by row from above, each from left to right, in radians from the front."""

    columns: int
    rows: int
    yaw: float  # of the last column; the first is its opposite
    pitch: float  # of the top row; the bottom row is its opposite

    def __post_init__(self) -> None:
        if self.columns < 1 or self.rows < 1:
            raise ConfigError(f"columns={self.columns} and rows={self.rows} make no grid: both must be at least 1")

    def cameras(self, rig: CameraRig) -> list[Camera]:
        yaws = np.linspace(-self.yaw, self.yaw, self.columns).tolist()
        pitches = np.linspace(self.pitch, -self.pitch, self.rows).tolist()
        return [rig.at(yaw, pitch) for pitch in pitches for yaw in yaws]
