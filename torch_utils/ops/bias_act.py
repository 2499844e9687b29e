"""Bias, activation, gain and clamp in few passes over memory.

Used by every layer of the StyleGAN2 family. Imports no other file of ours.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


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
    if b is not None:
        b = b.to(x.dtype).reshape([-1 if i == dim % x.ndim else 1 for i in range(x.ndim)])
    slope = alpha if act == "lrelu" else NEGATIVE_SLOPE.get(act)
    if slope is not None and slope >= 0 and gain > 0:
        return _piecewise_linear(x, b, slope, gain, clamp, inplace)
    y = activation.apply(x if b is None else x + b, alpha)
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
