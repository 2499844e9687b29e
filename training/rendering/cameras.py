"""The one camera, and distributions of its poses.

Camera axes are OpenCV's: x right, y down, z forward. The world is right-handed with y up; the subject sits at the
origin and faces +z. Intrinsics are normalised: the image spans [0, 1] x [0, 1], so a focal length of 1 sees 53 degrees.
Angles in radians: yaw > 0 moves the camera towards +x, pitch > 0 moves it up, roll > 0 turns the camera clockwise
as seen from behind it. Other conventions are converted at a model's door.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
from jaxtyping import Float
from torch import Tensor

from torch_utils.draws import Draws
from torch_utils.record import Record


@dataclass(frozen=True)
class Camera(Record):
    """Where a picture is taken from, and through which lens."""

    cam2world: Float[Tensor, "N 4 4"]  # rotation | position in scene units
    intrinsics: Float[Tensor, "N 3 3"]  # fx, fy, cx, cy of an image that spans [0, 1]

    @property
    def position(self) -> Float[Tensor, "N 3"]:
        return self.cam2world[:, :3, 3]

    @property
    def forward(self) -> Float[Tensor, "N 3"]:
        return self.cam2world[:, :3, 2]

    def label(self) -> Float[Tensor, "N 25"]:
        """The 25 numbers of EG3D's data sets: cam2world row by row, then intrinsics."""
        return torch.cat([self.cam2world.flatten(1), self.intrinsics.flatten(1)], dim=1)

    @classmethod
    def from_label(cls, label: Float[Tensor, "N 25"]) -> Self:
        """The inverse of label(). Rotations are checked where labels enter: training/data."""
        return cls(label[:, :16].reshape(-1, 4, 4), label[:, 16:25].reshape(-1, 3, 3))

    def mirrored(self) -> Self:
        """The camera that sees the left-right mirrored scene as this one's image flipped left to right."""
        flip = torch.tensor([-1.0, 1.0, 1.0, 1.0], dtype=self.cam2world.dtype, device=self.cam2world.device)
        intrinsics = self.intrinsics.clone()
        intrinsics[:, 0, 2] = 1 - intrinsics[:, 0, 2]
        intrinsics[:, 0, 1] = -intrinsics[:, 0, 1]
        return replace(self, cam2world=self.cam2world * flip[:, None] * flip, intrinsics=intrinsics)

    def angles(self) -> tuple[Float[Tensor, "N"], Float[Tensor, "N"]]:
        """Yaw and pitch of the camera's position as seen from the origin."""
        x, y, z = self.position.unbind(dim=1)
        return torch.atan2(x, z), torch.atan2(y, torch.hypot(x, z))


def look_at(position: Float[Tensor, "N 3"], target: Float[Tensor, "N 3"]) -> Float[Tensor, "N 4 4"]:
    """cam2world of a camera at `position` that looks at `target`, world up (0, 1, 0) up in the image."""
    forward = torch.nn.functional.normalize(target - position, dim=-1)
    up = torch.tensor([0.0, 1.0, 0.0], dtype=position.dtype, device=position.device).expand_as(forward)
    right = torch.nn.functional.normalize(torch.linalg.cross(forward, up), dim=-1)
    down = torch.nn.functional.normalize(torch.linalg.cross(forward, right), dim=-1)
    pose = torch.eye(4, dtype=position.dtype, device=position.device).repeat(position.shape[0], 1, 1)
    pose[:, :3] = torch.stack([right, down, forward, position], dim=2)
    return pose


def sphere_position(yaw: Float[Tensor, "N"], pitch: Float[Tensor, "N"], radius: float) -> Float[Tensor, "N 3"]:
    """The point at `radius` from the origin that yaw = pitch = 0 puts on +z."""
    level = torch.cos(pitch)
    return radius * torch.stack([level * torch.sin(yaw), torch.sin(pitch), level * torch.cos(yaw)], dim=1)


def pinhole(focal: float | Float[Tensor, "N"], n: int = 1) -> Float[Tensor, "N 3 3"]:
    """Normalised intrinsics with the principal point in the middle."""
    intrinsics = torch.eye(3, dtype=torch.float32).repeat(n, 1, 1)
    intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = focal
    intrinsics[:, :2, 2] = 0.5
    return intrinsics


@dataclass(frozen=True, kw_only=True)
class CameraRig:
    """A distribution of cameras around the origin that look at one pivot.

    spread is a standard deviation for `gaussian` and half the range for `uniform`; `sphere` is uniform on the whole
    sphere of directions and ignores both means and spreads (poles excluded by 0.01 rad).
    """

    radius: float  # distance from the origin, scene units
    focal: float  # normalised focal length
    pivot: tuple[float, float, float] = (0.0, 0.0, 0.0)  # what the camera looks at
    kind: Literal["gaussian", "uniform", "sphere"] = "gaussian"
    yaw_mean: float = 0.0
    yaw_spread: float = 0.3
    pitch_mean: float = 0.0
    pitch_spread: float = 0.155

    def at(self, yaw: float | Tensor, pitch: float | Tensor = 0.0, roll: float | Tensor = 0.0) -> Camera:
        """The camera at these angles (numbers or tensors [N]), measured from the front, not from the mean."""
        angles = [torch.as_tensor(a, dtype=torch.float32).reshape(-1) for a in (yaw, pitch, roll)]
        yaws, pitches, rolls = torch.broadcast_tensors(*angles)
        position = sphere_position(yaws, pitches.clamp(-math.pi / 2 + 0.01, math.pi / 2 - 0.01), self.radius)
        pose = look_at(position, position.new_tensor(self.pivot).expand_as(position))
        turn = torch.eye(4, dtype=pose.dtype).repeat(yaws.shape[0], 1, 1)
        turn[:, 0, 0] = turn[:, 1, 1] = torch.cos(rolls)
        turn[:, 1, 0] = torch.sin(rolls)
        turn[:, 0, 1] = -turn[:, 1, 0]
        return Camera(pose @ turn, pinhole(self.focal, yaws.shape[0]))

    @property
    def mean(self) -> Camera:
        return self.at(self.yaw_mean, self.pitch_mean)

    def sample(self, draws: Draws) -> Camera:
        """One camera for every item that `draws` speaks for."""
        if self.kind == "gaussian":
            yaw, pitch = draws.normal("camera.yaw"), draws.normal("camera.pitch")
        else:
            yaw, pitch = 2 * draws.uniform("camera.yaw") - 1, 2 * draws.uniform("camera.pitch") - 1
        if self.kind == "sphere":
            return self.at(math.pi * yaw, torch.asin(pitch))
        return self.at(self.yaw_mean + self.yaw_spread * yaw, self.pitch_mean + self.pitch_spread * pitch)
