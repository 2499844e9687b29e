"""Pad, upsample, filter and downsample images in one operator, differentiable any number of times.

No zeros are inserted: upsampling is a transposed depthwise convolution, downsampling a strided one, and the gradient is
the same operator with up and down exchanged. On a CPU its results are channels_last; on a GPU one kernel does all of it
(upfirdn2d.cu).
"""

import ctypes
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from torch_utils.ops import native
from torch_utils.ops.cubins import ELEMENTS, Text

Pair = int | Sequence[int]  # both axes, or (x, y)
Size = Any  # int, or a symbol of one while torch traces
Padding = int | Sequence[int]  # all sides, or (x, y), or (x0, x1, y0, y1)


def setup_filter(
    f: Any, normalize: bool = True, flip_filter: bool = False, gain: float = 1.0, separable: bool | None = None
) -> Float[Tensor, "taps"] | Float[Tensor, "rows columns"]:
    """A filter for upfirdn2d from its taps: a number, a list or tensor [taps] or [rows, columns]; None is [1].

    A one-dimensional filter of eight taps or more stays separable, a shorter one becomes its outer product with itself,
    unless `separable` decides. normalize makes the sum 1; gain is the filter's whole two-dimensional gain.
    """
    taps = torch.as_tensor(1.0 if f is None else f, dtype=torch.float32)
    if taps.ndim == 0:
        taps = taps[None]
    if taps.ndim > 2 or taps.numel() == 0:
        raise ValueError(f"a filter has one or two axes and at least one tap, not the shape {tuple(taps.shape)}")
    if separable is None:
        separable = taps.ndim == 1 and taps.numel() >= 8
    if taps.ndim == 1 and not separable:
        taps = torch.outer(taps, taps)
    if normalize:
        taps = taps / taps.sum()
    if flip_filter:
        taps = taps.flip(list(range(taps.ndim)))
    return taps * gain ** (taps.ndim / 2)


def upfirdn2d(
    x: Float[Tensor, "N C H W"], f: Tensor | None, *, up: Pair = 1, down: Pair = 1, padding: Padding = 0,
    flip_filter: bool = False, gain: float = 1.0,
) -> Float[Tensor, "N C h w"]:  # fmt: skip
    """gain * every down-th pixel of the convolution of f with the padded, zero-stuffed x, channel by channel.

    Each pixel is followed by up - 1 zeros (the last one too); then padding, in upsampled pixels, adds zeros or, where
    negative, crops; then f, two-dimensional or separable, is convolved without further padding (correlated if
    flip_filter); then every down-th pixel is kept from the first on. Raises ValueError if the filter does not fit.
    Source: Karras et al. 2020 (StyleGAN2), the op of that name.
    """
    (up_x, up_y), (down_x, down_y) = _pair(up), _pair(down)
    x0, x1, y0, y1 = padding_sides(padding)
    filter_ = x.new_ones(1, 1) if f is None else f.to(x)
    if flip_filter:
        filter_ = filter_.flip(list(range(filter_.ndim)))
    if filter_.ndim == 2:
        height, width = filter_.shape
        return _resample(x, filter_ * gain, _Axis(up_y, down_y, y0, y1, height), _Axis(up_x, down_x, x0, x1, width))
    row, half = filter_ * gain**0.5, filter_.numel()
    x = _resample(x, row[None, :], _Axis(), _Axis(up_x, down_x, x0, x1, half))
    return _resample(x, row[:, None], _Axis(up_y, down_y, y0, y1, half), _Axis())


def filter2d(
    x: Float[Tensor, "N C H W"], f: Tensor | None, *, padding: Padding = 0, flip_filter: bool = False, gain: float = 1.0
) -> Float[Tensor, "N C h w"]:
    """Convolve with f; the size stays but for the given extra padding."""
    return _centred(x, f, 1, 1, padding, flip_filter, gain)


def upsample2d(
    x: Float[Tensor, "N C H W"], f: Tensor | None, *, up: Pair = 2, padding: Padding = 0, flip_filter: bool = False,
    gain: float = 1.0,
) -> Float[Tensor, "N C h w"]:  # fmt: skip
    """Upsample; a filter that sums to 1 keeps the brightness. The size is a multiple but for the extra padding."""
    return _centred(x, f, up, 1, padding, flip_filter, gain)


def downsample2d(
    x: Float[Tensor, "N C H W"], f: Tensor | None, *, down: Pair = 2, padding: Padding = 0, flip_filter: bool = False,
    gain: float = 1.0,
) -> Float[Tensor, "N C h w"]:  # fmt: skip
    """Downsample; a filter that sums to 1 keeps the brightness. The size is a fraction but for the extra padding."""
    return _centred(x, f, 1, down, padding, flip_filter, gain)


