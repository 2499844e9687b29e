"""Pictures on disk: from float images in [-1, 1] to 8-bit PNG files, alone or tiled.

Arrays for files are uint8 [N, H, W, C] with C = 3 (RGB) or 1 (grey). Files appear whole or not at all.
Used by the training loop, generate.py and the apps.
"""

import os

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from dnnlib.files import whole_file


def to_uint8(images: Float[Tensor, "N C H W"]) -> UInt8[np.ndarray, "N H W C"]:
    """clamp(x * 127.5 + 128, 0, 255), truncated: the rounding of published pictures."""
    levels = (images.detach().float() * 127.5 + 128).clamp(0, 255)
    return levels.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def tile(images: UInt8[np.ndarray, "N H W C"], columns: int) -> UInt8[np.ndarray, "gH gW C"]:
    """One picture of them all, row by row; places left over are black."""
    n, height, width, channels = images.shape
    rows = -(-n // columns)
    places = np.zeros((rows * columns, height, width, channels), dtype=np.uint8)
    places[:n] = images
    return places.reshape(rows, columns, height, width, channels).swapaxes(1, 2).reshape(rows * height, -1, channels)


def save_png(image: UInt8[np.ndarray, "H W C"], path: str | os.PathLike[str]) -> None:
    """Write one picture. Raises ConfigError if it cannot be written."""
    with whole_file(path) as temporary:
        Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(temporary, format="PNG")


def save_grid(images: Float[Tensor, "N C H W"], path: str | os.PathLike[str], columns: int) -> None:
    """Write one picture of images in [-1, 1], row by row. Raises ConfigError if it cannot be written."""
    save_png(tile(to_uint8(images), columns), path)


def depth_limits(
    depth: Float[Tensor, "N 1 h w"], opacity: Float[Tensor, "N 1 h w"] | None = None
) -> tuple[float, float]:
    """Nearest and farthest depth over the whole batch, of pixels more than half opaque where opacity is known."""
    seen = torch.isfinite(depth)
    if opacity is not None and bool((opacity > 0.5).logical_and(seen).any()):
        seen = seen & (opacity > 0.5)
    values = depth[seen]
    return (values.min().item(), values.max().item()) if values.numel() else (0.0, 1.0)


def depth_picture(
    depth: Float[Tensor, "N 1 h w"],
    opacity: Float[Tensor, "N 1 h w"] | None = None,
    limits: tuple[float, float] | None = None,
) -> Float[Tensor, "N 1 h w"]:
    """Grey in [-1, 1], near is bright, what is empty black; one range for the whole batch (default: depth_limits)."""
    near, far = limits or depth_limits(depth, opacity)
    grey = 1 - 2 * (depth.nan_to_num(far, far, near) - near) / max(far - near, 1e-8)
    return grey.clamp(-1, 1) if opacity is None else torch.where(opacity > 0.5, grey.clamp(-1, 1), -1.0)
