"""Convolution with up- or downsampling by a filter, ordered so that no pixel is computed in vain.

Used by the layers of the StyleGAN2 family.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from torch_utils.ops.conv3x3 import conv3x3, conv3x3_fits
from torch_utils.ops.upfirdn2d import Padding, filter_padding, padding_sides, upfirdn2d


def conv2d_resample(
    x: Float[Tensor, "N I H W"], w: Float[Tensor, "O i k l"], f: Tensor | None = None,
    b: Float[Tensor, "O"] | None = None, *, up: int = 1, down: int = 1, padding: Padding = 0, groups: int = 1,
    flip_weight: bool = True, flip_filter: bool = False,
) -> Float[Tensor, "N O h w"]:  # fmt: skip
    """Upsample by f, convolve with w, add b, downsample by f.

    padding counts upsampled pixels, beyond what keeps the image in place for f. flip_weight=True correlates, as torch's
    conv2d does; False convolves. Source: Karras et al. 2020 (StyleGAN2), the op of that name.
    """
    x0, x1, y0, y1 = padding_sides(padding)
    for factors in ((up, 1), (1, down)):
        if factors != (1, 1):
            fx0, fx1, fy0, fy1 = filter_padding(f, *factors)
            x0, x1, y0, y1 = x0 + fx0, x1 + fx1, y0 + fy0, y1 + fy1
    sides = (x0, x1, y0, y1)
    one = w.shape[2] == w.shape[3] == 1
    if one and up == 1 and down > 1:
        x = upfirdn2d(x, f, down=down, padding=sides, flip_filter=flip_filter)
        return _conv(x, w, b, groups=groups, flip_weight=flip_weight)
    if one and up > 1 and down == 1:
        x = _conv(x, w, groups=groups, flip_weight=flip_weight)
        return _plus(upfirdn2d(x, f, up=up, padding=sides, gain=up**2, flip_filter=flip_filter), b)
    if up == 1 and down > 1:
        x = upfirdn2d(x, f, padding=sides, flip_filter=flip_filter)
        return _conv(x, w, b, stride=down, groups=groups, flip_weight=flip_weight)
    if up > 1:
        x = _plus(_upsampling_conv(x, w, f, up, sides, groups, flip_weight, flip_filter), b)
    elif x0 == x1 >= 0 and y0 == y1 >= 0:
        return _conv(x, w, b, padding=(y0, x0), groups=groups, flip_weight=flip_weight)
    else:
        return _conv(F.pad(x, sides), w, b, groups=groups, flip_weight=flip_weight)
    return x if down == 1 else upfirdn2d(x, f, down=down, flip_filter=flip_filter)


def pointwise_conv2d(
    x: Float[Tensor, "N I H W"], w: Float[Tensor, "O I 1 1"], b: Float[Tensor, "O"] | None = None
) -> Float[Tensor, "N O H W"]:
    """A 1x1 convolution.

    On one thread of a CPU torch gives oneDNN only batches of 16 or more, and all others to MKL, which takes two to
    three times as long (AMD EPYC 9005); so the pixels of fewer images are dealt to 16.
    """
    n, channels, height, width = x.shape
    dealt = n < 16 and n * height * width % 16 == 0 and x.is_contiguous(memory_format=torch.channels_last)
    if x.is_cuda or not dealt:
        return F.conv2d(x, w, b)
    y = F.conv2d(x.permute(0, 2, 3, 1).reshape(16, -1, 1, channels).permute(0, 3, 1, 2), w, b)
    return y.permute(0, 2, 3, 1).reshape(n, height, width, -1).permute(0, 3, 1, 2)


def _upsampling_conv(
    x: Tensor, w: Tensor, f: Tensor | None, up: int, sides: tuple[int, int, int, int], groups: int, flip_weight: bool,
    flip_filter: bool,
) -> Tensor:  # fmt: skip
    """A transposed convolution does the zero-stuffed convolution; the filter follows, on a few pixels more."""
    height, width = w.shape[2:]
    x0, x1, y0, y1 = sides
    x0, x1, y0, y1 = x0 - (width - 1), x1 - (width - up), y0 - (height - 1), y1 - (height - up)
    crop_x, crop_y = max(min(-x0, -x1), 0), max(min(-y0, -y1), 0)
    if groups == 1:
        w = w.transpose(0, 1)
    else:
        outputs, inputs = w.shape[0] // groups, w.shape[1]
        w = w.reshape(groups, outputs, inputs, height, width).transpose(1, 2)
        w = w.reshape(groups * inputs, outputs, height, width)
    if flip_weight:
        w = w.flip([2, 3])
    x = F.conv_transpose2d(x, w, stride=up, padding=(crop_y, crop_x), groups=groups)
    sides = (x0 + crop_x, x1 + crop_x, y0 + crop_y, y1 + crop_y)
    return upfirdn2d(x, f, padding=sides, gain=up**2, flip_filter=flip_filter)


def _plus(x: Tensor, b: Tensor | None) -> Tensor:
    return x if b is None else x + b[:, None, None]


def _conv(
    x: Tensor, w: Tensor, b: Tensor | None = None, *, stride: int = 1, padding: tuple[int, int] = (0, 0),
    groups: int = 1, flip_weight: bool,
) -> Tensor:  # fmt: skip
    """torch's conv2d correlates."""
    if w.shape[2] == w.shape[3] == stride == groups == 1 and padding == (0, 0):
        return pointwise_conv2d(x, w, b)
    if not flip_weight and (w.shape[2] > 1 or w.shape[3] > 1):
        w = w.flip([2, 3])
    if conv3x3_fits(x, w, b, stride, padding, groups):
        return conv3x3(x, w, b, padding[0])
    return F.conv2d(x, w, b, stride=stride, padding=padding, groups=groups)
