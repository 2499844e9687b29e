"""Features of points from three axis-aligned planes (tri-planes of EG3D, Chan et al. 2022).

Planes are stored with channels last, [B, H, W, 3, C]: the channels_last image [B, 3 C, H, W] of a synthesis network
without a copy. The field lives in a cube of side `box_side` around the origin; a point outside loses the planes that do
not reach it. Imports no other file of ours.
"""

from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

PlaneAxes = Literal["fixed", "legacy"]
# The coordinates along width and height of each plane. EG3D's released weights never see (y, z): their third plane is
# a second view of the second one.
AXES: dict[PlaneAxes, tuple[tuple[int, int], ...]] = {
    "fixed": ((0, 1), (0, 2), (2, 1)),
    "legacy": ((0, 1), (0, 2), (2, 0)),
}


def sample_planes(
    planes: Float[Tensor, "B H W 3 C"], points: Float[Tensor, "N P 3"], axes: PlaneAxes = "fixed", box_side: float = 1.0
) -> Float[Tensor, "N P C"]:
    """mean_k plane_k(u_k, v_k): bilinear, between the centres of texels, zero beyond the borders.

    points in scene units; (u, v) are two of their coordinates, in [-box_side / 2, box_side / 2] from the first to the
    last column and row. B is N, or 1 for planes that all points share. Differentiable any number of times in planes;
    in points by the slower twin, which is taken if they need a gradient.
    """
    wanted = torch.is_grad_enabled() and points.requires_grad
    # On a GPU the twin is the faster one, but its gradient depends on the order in which threads add.
    eager_gpu = planes.is_cuda and not torch.are_deterministic_algorithms_enabled()
    if wanted or eager_gpu or planes.dtype not in (torch.float32, torch.float64):
        return sample_each_plane(planes, points, axes, box_side).mean(dim=1)
    batch, height, width, _, channels = planes.shape
    cells, weights = _corners(points.detach().to(planes.dtype), batch, height, width, AXES[axes], box_side)
    table = planes.reshape(-1, channels)
    return _Gather.apply(table, cells, weights).view(*points.shape[:2], channels)


def sample_each_plane(
    planes: Float[Tensor, "B H W 3 C"], points: Float[Tensor, "N P 3"], axes: PlaneAxes = "fixed", box_side: float = 1.0
) -> Float[Tensor, "N 3 P C"]:
    """plane_k(u_k, v_k) before the mean: the twin, and the definition, of sample_planes."""
    n, count = points.shape[:2]
    batch, height, width, _, channels = planes.shape
    images = planes.permute(0, 3, 4, 1, 2).reshape(batch * 3, channels, height, width)
    uv = plane_coordinates(points * (2 / box_side), axes)
    if batch != n:  # planes that all points share
        uv = uv.transpose(0, 1).reshape(1, 3, n * count, 2)
    found = F.grid_sample(images, uv.reshape(batch * 3, 1, -1, 2).to(images.dtype), align_corners=False)
    found = found.view(batch, 3, channels, -1).transpose(2, 3)
    return found if batch == n else found.view(3, n, count, channels).transpose(0, 1)


def plane_coordinates(points: Float[Tensor, "N P 3"], axes: PlaneAxes = "fixed") -> Float[Tensor, "N 3 P 2"]:
    """(u, v) of every point on every plane: along width, along height."""
    return torch.stack([points[..., list(pair)] for pair in AXES[axes]], dim=1)


