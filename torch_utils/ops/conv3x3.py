"""3x3 convolution with stride 1 on a CPU, with fewer multiplications than torch needs (Winograd; Lavin and Gray 2016).

The convolutions of StyleGAN2's family are nearly all of this kind. Where it does not apply torch's conv2d serves, which
is also its definition.
"""

import ctypes
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from torch_utils.ops import native

LINE = 16  # channels come in whole vectors
CACHE = 120_000  # floats of transformed tiles that one thread keeps
FEWEST = 512  # pixels of all images: with fewer, transforming the weights costs more than it saves
COPIES = 2**26  # floats that the threads' own sums of a gradient may take


def conv3x3_fits(x: Tensor, w: Tensor, b: Tensor | None, stride: int, padding: tuple[int, int], groups: int) -> bool:
    """Whether conv3x3 can do this convolution here, and sooner than torch. What is wrong is left for torch to say."""
    return (
        w.shape[2:] == (3, 3) and stride == groups == 1 and padding[0] == padding[1] <= 2
        and w.shape[0] % LINE == w.shape[1] % LINE == 0 and x.ndim == 4 and x.shape[1] == w.shape[1]
        and x.numel() >= FEWEST * x.shape[1] > 0 and min(x.shape[2:]) + 2 * padding[0] > 2
        and (b is None or b.shape == w.shape[:1]) and native.ready(x, w, *([] if b is None else [b]))
    )  # fmt: skip


def conv3x3(
    x: Float[Tensor, "N I H W"], w: Float[Tensor, "O I 3 3"], b: Float[Tensor, "O"] | None = None, padding: int = 1
) -> Float[Tensor, "N O h w"]:
    """conv2d(x, w, b, padding=padding), channels_last; differentiable any number of times."""
    return _convolve(x, w, b, padding)


class _Shape(ctypes.Structure):
    """Shape of conv3x3.c."""

    _fields_ = tuple(
        (name, ctypes.c_int64)
        for name in ("images", "height", "width", "inputs", "outputs", "padding", "high", "wide", "group")
    )


def _job(x: Tensor, outputs: int, padding: int) -> tuple[_Shape, int]:
    """The job, and how many groups of tiles it is."""
    images, inputs, height, width = x.shape
    high, wide = (height + 2 * padding - 1) // 2, (width + 2 * padding - 1) // 2
    group = min(96, max(48, CACHE // (16 * (inputs + outputs)) // 12 * 12))
    return _Shape(images, height, width, inputs, outputs, padding, high, wide, group), -(-images * high * wide // group)


def _last(t: Tensor) -> Tensor:
    return t.contiguous(memory_format=torch.channels_last)


@torch.library.custom_op("parallax::conv3x3", mutates_args=(), device_types="cpu")
def _convolve(x: Tensor, w: Tensor, b: Tensor | None, padding: int) -> Tensor:
    y = _result(x, w, b, padding)
    b = None if b is None else b.contiguous()
    job, groups = _job(x, len(w), padding)
    native.call("convolve", job, _last(x), w.permute(2, 3, 1, 0).contiguous(), b, y, native.workers_for(groups))
    return y


@_convolve.register_fake
def _result(x: Tensor, w: Tensor, b: Tensor | None, padding: int) -> Tensor:
    height, width = (n + 2 * padding - 2 for n in x.shape[2:])
    size = (len(x), len(w), height, width)
    return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)  # no view


@torch.library.custom_op("parallax::conv3x3_weights", mutates_args=(), device_types="cpu")
def _correlate(x: Tensor, grad: Tensor, padding: int) -> Tensor:
    """The gradient for the weights."""
    w = x.new_empty(3, 3, x.shape[1], grad.shape[1])
    job, groups = _job(x, grad.shape[1], padding)
    workers = native.workers_for(min(groups, COPIES // (16 * w[0, 0].numel())))
    native.call("correlate", job, _last(x), _last(grad), w, workers)
    return w.permute(3, 2, 0, 1)


@_correlate.register_fake
def _weights(x: Tensor, grad: Tensor, padding: int) -> Tensor:
    return x.new_empty(3, 3, x.shape[1], grad.shape[1]).permute(3, 2, 0, 1)


def _adjoint(grad: Tensor, w: Tensor, padding: int) -> Tensor:
    """The gradient for x."""
    return _convolve(grad, w.flip([2, 3]).transpose(0, 1), None, 2 - padding)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])
    ctx.padding = inputs[-1]


def _convolve_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, w = ctx.saved_tensors
    wanted = ctx.needs_input_grad
    return (
        _adjoint(grad, w, ctx.padding) if wanted[0] else None,
        _correlate(x, grad, ctx.padding) if wanted[1] else None,
        grad.sum(dim=(0, 2, 3)) if wanted[2] else None,
        None,
    )


def _correlate_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, y = ctx.saved_tensors
    wanted = ctx.needs_input_grad
    return (
        _adjoint(y, grad, ctx.padding) if wanted[0] else None,
        _convolve(x, grad, None, ctx.padding) if wanted[1] else None,
        None,
    )


torch.library.register_autograd("parallax::conv3x3", _convolve_backward, setup_context=_remember)
torch.library.register_autograd("parallax::conv3x3_weights", _correlate_backward, setup_context=_remember)
