"""Convolution whose weights are scaled, item by item, by styles.

Used by the synthesis layers of the StyleGAN2 family.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from torch_utils.ops.conv2d_resample import conv2d_resample
from torch_utils.ops.upfirdn2d import Padding


def modulated_conv2d(
    x: Float[Tensor, "N I H W"], weight: Float[Tensor, "O I k l"], styles: Float[Tensor, "N I"],
    b: Float[Tensor, "O"] | None = None, *, noise: Tensor | None = None, up: int = 1, padding: Padding = 0,
    f: Tensor | None = None, demodulate: bool = True, flip_weight: bool = True, gain: float = 1.0,
) -> Float[Tensor, "N O h w"]:  # fmt: skip
    """gain * (item n convolved with w'[n] = weight * styles[n], upsampled by f) + b + noise [N or 1, 1, h, w].

    demodulate divides by the norm of each output channel's w', so that inputs of variance 1 give outputs of variance 1.
    Modulation scales the input and demodulation the output, which shares one weight among all items (Karras et al.
    2020, section 2.2; w' is never formed).
    """
    if demodulate and x.dtype == torch.float16:  # keep squares within range; demodulation undoes any scale
        weight = weight / weight.detach().abs().amax(dim=(1, 2, 3), keepdim=True) / weight[0].numel() ** 0.5
        styles = styles / styles.detach().abs().amax(dim=1, keepdim=True)
    scale = None
    if demodulate:
        scale = (demodulation(weight, styles) * gain).to(x.dtype)[:, :, None, None]
    elif gain != 1:
        styles = styles * gain
    x = x * styles.to(x.dtype)[:, :, None, None]
    b = None if b is None else b.to(x.dtype)
    resampling = {"up": up, "padding": padding, "flip_weight": flip_weight}
    y = conv2d_resample(x, weight.to(x.dtype), f, b if scale is None else None, **resampling)
    if scale is not None:
        y = y * scale if b is None else torch.addcmul(b[:, None, None], y, scale)
    return y if noise is None else y.add_(noise.to(x.dtype))  # y is ours, and no gradient needs it


def demodulation(weight: Float[Tensor, "O I k l"], styles: Float[Tensor, "N I"]) -> Float[Tensor, "N O"]:
    """1 / norm of each output channel's modulated weights."""
    return (styles.square() @ weight.square().sum(dim=(2, 3)).t() + 1e-8).rsqrt()
