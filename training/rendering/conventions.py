"""Other people's camera conventions, turned into Camera's at a model's door.

EG3D's (h, v): h = v = pi / 2 is the front view, a larger h moves the camera to +x, a larger v moves it down; v counts
area on the sphere, not angle, so that near the equator dv tilts by 2 / pi dv only.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from training.rendering.cameras import look_at, pinhole, sphere_position


def eg3d_angles(h: Float[Tensor, "N"], v: Float[Tensor, "N"]) -> tuple[Float[Tensor, "N"], Float[Tensor, "N"]]:
    """Yaw and pitch of EG3D's angles: h - pi / 2 and arcsin(1 - 2 v / pi)."""
    return h - math.pi / 2, torch.asin(1 - 2 * v.clamp(1e-5, math.pi - 1e-5) / math.pi)


def eg3d_pose(
    h: Float[Tensor, "N"], v: Float[Tensor, "N"], radius: Float[Tensor, "N"], target: Float[Tensor, "N 3"]
) -> Float[Tensor, "N 4 4"]:
    """cam2world on a sphere around the origin, looking at the target."""
    return look_at(sphere_position(*eg3d_angles(h, v), 1.0) * radius[:, None], target)


def eg3d_intrinsics(fov_degrees: Float[Tensor, "N"]) -> Float[Tensor, "N 3 3"]:
    """Intrinsics of EG3D's field of view, measured along the diagonal. With the reference's rounded constants."""
    return pinhole(1 / (torch.tan(fov_degrees * 3.14159 / 360) * 1.414), fov_degrees.shape[0])
