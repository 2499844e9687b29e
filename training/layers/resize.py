"""Resizing of images [N, C, H, W], differentiable twice."""

from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from torch_utils.ops.upfirdn2d import downsample2d, upsample2d

ResizeFilter = Literal["antialiased", "none", "classic"] | float


def resize(img: Float[Tensor, "N C H W"], size: int, antialias: bool = True) -> Float[Tensor, "N C s s"]:
    """Bilinear resize to size x size; antialias widens the kernel where the image shrinks."""
    if img.shape[2] == img.shape[3] == size:
        return img
    shrinks = size < max(img.shape[2:])
    return F.interpolate(img, size=(size, size), mode="bilinear", align_corners=False, antialias=antialias and shrinks)


def filtered_resizing(
    img: Float[Tensor, "N C H W"], size: int, f: Tensor, mode: ResizeFilter = "antialiased"
) -> Float[Tensor, "N C s s"]:
    """Resize as EG3D does (Chan et al. 2022).

    A number blends from "none" (0) to "antialiased" (1). "classic" upsamples by the filter f, resizes to 2 size + 2 and
    downsamples by f.
    """
    if mode == "antialiased" or mode == "none":
        return resize(img, size, antialias=mode == "antialiased")
    if mode == "classic":
        large = resize(upsample2d(img, f), 2 * size + 2, antialias=False)
        return downsample2d(large, f, flip_filter=True, padding=-1)
    return resize(img, size, antialias=False).lerp(resize(img, size), mode)
