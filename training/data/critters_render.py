"""Rays against ellipsoids in closed form: pictures, labels and depth of critters from any camera.

A ray is d = H (u, v, 1) with u, v in [-1/2, 1/2] across the image. For every ellipsoid the coefficients of the
quadratic in t are polynomials in u and v: a = d^T M d, b = g . d, and the discriminant b^2 - a c is a conic, the
ellipsoid's silhouette. The polynomials' coefficients are made in float64; elementwise float32 does the rest, so a
picture does not depend on threads or on what it is rendered together with. Light is fixed to the world and lies in the
plane x = 0, so reflected heads look reflected.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from training.rendering.cameras import Camera

from .critters_shape import Head

LIGHT = (0.0, 0.58, 0.815)  # towards the key light
MISS = float("inf")


def _lens(camera: Camera) -> Float[Tensor, "N 3 3"]:
    """H: from (u, v, 1), measured from the middle of the image, to the ray's direction in the world."""
    shift = torch.eye(3, dtype=torch.float64)
    shift[0, 2] = shift[1, 2] = 0.5
    return camera.cam2world[:, :3, :3].double() @ torch.linalg.inv(camera.intrinsics.double()) @ shift


def _axis(resolution: int) -> Float[Tensor, "R"]:
    """Centres of the pixels along a side of the image, measured from its middle."""
    return (torch.arange(resolution, dtype=torch.float64) + 0.5).div(resolution).sub(0.5).float()


def _boxes(dual: Float[Tensor, "N E 3 3"], ahead: Float[Tensor, "N E"], resolution: int) -> list[list[list[int]]]:
    """The pixels around every silhouette: first column, first row, end column, end row.

    dual is the dual conic: the lines l that touch the silhouette have l^T dual l = 0. An ellipsoid that is not wholly
    in front of the camera gets the whole image.
    """
    last = dual[..., 2, 2, None]
    middle, diagonal = dual[..., :2, 2], dual.diagonal(dim1=-2, dim2=-1)[..., :2]
    reach = (middle.square() - diagonal * last).clamp_min(0).sqrt()
    sides = torch.cat([(middle - reach) / last, (middle + reach) / last], dim=-1)  # at which u, v the lines touch
    whole = torch.tensor([-1.0, -1.0, 1.0, 1.0], dtype=sides.dtype)
    sides = torch.where((last > 0) & (ahead[..., None] > 0), sides, whole)
    margin = torch.tensor([-0.5, -0.5, 1.5, 1.5], dtype=sides.dtype)
    return ((sides + 0.5) * resolution + margin).floor().clamp(0, resolution).long().tolist()


def _conic(form: Float[Tensor, "N E 3 3"], at: Float[Tensor, "R"]) -> tuple[Tensor, Tensor, Tensor]:
    """column(u), row(v) and mixed(v), [N, E, R] each: (u, v, 1) form (u, v, 1)^T = column + row + mixed u."""
    f = form.float()[..., None]
    column = (f[..., 0, 0, :] * at + 2 * f[..., 0, 2, :]) * at
    row = (f[..., 1, 1, :] * at + 2 * f[..., 1, 2, :]) * at + f[..., 2, 2, :]
    return column, row, 2 * f[..., 0, 1, :] * at


@np.errstate(invalid="ignore")
def trace(head: Head, camera: Camera, resolution: int) -> tuple[Float[Tensor, "N R R"], Int[Tensor, "N R R"]]:
    """First hit of the ray through each pixel's centre: t in units of |d| (inf where it misses), and the ellipsoid."""
    lens, at = _lens(camera)[:, None], _axis(resolution)
    to_ball, away = head.to_ball.double(), camera.position.double()[:, None] - head.centre.double()
    rays, start = to_ball @ lens, (to_ball @ away[..., None])[..., 0]
    square, slope = rays.mT @ rays, (rays.mT @ start[..., None])[..., 0]
    beyond = (start.square().sum(-1) - 1)[..., None, None]
    half_axes, centre = torch.linalg.inv(rays), -torch.linalg.solve(lens, away[..., None])
    boxes = _boxes(centre @ centre.mT - half_axes @ half_axes.mT, centre[..., 2, 0], resolution)
    discriminant = [side.numpy() for side in _conic(slope[..., :, None] * slope[..., None, :] - square * beyond, at)]
    a = [side.numpy() for side in _conic(square, at)]
    g = slope.float()[..., None]
    b = (g[..., 0, :] * at).numpy(), (g[..., 1, :] * at + g[..., 2, :]).numpy()
    nearest = torch.full((len(head), resolution, resolution), MISS)
    part = torch.zeros(nearest.shape, dtype=torch.long)
    t_map, part_map, columns = nearest.numpy(), part.numpy(), at.numpy()
    for n, around in enumerate(boxes):  # numpy: a tenth of torch's cost a call, and the pieces are small
        for e, (left, top, right, bottom) in enumerate(around):
            x, y, u = (n, e, slice(left, right)), (n, e, slice(top, bottom), None), columns[left:right]
            root = discriminant[1][y] + discriminant[0][x]
            root += discriminant[2][y] * u
            np.sqrt(root, out=root)  # NaN where the ray misses, which compares as false below
            root += b[1][y] + b[0][x]
            t = -root / (a[1][y] + a[0][x] + a[2][y] * u)
            best = t_map[n, top:bottom, left:right]
            closer = (t > 0) & (t < best)
            best[closer] = t[closer]
            part_map[n, top:bottom, left:right][closer] = e
    return nearest, part