def filter_padding(f: Tensor | None, up: Pair = 1, down: Pair = 1) -> tuple[int, int, int, int]:
    """x0, x1, y0, y1 that keep the image in place: size * up / down, without a shift."""
    width, height = _filter_size(f)
    sides = []
    for taps, u, d in zip((width, height), _pair(up), _pair(down), strict=True):
        if u > 1:
            sides += [(taps + u - 1) // 2, (taps - u) // 2]
        else:
            sides += [(taps - d + 1) // 2, (taps - d) // 2]
    return tuple(sides)


def _centred(
    x: Tensor, f: Tensor | None, up: Pair, down: Pair, padding: Padding, flip_filter: bool, gain: float
) -> Tensor:
    extra = padding_sides(padding)
    sides = [a + b for a, b in zip(extra, filter_padding(f, up, down), strict=True)]
    up_x, up_y = _pair(up)
    return upfirdn2d(x, f, up=up, down=down, padding=sides, flip_filter=flip_filter, gain=gain * up_x * up_y)


def _pair(value: Pair) -> tuple[int, int]:
    x, y = (value, value) if isinstance(value, int) else value
    if x < 1 or y < 1:
        raise ValueError(f"factors for up- and downsampling are positive whole numbers, not {value}")
    return x, y


def padding_sides(padding: Padding) -> tuple[int, int, int, int]:
    """x0, x1, y0, y1 of a padding in any of its forms."""
    if isinstance(padding, int):
        padding = (padding, padding)
    if len(padding) == 2:
        x, y = padding
        return x, x, y, y
    x0, x1, y0, y1 = padding
    return x0, x1, y0, y1


def _filter_size(f: Tensor | None) -> tuple[int, int]:
    return (1, 1) if f is None else (f.shape[-1], f.shape[0])


@dataclass(frozen=True)
class _Axis:
    """What happens along one axis of the image."""

    up: int = 1
    down: int = 1
    before: Size = 0  # padding
    after: Size = 0
    taps: int = 1

    def padded(self, size: Size) -> Size:
        return size * self.up + self.before + self.after

    def left(self, size: Size) -> Size:
        """How many pixels the operator leaves of so many."""
        return (self.padded(size) - self.taps) // self.down + 1

    def adjoint(self, size: Size) -> "_Axis":
        """The axis of the transposed operator, for an input of this size."""
        before = self.taps - self.before - 1
        after = size * self.up - self.left(size) * self.down + self.before - self.up + 1
        return replace(self, up=self.down, down=self.up, before=before, after=after)


def _resample(x: Tensor, f: Tensor, rows: _Axis, columns: _Axis) -> Tensor:
    """By the kernel where there is one."""
    if _kernel_fits(x, f, rows, columns):
        return _by_kernel(x, f, list(astuple(rows)), list(astuple(columns)))
    return _Twin.apply(x, f, rows, columns)


class _Twin(torch.autograd.Function):
    """x and a two-dimensional filter; the filter gets no gradient."""

    @staticmethod
    def forward(ctx, x: Tensor, f: Tensor, rows: _Axis, columns: _Axis) -> Tensor:
        ctx.save_for_backward(f)
        ctx.rows, ctx.columns = rows.adjoint(x.shape[2]), columns.adjoint(x.shape[3])
        return resample_twin(x, f, rows, columns)

    @staticmethod
    def backward(ctx, *grads: Tensor):
        (f,) = ctx.saved_tensors
        return _Twin.apply(grads[0], f.flip([0, 1]), ctx.rows, ctx.columns), None, None, None


def resample_twin(x: Tensor, f: Tensor, rows: _Axis, columns: _Axis) -> Tensor:
    """The definition: true convolution, rows and columns each with their own factors and padding."""
    for axis, size in ((rows, x.shape[2]), (columns, x.shape[3])):
        if axis.padded(size) < axis.taps:
            raise ValueError(f"{axis.taps} taps do not fit into {axis.padded(size)} padded pixels")
    if not x.is_cuda:  # there a depthwise convolution is several times as fast with the channels last in memory
        x = x.contiguous(memory_format=torch.channels_last)
    channels = x.shape[1]
    down = (rows.down, columns.down)
    if rows.up == columns.up == 1:
        x, padding = _pad(x, rows.before, rows.after, columns.before, columns.after)
        weight = f.flip([0, 1]).expand(channels, 1, *f.shape)
        return F.conv2d(x, weight, stride=down, padding=padding, groups=channels)
    # A transposed convolution gives every pixel that the filter touches; padding adds to them, or crops.
    sides = [
        side for axis in (rows, columns) for side in (axis.taps - 1 - axis.before, axis.taps - axis.up - axis.after)
    ]
    crop = [max(0, min(sides[:2])), max(0, min(sides[2:]))]
    weight = f.expand(channels, 1, *f.shape)
    y = F.conv_transpose2d(x, weight, stride=(rows.up, columns.up), padding=crop, groups=channels)
    rest = [crop[0] - sides[0], crop[0] - sides[1], crop[1] - sides[2], crop[1] - sides[3]]
    if any(rest):
        y = F.pad(y, [rest[2], rest[3], rest[0], rest[1]])
    return y if down == (1, 1) else y[:, :, :: down[0], :: down[1]]


def _pad(x: Tensor, top: int, bottom: int, left: int, right: int) -> tuple[Tensor, tuple[int, int]]:
    """Pad here what is not symmetric; the convolution pads the rest for nothing."""
    free = (min(top, bottom), min(left, right))
    if top == bottom >= 0 and left == right >= 0:
        return x, free
    return F.pad(x, [left, right, top, bottom]), (0, 0)


THREADS = 256  # of a block
MOST = 2**32 - 1  # pixels of a result that its indices reach
MOST_TAPS = 64  # its loops over taps unroll


class _Job(ctypes.Structure):
    """Job of upfirdn2d.cu."""

    _fields_ = (
        [(name, ctypes.c_void_p) for name in ("x", "f", "y")]
        + [(f"step_{axis}", ctypes.c_longlong) for axis in "nchw"]
        + [(name, ctypes.c_uint) for name in ("count", "channels", "out_h", "out_w")]
        + [(name, ctypes.c_int) for name in ("in_h", "in_w", "before_y", "before_x", "channels_last")]
    )


def _text(x: Tensor, rows: _Axis, columns: _Axis) -> Text:
    macros = [f"ELEMENT={ELEMENTS[x.dtype]}"]
    for letter, axis in (("Y", rows), ("X", columns)):
        macros += [f"UP_{letter}={axis.up}", f"DOWN_{letter}={axis.down}", f"TAPS_{letter}={axis.taps}"]
    return Text("upfirdn2d", tuple(sorted(macros)))


def _kernel_fits(x: Tensor, f: Tensor, rows: _Axis, columns: _Axis) -> bool:
    """Whether the kernel can do this. What is wrong is left for the twin to say."""
    if x.ndim != 4 or x.dtype not in ELEMENTS or f.numel() > MOST_TAPS:
        return False
    fit = all(axis.padded(size) >= axis.taps for axis, size in zip((rows, columns), x.shape[2:], strict=True))
    pixels = len(x) * x.shape[1] * rows.left(x.shape[2]) * columns.left(x.shape[3])
    return fit and pixels <= MOST and native.kernel_ready(_text(x, rows, columns), x, f)


def _empty(x: Tensor, rows: _Axis, columns: _Axis) -> Tensor:
    """Of the result's shape."""
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    size = (*x.shape[:2], rows.left(x.shape[2]), columns.left(x.shape[3]))
    form = torch.channels_last if last else torch.contiguous_format
    return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=form)


@torch.library.custom_op("parallax::upfirdn2d", mutates_args=())
def _by_kernel(x: Tensor, f: Tensor, rows: Sequence[int], columns: Sequence[int]) -> Tensor:
    down, across = _Axis(*rows), _Axis(*columns)
    y, taps = _empty(x, down, across), f.float().contiguous()
    strides = dict(zip(("step_n", "step_c", "step_h", "step_w"), x.stride(), strict=True))
    job = _Job(
        x=x.data_ptr(), f=taps.data_ptr(), y=y.data_ptr(), **strides, count=y.numel(), channels=y.shape[1],
        out_h=y.shape[2], out_w=y.shape[3], in_h=x.shape[2], in_w=x.shape[3], before_y=down.before,
        before_x=across.before, channels_last=not y.is_contiguous(),
    )  # fmt: skip
    native.launch(_text(x, down, across), "upfirdn2d", job, x.device, -(-y.numel() // THREADS), THREADS)
    return y


@_by_kernel.register_fake
def _shape(x: Tensor, f: Tensor, rows: Sequence[Size], columns: Sequence[Size]) -> Tensor:
    return _empty(x, _Axis(*rows), _Axis(*columns))


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, f, rows, columns = inputs
    ctx.save_for_backward(f)
    ctx.axes = _Axis(*rows).adjoint(x.shape[2]), _Axis(*columns).adjoint(x.shape[3])


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
    (f,) = ctx.saved_tensors
    return _resample(grad, f.flip([0, 1]), *ctx.axes), None, None, None


torch.library.register_autograd("parallax::upfirdn2d", _backward, setup_context=_remember)
