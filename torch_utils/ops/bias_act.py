"""Bias, activation, gain and clamp in few passes over memory; on a GPU in one (bias_act.cu).

Used by every layer of the StyleGAN2 family.
"""

import ctypes
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from torch_utils.ops import native
from torch_utils.ops.cubins import ELEMENTS, Text


@dataclass(frozen=True)
class Activation:
    """A nonlinearity and its defaults."""

    apply: Callable[[Tensor, float], Tensor]  # of x and alpha
    alpha: float = 0.0
    gain: float = 1.0  # keeps the second moment of a normal variable, roughly


ACTIVATIONS = {
    "linear": Activation(lambda x, alpha: x),
    "relu": Activation(lambda x, alpha: F.relu(x), gain=math.sqrt(2)),
    "lrelu": Activation(F.leaky_relu, alpha=0.2, gain=math.sqrt(2)),
    "tanh": Activation(lambda x, alpha: torch.tanh(x)),
    "sigmoid": Activation(lambda x, alpha: torch.sigmoid(x)),
    "elu": Activation(lambda x, alpha: F.elu(x)),
    "selu": Activation(lambda x, alpha: F.selu(x)),
    "softplus": Activation(lambda x, alpha: F.softplus(x, threshold=80)),  # the identity above 80
    "swish": Activation(lambda x, alpha: F.silu(x), gain=math.sqrt(2)),
}
HOMOGENEOUS = {"linear", "relu", "lrelu"}  # f(g x) = g f(x) for g > 0: a gain may go into the weights before
NEGATIVE_SLOPE = {"linear": 1.0, "relu": 0.0}  # of the homogeneous ones; that of lrelu is alpha


def bias_act(
    x: Float[Tensor, "..."], b: Float[Tensor, "C"] | None = None, *, dim: int = 1, act: str = "linear",
    alpha: float | None = None, gain: float | None = None, clamp: float | None = None, inplace: bool = False,
) -> Float[Tensor, "..."]:  # fmt: skip
    """clamp(gain * f(x + b)), with b along dimension dim, into [-clamp, clamp].

    act names f: linear relu lrelu tanh sigmoid elu selu softplus swish. None means f's own alpha (only lrelu has one)
    and gain, and no clamp. Where the clamp acts the gradient is zero. inplace allows x to be overwritten.
    Source: Karras et al. 2020 (StyleGAN2), the op of that name.
    """
    if act not in ACTIVATIONS:
        raise ValueError(f"there is no activation {act!r}; there are {', '.join(ACTIVATIONS)}")
    activation = ACTIVATIONS[act]
    alpha = activation.alpha if alpha is None else alpha
    gain = activation.gain if gain is None else gain
    if _kernel_fits(x, b, dim, act, alpha, gain):
        return _in_one_pass(x, b if b is None else b.to(x.dtype), dim % x.ndim, act, alpha, gain, clamp)
    return bias_act_twin(x, b, dim, act, alpha, gain, clamp, inplace)


def bias_act_twin(
    x: Tensor, b: Tensor | None, dim: int, act: str, alpha: float, gain: float, clamp: float | None,
    inplace: bool = False,
) -> Tensor:  # fmt: skip
    """The definition of bias_act, on every device."""
    if b is not None:
        b = b.to(x.dtype).reshape([-1 if i == dim % x.ndim else 1 for i in range(x.ndim)])
    slope = alpha if act == "lrelu" else NEGATIVE_SLOPE.get(act)
    if slope is not None and slope >= 0 and gain > 0:
        return _piecewise_linear(x, b, slope, gain, clamp, inplace)
    y = ACTIVATIONS[act].apply(x if b is None else x + b, alpha)
    y = y if gain == 1 else y * gain
    return y if clamp is None else y.clamp(-clamp, clamp)


