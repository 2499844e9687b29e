"""Does the head turn when the camera moves, and by how much?

A model that learned flat pictures answers a moved camera with the same face; one that learned half of the shape turns
it half as far. The probe sees the yaw in each picture: over many scenes and cameras, the correlation of commanded and
seen yaw says whether it turns, the slope of the least-squares line how far. Angles in radians unless named degrees.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from metrics.pictures import Measured, required
from metrics.probe import Look


def correlation_and_slope(commanded: Float[Tensor, "N"], seen: Float[Tensor, "N"]) -> tuple[float, float]:
    """Pearson's correlation and the slope of the least-squares line seen = a + slope * commanded.

    Both are 0 where nothing that was seen varies.
    """
    x, y = commanded.double() - commanded.double().mean(), seen.double() - seen.double().mean()
    shared, x_power, y_power = (x * y).sum(), x.square().sum(), y.square().sum()
    scale = (x_power * y_power).sqrt()
    return (shared / scale).item() if scale > 0 else 0.0, (shared / x_power).item()


def degrees_apart(a: Float[Tensor, "N"], b: Float[Tensor, "N"]) -> Float[Tensor, "N"]:
    """How far apart two angles are on the circle, in degrees; a and b in radians."""
    return torch.rad2deg((a - b + math.pi).remainder(math.tau) - math.pi).abs()


@dataclass(frozen=True)
class Turning:
    """Commanded against seen yaw: each scene seen from each yaw around the rig's mean."""

    probe: Look
    num_seeds: int
    yaws: Sequence[float]  # offsets from the rig's mean, radians

    def __call__(self, measured: Measured) -> dict[str, float]:
        commanded, seen = [], []
        for views in measured.views(range(self.num_seeds), self.yaws):
            for yaw, pictures in zip(self.yaws, views, strict=True):
                angles = self.probe(pictures.image).angles()[0]
                commanded.append(torch.full_like(angles, yaw))
                seen.append(angles)
        correlation, slope = correlation_and_slope(torch.cat(commanded), torch.cat(seen))
        return {"turning_correlation": correlation, "turning_slope": slope}


@dataclass(frozen=True)
class PoseError:
    """Mean distance in degrees between the commanded camera's angles and those seen, at training-like cameras."""

    probe: Look
    num_images: int

    def __call__(self, measured: Measured) -> dict[str, float]:
        errors = []
        for pictures in measured.fakes(self.num_images):
            x, y, z = required(pictures.camera, "pose_error", "cameras").cam2world[:, :3, 3].unbind(dim=1)
            yaw, pitch = self.probe(pictures.image).angles()
            commanded = torch.atan2(x, z), torch.atan2(y, torch.hypot(x, z))
            errors.append(torch.stack([degrees_apart(commanded[0], yaw), degrees_apart(commanded[1], pitch)]))
        yaw_error, pitch_error = torch.cat(errors, dim=1).mean(dim=1).tolist()
        return {"yaw_error_degrees": yaw_error, "pitch_error_degrees": pitch_error}
