"""Weighted sums of what is seen along rays: the inner loop of volume rendering, in one pass over memory."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from torch_utils.ops import native


def weighted_sum(weights: Float[Tensor, "*rays S"], values: Float[Tensor, "*rays S C"]) -> Float[Tensor, "*rays C"]:
    """sum_s weights_s values_s, differentiable any number of times in both, the second time by the twin."""
    if weights.shape == values.shape[:-1] and native.ready(weights, values):
        return _sum(weights, values)
    return sum_twin(weights, values)


def sum_twin(weights: Tensor, values: Tensor) -> Tensor:
    """The definition of weighted_sum, on every device."""
    return (weights[..., None] * values).sum(dim=-2)  # faster than a product of so small matrices


def _call(function: str, weights: Tensor, values: Tensor, *others: Tensor) -> None:
    native.call(function, weights.numel() // weights.shape[-1], *values.shape[-2:], weights, values, *others)


@torch.library.custom_op("parallax::weighted_sum", mutates_args=(), device_types="cpu")
def _sum(weights: Tensor, values: Tensor) -> Tensor:
    out = _shape(weights, values)
    _call("sum_forward", weights.contiguous(), values.contiguous(), out)
    return out


@_sum.register_fake
def _shape(weights: Tensor, values: Tensor) -> Tensor:
    return values.new_empty(*values.shape[:-2], values.shape[-1])


@torch.library.custom_op("parallax::weighted_sum_gradient", mutates_args=(), device_types="cpu")
def _gradient(weights: Tensor, values: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    weights, values = weights.contiguous(), values.contiguous()
    found = torch.empty_like(weights), torch.empty_like(values)
    _call("sum_backward", weights, values, grad.contiguous(), *found)
    return found


@_gradient.register_fake
def _gradient_shapes(weights: Tensor, values: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(weights), torch.empty_like(values)


def _remember(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
    weights, values = ctx.saved_tensors
    if torch.is_grad_enabled():  # a further derivative may be asked for
        return (values @ grad[..., None]).squeeze(-1), weights[..., None] * grad[..., None, :]
    return _gradient(weights, values, grad)


torch.library.register_autograd("parallax::weighted_sum", _backward, setup_context=_remember)