def _piecewise_linear(
    x: Tensor, b: Tensor | None, slope: float, gain: float, clamp: float | None, inplace: bool
) -> Tensor:
    """As gain > 0 commutes with the kink, the gain goes into the one pass that adds the bias."""
    if b is not None:
        x, inplace = torch.add(b if gain == 1 else b * gain, x, alpha=gain), True
    elif gain != 1:
        x, inplace = x * gain, True
    inplace = inplace and not x._is_view()  # autograd would copy what the view shows more than once
    return x if slope == 1 and clamp is None else _Kinks.apply(x, slope, clamp, inplace)


class _Kinks(torch.autograd.Function):
    """Leaky relu, then clamp; it keeps nothing but its result for the backward pass."""

    @staticmethod
    def forward(ctx, x: Tensor, slope: float, clamp: float | None, inplace: bool) -> Tensor:
        if inplace:
            ctx.mark_dirty(x)
            y = x if slope == 1 else F.leaky_relu_(x, slope)
        else:
            y = x.clone() if slope == 1 else F.leaky_relu(x, slope)
        if clamp is not None:
            y.clamp_(-clamp, clamp)
        ctx.save_for_backward(y)
        ctx.slope, ctx.clamp = slope, clamp
        return y

    @staticmethod
    def backward(ctx, *grads: Tensor):
        (y,) = ctx.saved_tensors
        return _KinksBackward.apply(grads[0], y.detach(), ctx.slope, ctx.clamp), None, None, None


class _KinksBackward(torch.autograd.Function):
    """Linear in the incoming gradient, and its own derivative."""

    @staticmethod
    def forward(ctx, grad: Tensor, y: Tensor, slope: float, clamp: float | None) -> Tensor:
        ctx.save_for_backward(y)
        ctx.slope, ctx.clamp = slope, clamp
        if clamp is not None and slope == 1:
            return torch.ops.aten.hardtanh_backward(grad, y, -clamp, clamp)
        grad = torch.ops.aten.leaky_relu_backward(grad, y, slope, True)
        if clamp is not None:
            torch.ops.aten.hardtanh_backward.grad_input(grad, y, -clamp, clamp, grad_input=grad)
        return grad

    @staticmethod
    def backward(ctx, *grads: Tensor):
        (y,) = ctx.saved_tensors
        return _KinksBackward.apply(grads[0], y, ctx.slope, ctx.clamp), None, None, None


THREADS, PER_THREAD = 256, 4  # of a block; PER_THREAD of bias_act.cu
MOST = 2**32 - 1  # numbers that its indices reach
OF_RESULT = tuple(ACTIVATIONS)[:3]  # their slopes follow from the sign of the result, which alone is kept


class _Job(ctypes.Structure):
    """Job of bias_act.cu."""

    _fields_ = (
        [(name, ctypes.c_void_p) for name in ("x", "b", "grad", "out")]
        + [(name, ctypes.c_uint) for name in ("count", "step", "channels")]
        + [("act", ctypes.c_int)]
        + [(name, ctypes.c_float) for name in ("alpha", "gain", "clamp")]
    )


def _text(x: Tensor) -> Text:
    return Text("bias_act", (f"ELEMENT={ELEMENTS[x.dtype]}",))


def _kernel_fits(x: Tensor, b: Tensor | None, dim: int, act: str, alpha: float, gain: float) -> bool:
    """Whether the kernel can do this. What is wrong is left for torch to say."""
    signed = act not in OF_RESULT or (gain > 0 and (alpha >= 0 or act != "lrelu"))  # the result has the sign of x + b
    shaped = b is None or (-x.ndim <= dim < x.ndim and b.shape == (x.shape[dim],))
    given = [x] if b is None else [x, b]
    return x.dtype in ELEMENTS and x.numel() <= MOST and signed and shaped and native.kernel_ready(_text(x), *given)


def _dense(x: Tensor) -> Tensor:
    """x without holes in memory, channels last or not."""
    last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
    return x if last else x.contiguous()