def _corners(
    points: Tensor, batch: int, height: int, width: int, axes: tuple[tuple[int, int], ...], box_side: float
) -> tuple[Int[Tensor, "points 12"], Float[Tensor, "points 12"]]:
    """The twelve cells around each point, as rows of the table of all cells, and their shares of the mean.

    All work is done on long rows, one for a coordinate or a corner, since the inner loops of many small axes are slow.
    """
    scaled = points.permute(2, 0, 1).contiguous().mul(2 / box_side).add_(1)  # 0 to 2 across the box
    _, items, count = scaled.shape
    near = {size: _neighbours(scaled, size) for size in {height, width}}
    first = torch.arange(batch, dtype=torch.int32, device=points.device) * (3 * height * width)  # cells of the items
    columns, rows = near[width][0] * 3, near[height][0] * (3 * width) + first[:, None]
    share_u, share_v = near[width][1] / 3, near[height][1]
    cells = torch.empty(3, 2, 2, items, count, dtype=torch.int32, device=points.device)
    shares = torch.empty(3, 2, 2, items, count, dtype=points.dtype, device=points.device)
    for plane, (u, v) in enumerate(axes):
        torch.add(rows[:, None, v], columns[None, :, u] + plane, out=cells[plane])
        torch.mul(share_v[:, None, v], share_u[None, :, u], out=shares[plane])
    # With three axes, since torch is slower at transposing a matrix.
    cells, shares = (found.view(12, items, count).permute(1, 2, 0).contiguous() for found in (cells, shares))
    return cells.flatten(0, 1), shares.flatten(0, 1)


def _neighbours(scaled: Float[Tensor, "3 N P"], size: int) -> tuple[Int[Tensor, "2 3 N P"], Float[Tensor, "2 3 N P"]]:
    """The texels on both sides of each coordinate, clamped to the plane, and their shares (0 outside)."""
    position = scaled * (size / 2) - 0.5
    below = position.floor()
    share = position.sub_(below)
    texels = torch.stack([below, below + 1])
    inside = texels.clamp(0, size - 1).nan_to_num_(0.0)  # what is no number has a cell too, and no number as its share
    shares = torch.stack([1 - share, share]).mul_(texels.eq_(inside))
    return inside.int(), shares


def _collect(table: Tensor, cells: Tensor, weights: Tensor) -> Tensor:
    """sum_j weights[i, j] table[cells[i, j]]"""
    return F.embedding_bag(cells, table, per_sample_weights=weights, mode="sum")


class _Gather(torch.autograd.Function):
    """_collect, and its transpose as the gradient; cells and weights get none.

    embedding_bag's own gradient is slower and has no further derivative.
    """

    @staticmethod
    def forward(ctx: Any, table: Tensor, cells: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(cells, weights)
        ctx.rows = table.shape[0]
        return _collect(table, cells, weights)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor):
        cells, weights = ctx.saved_tensors
        return _Scatter.apply(grads[0], cells, weights, ctx.rows), None, None


class _Scatter(torch.autograd.Function):
    """The transpose of _collect, and _collect as its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cells: Tensor, weights: Tensor, rows: int) -> Tensor:
        ctx.save_for_backward(cells, weights)
        add = add_in_turn if x.device.type == "cpu" else add_sorted
        return add(x.detach().contiguous(), cells, weights, rows)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor):
        cells, weights = ctx.saved_tensors
        return _Gather.apply(grads[0].contiguous(), cells, weights), None, None, None


def add_in_turn(
    x: Float[Tensor, "points C"], cells: Int[Tensor, "points K"], weights: Float[Tensor, "points K"], rows: int
) -> Float[Tensor, "rows C"]:
    """out[c] = sum of weights[i, j] x[i] over all i, j with cells[i, j] = c: point after point, on one CPU thread.

    On one thread 1.4 (planes of 256x256) to 4 times (32x32) as fast as add_sorted.
    """
    from scipy.sparse import csc_array  # takes a while to load, and only training needs it

    points, corners = cells.shape
    starts = np.arange(0, cells.numel() + 1, corners)
    matrix = csc_array((weights.view(-1).numpy(), cells.view(-1).numpy(), starts), shape=(rows, points))
    return torch.from_numpy(matrix @ x.numpy())


def add_sorted(
    x: Float[Tensor, "points C"], cells: Int[Tensor, "points K"], weights: Float[Tensor, "points K"], rows: int
) -> Float[Tensor, "rows C"]:
    """The same by bags of points, once sorted by cell: on a GPU, too, always the same bits."""
    flat = cells.view(-1)
    order = flat.sort(stable=True).indices
    shares = weights.view(-1).index_select(0, order)
    counts = torch.bincount(flat, minlength=rows)
    starts = counts.cumsum(0).sub_(counts)
    source = order.div_(cells.shape[1], rounding_mode="floor")
    return F.embedding_bag(source, x, starts, per_sample_weights=shares, mode="sum")
