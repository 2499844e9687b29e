"""Convolution layers with equalised learning rate, optional resampling, bias and activation."""

from collections.abc import Sequence
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor, nn

from torch_utils.ops.bias_act import ACTIVATIONS, HOMOGENEOUS, bias_act
from torch_utils.ops.conv2d_resample import conv2d_resample
from torch_utils.ops.upfirdn2d import setup_filter

Taps = Sequence[float] | Sequence[Sequence[float]]  # of a resampling filter, in one or two dimensions
BINOMIAL = (1, 3, 3, 1)  # the low-pass filter of StyleGAN2


def working(x: Tensor, weight: Tensor, half_dtype: torch.dtype | None) -> Tensor:
    """x as a block computes with it: in half precision where the device is fast in it, else in that of its weights.

    That is on a GPU, and bfloat16 on a CPU that has it; published float16 networks stay exact there. On a CPU channels
    come last in memory, where convolutions are up to twice as fast, filters ten times; on a GPU they do if those of the
    weight do (nhwc=True). Without a device it is as on one that has everything.
    """
    if x.is_cuda:
        x = x.to(half_dtype or weight.dtype)
        last = weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()
        return x.contiguous(memory_format=torch.channels_last) if last else x
    halves = x.is_meta or (half_dtype == torch.bfloat16 and x.device.type == "cpu" and has_bfloat16())
    return x.to((half_dtype if halves else None) or weight.dtype).contiguous(memory_format=torch.channels_last)


@cache
def has_bfloat16() -> bool:
    """Whether this machine's CPU computes with bfloat16."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def split_gain(activation: str, gain: float) -> tuple[float, float]:
    """The gain before and after the activation: before, where it costs a few weights and no pass over the image."""
    return (gain, 1.0) if activation in HOMOGENEOUS else (1.0, gain)


class Conv2d(nn.Module):
    """gain * act(conv(x) + b), with weights stored at unit variance and scaled when used.

    up, down resample by the filter whose taps are given. A layer that is not trainable keeps weight and bias as buffers
    (freeze-D, Mo et al. 2020).
    """

    weight: Tensor
    bias: Tensor | None
    resample_filter: Tensor | None

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, *, bias: bool = True, activation: str = "linear",
        up: int = 1, down: int = 1, resample_filter: Taps = BINOMIAL, conv_clamp: float | None = None,
        trainable: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.activation, self.up, self.down, self.conv_clamp = activation, up, down, conv_clamp
        self.padding = kernel_size // 2
        self.weight_gain = 1 / (in_channels * kernel_size**2) ** 0.5
        self.act_gain = ACTIVATIONS[activation].gain
        weight = torch.randn(out_channels, in_channels, kernel_size, kernel_size)
        offset = torch.zeros(out_channels) if bias else None
        if trainable:
            self.weight = nn.Parameter(weight)
            self.bias = None if offset is None else nn.Parameter(offset)
        else:
            self.register_buffer("weight", weight)
            self.register_buffer("bias", offset)
        taps = setup_filter(resample_filter) if up > 1 or down > 1 else None
        self.register_buffer("resample_filter", taps, persistent=False)

    def forward(self, x: Float[Tensor, "N I H W"], gain: float = 1.0) -> Float[Tensor, "N O h w"]:
        before, after = split_gain(self.activation, self.act_gain * gain)
        weight = (self.weight * (self.weight_gain * before)).to(x.dtype)
        bias = None if self.bias is None else (self.bias * before).to(x.dtype)
        # Up-layers convolve, the others correlate: so are the released weights.
        resampling = {"up": self.up, "down": self.down, "padding": self.padding, "flip_weight": self.up == 1}
        x = conv2d_resample(x, weight, self.resample_filter, bias, **resampling)
        clamp = None if self.conv_clamp is None else self.conv_clamp * gain
        return bias_act(x, act=self.activation, gain=after, clamp=clamp, inplace=True)