def _launch(
    kernel: str, x: Tensor, b: Tensor | None, grad: Tensor | None, dim: int, settings: tuple[Any, ...]
) -> Tensor:
    act, alpha, gain, clamp = settings
    x = _dense(x)
    out = torch.empty_like(x)
    if grad is not None and grad.stride() != x.stride():
        grad = torch.empty_like(x).copy_(grad)
    b = None if b is None else b.contiguous()
    job = _Job(
        x=x.data_ptr(), b=None if b is None else b.data_ptr(), grad=None if grad is None else grad.data_ptr(),
        out=out.data_ptr(), count=x.numel(), step=x.stride(dim), channels=x.shape[dim],
        act=tuple(ACTIVATIONS).index(act), alpha=alpha, gain=gain, clamp=-1.0 if clamp is None else clamp,
    )  # fmt: skip
    native.launch(_text(x), kernel, job, x.device, -(-x.numel() // (THREADS * PER_THREAD)), THREADS)
    return out


@torch.library.custom_op("parallax::bias_act", mutates_args=())
def _in_one_pass(
    x: Tensor, b: Tensor | None, dim: int, act: str, alpha: float, gain: float, clamp: float | None
) -> Tensor:
    return _launch("bias_act_forward", x, b, None, dim, (act, alpha, gain, clamp))


@_in_one_pass.register_fake
def _shape(x: Tensor, b: Tensor | None, dim: int, act: str, alpha: float, gain: float, clamp: float | None) -> Tensor:
    return torch.empty_like(_dense(x))


@torch.library.custom_op("parallax::bias_act_gradient", mutates_args=())
def _gradient(
    grad: Tensor, x: Tensor, b: Tensor | None, dim: int, act: str, alpha: float, gain: float, clamp: float | None
) -> Tensor:
    """Of x + b. For the first three activations x is the result, and b None."""
    return _launch("bias_act_backward", x, b, grad, dim, (act, alpha, gain, clamp))


@_gradient.register_fake
def _gradient_shape(
    grad: Tensor, x: Tensor, b: Tensor | None, dim: int, act: str, alpha: float, gain: float, clamp: float | None
) -> Tensor:
    return torch.empty_like(_dense(x))


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, b, ctx.dim, *settings = inputs
    ctx.settings = tuple(settings)
    ctx.save_for_backward(*((output, None) if settings[0] in OF_RESULT else (x, b)))


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    kept, b = ctx.saved_tensors
    act, *_ = ctx.settings
    if act not in OF_RESULT and torch.is_grad_enabled():  # a further derivative may be asked for, which the twin has
        kept, b = kept.view_as(kept), None if b is None else b.view_as(b)
        y = bias_act_twin(kept, b, ctx.dim, *ctx.settings)
        moving = [t for t, needed in zip((kept, b), ctx.needs_input_grad, strict=False) if needed and t is not None]
        found = iter(torch.autograd.grad(y, moving, grad, create_graph=True))
        slopes = [next(found) if needed else None for needed in ctx.needs_input_grad[:2]]
        return *slopes, None, None, None, None, None
    slope = _gradient(grad, kept, b, ctx.dim, *ctx.settings)
    summed = None
    if ctx.needs_input_grad[1]:
        summed = slope.sum(dim=[i for i in range(slope.ndim) if i != ctx.dim])
    return slope if ctx.needs_input_grad[0] else None, summed, None, None, None, None, None


def _remember_gradient(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, y, _, ctx.dim, *settings = inputs
    ctx.settings = tuple(settings)
    ctx.save_for_backward(y)


def _gradient_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    """It is linear in the incoming gradient; the activations that come here have no curvature."""
    (y,) = ctx.saved_tensors
    return _gradient(grad, y, None, ctx.dim, *ctx.settings), *[None] * 7


torch.library.register_autograd("parallax::bias_act", _backward, setup_context=_remember)
torch.library.register_autograd("parallax::bias_act_gradient", _gradient_backward, setup_context=_remember_gradient)
