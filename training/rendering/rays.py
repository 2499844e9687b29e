"""Rays of a camera, and where they meet the box of a field.

Pure functions. N cameras have M rays each, row by row from the top left; leading axes are free where it says *rays.
Directions have unit length, so distances along rays are scene units. Imports only cameras.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from torch_utils.record import Record
from training.rendering.cameras import Camera


@dataclass(frozen=True)
class Rays(Record):
    """Half-lines origin + t direction, t >= 0."""

    origins: Float[Tensor, "N M 3"]
    directions: Float[Tensor, "N M 3"]  # unit length

    def at(self, depths: Float[Tensor, "N M S"]) -> Float[Tensor, "N M S 3"]:
        """The points at these distances."""
        return torch.addcmul(self.origins[:, :, None], self.directions[:, :, None], depths[..., None])

    def folded(self) -> "Rays":
        """All rays as those of one item."""
        return self.map(lambda t: t.reshape(1, -1, 3))


def pixel_centres(resolution: int, device: torch.device | str = "cpu") -> Float[Tensor, "M 2"]:
    """(x, y) of the pixels of a square image that spans [0, 1] x [0, 1], row by row: ((j + 0.5) / R, (i + 0.5) / R)."""
    ticks = (torch.arange(resolution, device=device) + 0.5) / resolution
    y, x = torch.meshgrid(ticks, ticks, indexing="ij")
    return torch.stack([x, y], dim=-1).reshape(-1, 2)


def camera_rays(camera: Camera, pixels: Float[Tensor, "#N M 2"]) -> Rays:
    """The rays through points (x, y) of the image, [1, M, 2] or [N, M, 2].

    With intrinsics [[fx, s, cx], [0, fy, cy], [0, 0, 1]] a ray is (X, Y, 1), turned by the pose and made a unit vector:
    Y = (y - cy) / fy, X = (x - cx - s Y) / fx. Differentiable in the camera. Source: EG3D (Chan et al. 2022).
    """
    k = camera.intrinsics[:, :, :, None]
    x, y = pixels.to(k).unbind(dim=-1)
    down = (y - k[:, 1, 2]) / k[:, 1, 1]
    right = (x - k[:, 0, 2] - k[:, 0, 1] * down) / k[:, 0, 0]
    seen = torch.stack([right, down, torch.ones_like(right)], dim=-1)
    directions = F.normalize(seen @ camera.cam2world[:, :3, :3].transpose(1, 2), dim=-1)
    return Rays(camera.position[:, None].expand_as(directions), directions)


def image_rays(camera: Camera, resolution: int, patch: Float[Tensor, "#N 4"] | None = None) -> Rays:
    """A ray through the centre of every pixel of a square image, or of a part of it: x0, y0, width, height."""
    pixels = pixel_centres(resolution, camera.cam2world.device)[None]
    return camera_rays(camera, pixels if patch is None else patch[:, None, :2] + patch[:, None, 2:] * pixels)


def box_range(
    origins: Float[Tensor, "*rays 3"], directions: Float[Tensor, "*rays 3"], side: float
) -> tuple[Float[Tensor, "*rays"], Float[Tensor, "*rays"]]:
    """Where lines enter and leave the cube of this side around the origin; far < near where they miss it.

    near < 0 if the origin is inside. The slab test: near = max over axes of the nearer face, far = min of the farther.
    Worked example: from (0, 0, 2) towards (0, 0, -1) the cube of side 1 spans 1.5 to 2.5.
    """
    faces = torch.stack([(-side / 2 - origins) / directions, (side / 2 - origins) / directions])
    inside = faces.isnan()  # 0 / 0: the line runs within a face
    near = faces.masked_fill(inside, -torch.inf).amin(dim=0).amax(dim=-1)
    far = faces.masked_fill(inside, torch.inf).amax(dim=0).amin(dim=-1)
    return near, far


def empty_misses(
    near: Float[Tensor, "*rays"], far: Float[Tensor, "*rays"]
) -> tuple[Float[Tensor, "*rays"], Float[Tensor, "*rays"]]:
    """Ranges for rendering: nothing behind the camera, and an empty range where a ray misses, at its closest approach.

    Samples of an empty range weigh nothing, so such a ray sees the background.
    """
    middle = ((near + far) / 2).nan_to_num(0.0, 0.0, 0.0).clamp_min(0)
    hit = (far > near) & (far > 0)
    return torch.where(hit, near.clamp_min(0), middle), torch.where(hit, far, middle)


def batch_misses(
    near: Float[Tensor, "*rays"], far: Float[Tensor, "*rays"]
) -> tuple[Float[Tensor, "*rays"], Float[Tensor, "*rays"]]:
    """Ranges as EG3D gives them: a ray that misses gets the smallest and the largest *near* of all rays that hit.

    If none hits, all ranges are -1 to -2. Quirk of the reference: the far end comes from near values too, and the
    result depends on the company in the batch.
    """
    hit: Bool[Tensor, "*rays"] = far > near
    if not hit.any():
        near, far = marked_misses(near, far)
        return near, far
    return torch.where(hit, near, near[hit].min()), torch.where(hit, far, near[hit].max())


def marked_misses(
    near: Float[Tensor, "*rays"], far: Float[Tensor, "*rays"]
) -> tuple[Float[Tensor, "*rays"], Float[Tensor, "*rays"]]:
    """Ranges with EG3D's marks of a miss: near -1 and far -2."""
    missed = far < near
    return near.masked_fill(missed, -1.0), far.masked_fill(missed, -2.0)
