"""Adaptive augmentation's geometry: one matrix an image, one resampling with a wavelet filter.

Matrices [N, 3, 3] lead from the pixels of the result to those of the image, both counted from the middle.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from torch_utils.ops.upfirdn2d import downsample2d, setup_filter, upsample2d
from training.layers.augment_draws import Augmentations, Dice, flips

SYM6 = (
    0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633, 0.4910559419267466,
    0.787641141030194, 0.3379294217276218, -0.07263752278646252, -0.021060292512300564, 0.04472490177066578,
    0.0017677118642428036, -0.007800708325034148,
)  # fmt: skip
MARGIN = len(SYM6) // 4  # pixels that the resampling filter reaches beyond the image


def _matrix(*rows: tuple[Tensor | float, ...]) -> Tensor:
    """Square matrices from their entries: tensors [N] and numbers."""
    entries = (torch.as_tensor(entry, dtype=torch.get_default_dtype()) for row in rows for entry in row)
    flat = torch.stack(torch.broadcast_tensors(*entries), dim=-1)
    return flat.unflatten(-1, (len(rows), len(rows)))


def _scaling(x: Tensor | float, y: Tensor | float) -> Tensor:
    return _matrix((x, 0, 0), (0, y, 0), (0, 0, 1))


def _shift(x: Tensor | float, y: Tensor | float) -> Tensor:
    return _matrix((1, 0, x), (0, 1, y), (0, 0, 1))


def _turn(angle: Tensor) -> Tensor:
    return _matrix((angle.cos(), -angle.sin(), 0), (angle.sin(), angle.cos(), 0), (0, 0, 1))


def geometry(settings: Augmentations, dice: Dice, width: int, height: int) -> Float[Tensor, "N 3 3"]:
    s = settings
    quarter = torch.where(dice.chosen("rotate90", s.rotate90), (dice.uniform("rotate90")[0] * 4).floor(), 0)
    whole = torch.where(dice.chosen("xint", s.xint), (2 * dice.uniform("xint") - 1) * s.xint_max, 0)
    size = torch.where(dice.chosen("scale", s.scale), (dice.normal("scale")[0] * s.scale_std).exp2(), 1)
    aspect = torch.where(dice.chosen("aniso", s.aniso), (dice.normal("aniso")[0] * s.aniso_std).exp2(), 1)
    part = torch.where(dice.chosen("xfrac", s.xfrac), dice.normal("xfrac") * s.xfrac_std, 0)
    before, after = (
        torch.where(dice.rotated(name, s.rotate), (2 * dice.uniform(name)[0] - 1) * math.pi * s.rotate_max, 0)
        for name in ("before", "after")
    )
    steps = (
        _scaling(1 - 2 * flips(s, dice).float(), 1), _turn(quarter * (math.pi / 2)),
        _shift(-(whole[0] * width).round(), -(whole[1] * height).round()), _scaling(1 / size, 1 / size), _turn(before),
        _scaling(1 / aspect, aspect), _turn(torch.zeros_like(after) if dice.fixed else after),
        _shift(-part[0] * width, -part[1] * height),
    )  # fmt: skip
    return product(steps)


def product(matrices: Sequence[Tensor]) -> Tensor:
    """The matrices multiplied, the first on the left."""
    result = matrices[0]
    for matrix in matrices[1:]:
        result = result @ matrix
    return result


def resampled(images: Float[Tensor, "N C H W"], M: Float[Tensor, "N 3 3"]) -> Float[Tensor, "N C H W"]:
    """The images under their matrices, reflected beyond their edges, at twice the resolution and back.

    The margin to reflect is that of the image of the batch that needs most.
    """
    f = setup_filter(SYM6).to(images.device)
    height, width = images.shape[2:]
    left, top, right, bottom = _margins(M, width, height)
    images = F.pad(images, [left, right, top, bottom], mode="reflect")
    M = _shift((left - right) / 2, (top - bottom) / 2) @ M
    images = upsample2d(images, f, up=2)
    M = _scaling(2, 2) @ M @ _scaling(0.5, 0.5)
    M = _shift(-0.5, -0.5) @ M @ _shift(0.5, 0.5)
    canvas = (images.shape[0], images.shape[1], 2 * (height + 2 * MARGIN), 2 * (width + 2 * MARGIN))
    M = _scaling(2 / images.shape[3], 2 / images.shape[2]) @ M @ _scaling(canvas[3] / 2, canvas[2] / 2)
    grid = F.affine_grid(M[:, :2].to(images), list(canvas), align_corners=False)
    images = F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return downsample2d(images, f, down=2, padding=-2 * MARGIN, flip_filter=True)


def _margins(M: Tensor, width: int, height: int) -> tuple[int, ...]:
    """How far left, above, right and below the image the corners of any result look, and the filter beyond them."""
    cx, cy = (width - 1) / 2, (height - 1) / 2
    corners = M @ torch.tensor([[-cx, cx, cx, -cx], [-cy, -cy, cy, cy], [1, 1, 1, 1]], dtype=M.dtype)
    reach = torch.cat([-corners[:, :2], corners[:, :2]], dim=1).amax(dim=(0, 2))
    room = torch.tensor([width, height, width, height]) - 1
    inside = 2 * MARGIN - torch.tensor([cx, cy, cx, cy])
    return tuple(int(v) for v in (reach + inside).clamp(min=torch.zeros_like(reach), max=room).ceil())
