"""Fully connected layers with equalised learning rate (Karras et al. 2018), and the norm that codes get."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from torch_utils.ops.bias_act import bias_act


def normalize_2nd_moment(x: Float[Tensor, "N C"]) -> Float[Tensor, "N C"]:
    """x scaled so that the mean of its squares is 1 in every row."""
    return x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()


class FullyConnected(nn.Module):
    """act(x W^T + b), with weights stored at unit variance and scaled when used.

    lr_multiplier m makes the layer learn as if the learning rate were m times what it is.
    """

    def __init__(
        self, in_features: int, out_features: int, *, bias: bool = True, activation: str = "linear",
        lr_multiplier: float = 1.0, bias_init: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.activation = activation
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((out_features,), float(bias_init))) if bias else None
        self.weight_gain = lr_multiplier / in_features**0.5
        self.bias_gain = lr_multiplier

    def scaled(self) -> tuple[Float[Tensor, "O I"], Float[Tensor, "O"] | None]:
        """Weight and bias as they are used."""
        return self.weight * self.weight_gain, None if self.bias is None else self.bias * self.bias_gain

    def forward(self, x: Float[Tensor, "*N I"]) -> Float[Tensor, "*N O"]:
        weight, bias = self.scaled()
        bias = None if bias is None else bias.to(x.dtype)
        return bias_act(F.linear(x, weight.to(x.dtype), bias), act=self.activation, dim=-1, inplace=True)