def directions(camera: Camera, resolution: int) -> Float[Tensor, "N R R 3"]:
    """d of every pixel's centre, not normalised: its component along the camera's axis is 1."""
    lens, at = _lens(camera).float()[:, None, None], _axis(resolution)
    return lens[..., 0] * at[:, None] + lens[..., 1] * at[:, None, None] + lens[..., 2]


def _smooth(value: Tensor, edge: Tensor | float, width: float) -> Tensor:
    """0 below the edge, 1 above, linear over `width` in between."""
    return ((value - edge) / width + 0.5).clamp(0, 1)


class _Hits:
    """Points of the heads' surfaces, [H, ...], with what the ellipsoids say about them."""

    def __init__(self, head: Head, part: Int[Tensor, "H"], row: Int[Tensor, "H"], point: Float[Tensor, "H 3"]) -> None:
        self.row, self.point, self.part = row, point, part + row * head.centre.shape[1]
        self.head = head
        to_ball = self.of(head.to_ball)
        self.ball = (to_ball * (point - self.of(head.centre))[:, None]).sum(-1)
        self.normal = torch.nn.functional.normalize((to_ball * self.ball[..., None]).sum(1), dim=1)
        self.along = (self.ball * self.of(head.axis)).sum(1)

    def of(self, table: Tensor) -> Tensor:
        """The rows of a table [N, E, ...] of ellipsoids."""
        return table.flatten(0, 1).index_select(0, self.part)


def _albedo(hits: _Hits) -> Float[Tensor, "H 3"]:
    head = hits.head
    plain, outer, inner = hits.of(head.colour).unbind(1)
    cap = hits.of(head.cap)
    marks = head.mark_centre.index_select(0, hits.row), head.mark_radii.index_select(0, hits.row)
    inside = ((hits.point[:, None] - marks[0]) / marks[1]).square().sum(-1).amin(-1)
    marked = (hits.of(head.coat) * _smooth(-inside, -1.0, 0.12))[:, None]
    colour = plain.lerp(head.mark_colour.index_select(0, hits.row), marked)
    colour = colour.lerp(outer, _smooth(hits.along, cap[:, 0], 0.05)[:, None])
    return colour.lerp(inner, _smooth(hits.along, cap[:, 1], 0.04)[:, None])


def _lit(hits: _Hits, towards_eye: Float[Tensor, "H 3"]) -> Float[Tensor, "H 3"]:
    """Wrapped diffuse light from LIGHT, a little from above, and a highlight that moves with the eye (Blinn 1977)."""
    light = torch.tensor(LIGHT)
    gloss = hits.of(hits.head.gloss)
    key = (hits.normal * light).sum(1).mul(0.5).add(0.5).square()
    diffuse = 0.38 + 0.62 * key + 0.08 * hits.normal[:, 1]
    middle = torch.nn.functional.normalize(towards_eye + light, dim=1)
    shine = (hits.normal * middle).sum(1).clamp(0, 1).pow(gloss[:, 1]) * gloss[:, 0]
    return _albedo(hits) * diffuse[:, None] + shine[:, None]


def paint(head: Head, camera: Camera, resolution: int, oversampling: int = 2) -> Float[Tensor, "N 3 R R"]:
    """Pictures in [-1, 1], each pixel the mean of oversampling^2 rays."""
    fine = resolution * oversampling
    t, part = trace(head, camera, fine)
    ray = directions(camera, fine)
    row, _, _ = hit = (t < MISS).nonzero(as_tuple=True)
    ray_hit = ray[hit]
    hits = _Hits(head, part[hit], row, camera.position[row] + t[hit][:, None] * ray_hit)
    image = head.background[:, None, None].expand(-1, fine, fine, 3).clone()
    image[hit] = _lit(hits, torch.nn.functional.normalize(-ray_hit, dim=1)).clamp(0, 1)
    return torch.nn.functional.avg_pool2d(image.movedim(3, 1), oversampling) * 2 - 1


def measure(
    head: Head, camera: Camera, resolution: int
) -> tuple[Int[Tensor, "N 1 R R"], Float[Tensor, "N 1 R R"], Float[Tensor, "N 1 R R"], Bool[Tensor, "N 1 R R"]]:
    """Label map, depth along the unit ray (background 0), opacity (0 or 1), edges; by rays through pixels' centres."""
    t, part = trace(head, camera, resolution)
    ray = directions(camera, resolution)
    seen = t < MISS
    row, _, _ = hit = seen.nonzero(as_tuple=True)
    hits = _Hits(head, part[hit], row, camera.position[row] + t[hit][:, None] * ray[hit])
    on_cap = hits.along > hits.of(head.cap)[:, 0]
    labels = torch.zeros_like(part)
    labels[hit] = torch.where(on_cap, hits.of(head.cap_label), hits.of(head.label))
    depth = torch.where(seen, t * ray.norm(dim=-1), 0.0)
    return labels[:, None], depth[:, None], seen[:, None].float(), edges(labels, depth)[:, None]


def edges(labels: Int[Tensor, "N R R"], depth: Float[Tensor, "N R R"], jump: float = 0.03) -> Bool[Tensor, "N R R"]:
    """Pixels that differ from their right or lower neighbour in label, or in depth by more than `jump`."""
    out = torch.zeros_like(labels, dtype=torch.bool)
    for axis in (1, 2):
        rest = labels.shape[axis] - 1
        changed = (labels.diff(dim=axis) != 0) | (depth.diff(dim=axis).abs() > jump)
        out.narrow(axis, 0, rest).logical_or_(changed)
    return out
