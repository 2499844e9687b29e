"""Do two views of a scene show one surface?

Every pixel of one view is carried by its own depth into the other view and compared with the colour found there. If
the depth is the scene's true shape, only light and resampling differ; a head painted on a wall moves like the wall. So
the error is told beside two others over the same pixels: of not moving at all, and of a flat-minded constant depth.
Source: inverse warping as in multi-view stereo; the occlusion test compares depths (Godard et al. 2017 for the idea).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from dnnlib.errors import ConfigError
from metrics.pictures import Measured, Pictures, Posed, required


def _points(camera: Posed, depth: Float[Tensor, "N 1 H W"]) -> Float[Tensor, "N H W 3"]:
    """World points at `depth` along the unit rays through the pixels' centres."""
    height, width = depth.shape[2:]
    v = (torch.arange(height, dtype=depth.dtype, device=depth.device) + 0.5) / height
    u = (torch.arange(width, dtype=depth.dtype, device=depth.device) + 0.5) / width
    pixels = torch.stack([*torch.meshgrid(v, u, indexing="ij")[::-1], torch.ones_like(depth[0, 0])], dim=-1)
    to_world = camera.cam2world[:, :3, :3] @ torch.linalg.inv(camera.intrinsics)
    rays = F.normalize(torch.einsum("nij,hwj->nhwi", to_world.to(depth.dtype), pixels), dim=-1)
    return camera.cam2world[:, None, None, :3, 3] + depth.movedim(1, -1) * rays


def _project(camera: Posed, points: Float[Tensor, "N H W 3"]) -> tuple[Float[Tensor, "N H W 2"], Bool[Tensor, "N H W"]]:
    """Where points lie in the camera's image (it spans [-1, 1]^2), and whether that is in front and inside."""
    from_eye = points - camera.cam2world[:, None, None, :3, 3]
    inside_out = camera.intrinsics @ camera.cam2world[:, :3, :3].mT
    x, y, z = torch.einsum("nij,nhwj->nhwi", inside_out, from_eye).unbind(dim=-1)
    place = torch.stack([x, y], dim=-1) / z.clamp(min=1e-6)[..., None] * 2 - 1
    return place, (z > 0) & (place.abs() <= 1).all(dim=-1)


def _look(image: Float[Tensor, "N C h w"], place: Float[Tensor, "N H W 2"]) -> Float[Tensor, "N C H W"]:
    return F.grid_sample(image, place, mode="bilinear", padding_mode="border", align_corners=False)


def warp(
    image: Float[Tensor, "N C H W"], there: Posed, here: Posed, depth: Float[Tensor, "N 1 H W"]
) -> tuple[Float[Tensor, "N C H W"], Bool[Tensor, "N 1 H W"]]:
    """What `here` sees if its surface, at `depth`, has the colours that `image`, taken from `there`, shows.

    Also whether each pixel's point lies in front of and inside the other image. depth: along the unit ray.
    """
    place, inside = _project(there, _points(here, depth))
    return _look(image, place), inside[:, None]


def visible(
    here: Posed, depth: Float[Tensor, "N 1 H W"], there: Posed, depth_there: Float[Tensor, "N 1 H W"], slack: float
) -> Bool[Tensor, "N 1 H W"]:
    """Which pixels of `here` show points that are in sight from `there`: not behind what is seen there.

    slack: how much deeper than the surface a point may lie, as a share of its distance. Pixels without a surface
    (depth 0 or not finite), here or there, are not visible.
    """
    points = _points(here, depth)
    place, inside = _project(there, points)
    distance = (points - there.cam2world[:, None, None, :3, 3]).norm(dim=-1)[:, None]
    surface = F.grid_sample(depth_there, place, mode="nearest", padding_mode="border", align_corners=False)
    known = (depth > 0) & depth.isfinite() & (surface > 0) & surface.isfinite()
    return known & inside[:, None] & (distance <= surface * (1 + slack))


@dataclass(frozen=True)
class Reprojection:
    """Mean absolute difference of colours (in [-1, 1]) between pairs of views, both ways, over pixels seen by both.

    Depth is brought to the image's resolution. The constant depth is the cameras' distance from the origin.
    """

    num_seeds: int
    yaws: Sequence[float]  # two offsets from the rig's mean, radians
    slack: float = 0.01

    def __call__(self, measured: Measured) -> dict[str, float]:
        total = torch.zeros(3, dtype=torch.float64)
        judged = pixels = 0
        for one, other in measured.views(range(self.num_seeds), self.yaws):
            for here, there in ((one, other), (other, one)):
                errors, mask = self._compare(here, there)
                total += (errors.double() * mask).sum(dim=(1, 2, 3)).cpu()
                judged, pixels = judged + int(mask.sum()), pixels + mask.numel()
        if not judged:
            raise ConfigError("metric=reprojection found no pixel that both views see: check the model's depth.")
        names = ("reprojection", "reprojection_unmoved", "reprojection_constant_depth")
        return {**dict(zip(names, (total / judged).tolist(), strict=True)), "reprojection_coverage": judged / pixels}

    def _compare(self, here: Pictures, there: Pictures) -> tuple[Float[Tensor, "3 N H W"], Bool[Tensor, "N H W"]]:
        image, other = here.image, there.image
        size = (image.shape[2], image.shape[3])
        depths = [required(view.depth, "reprojection", "depth") for view in (here, there)]
        near, far = (d if d.shape[2:] == size else enlarged(d, size) for d in depths)
        cameras = [required(view.camera, "reprojection", "cameras") for view in (here, there)]
        flat = cameras[0].cam2world[:, :3, 3].norm(dim=1)[:, None, None, None].expand_as(near)
        moved, _ = warp(other, cameras[1], cameras[0], near)
        constant, inside = warp(other, cameras[1], cameras[0], flat)
        mask = visible(cameras[0], near, cameras[1], far, self.slack) & inside
        errors = torch.stack([(guess - image).abs().mean(dim=1) for guess in (moved, other, constant)])
        return errors, mask[:, 0]


def enlarged(depth: Float[Tensor, "N 1 h w"], size: tuple[int, int]) -> Float[Tensor, "N 1 H W"]:
    """Depth at another size, bilinear between pixels that show something; 0, nothing, where any neighbour is empty."""
    seen = F.interpolate((depth > 0).to(depth.dtype), size, mode="bilinear")
    return torch.where(seen > 0.999, F.interpolate(depth, size, mode="bilinear") / seen.clamp_min(1e-8), 0.0)
