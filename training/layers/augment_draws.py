"""Adaptive augmentation: how probable and how strong each transformation is, and what is drawn for it."""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from torch_utils.draws import Draws

BANDS = 4  # of frequencies: the lowest, then octaves


@dataclass(frozen=True, kw_only=True)
class Augmentations:
    """How probable each transformation is, in units of the pipe's strength p, and how strong. By default there is none.

    Standard deviations are of normal numbers: octaves of size, aspect, contrast, saturation and bands; parts of the
    image's side for shifts; image values for brightness and noise.
    """

    xflip: float = 0
    rotate90: float = 0
    xint: float = 0  # shift by whole pixels
    xint_max: float = 0.125
    scale: float = 0
    scale_std: float = 0.2
    rotate: float = 0
    rotate_max: float = 1  # half turns
    aniso: float = 0
    aniso_std: float = 0.2
    xfrac: float = 0  # shift by parts of pixels, too
    xfrac_std: float = 0.125
    brightness: float = 0
    brightness_std: float = 0.2
    contrast: float = 0
    contrast_std: float = 0.5
    lumaflip: float = 0
    hue: float = 0
    hue_max: float = 1  # half turns
    saturation: float = 0
    saturation_std: float = 1
    imgfilter: float = 0
    imgfilter_bands: tuple[float, float, float, float] = (1, 1, 1, 1)
    imgfilter_std: float = 1
    noise: float = 0
    noise_std: float = 0.1
    cutout: float = 0
    cutout_size: float = 0.5  # of the image's side


NAMES = (
    "xflip", "rotate90", "xint", "scale", "before", "aniso", "after", "xfrac", "brightness", "contrast", "lumaflip",
    "hue", "saturation", *(f"band{i}" for i in range(BANDS)), "noise", "cutout",
)  # fmt: skip


class Dice:
    """The random numbers of a batch: two uniform and two normal ones and a coin for each image and transformation.

    percentile puts that quantile in place of every number, and every coin says yes (for tests).
    """

    def __init__(self, draws: Draws, p: float, percentile: float | None = None) -> None:
        self.p, self.fixed = p, percentile is not None
        own, size = replace(draws, device="cpu"), (len(NAMES), 2)
        if percentile is None:
            self._uniform, self._normal = own.uniform("uniform", size), own.normal("normal", size)
            self._coin = own.uniform("coin", size[:1])
        else:
            everywhere = torch.full((len(own.items), *size), percentile)
            self._uniform, self._normal = everywhere, torch.erfinv(2 * everywhere - 1)
            self._coin = torch.full_like(everywhere[..., 0], -torch.inf)

    def uniform(self, name: str) -> Float[Tensor, "2 N"]:
        return self._uniform[:, NAMES.index(name)].T

    def normal(self, name: str) -> Float[Tensor, "2 N"]:
        return self._normal[:, NAMES.index(name)].T

    def chosen(self, name: str, multiplier: float) -> Bool[Tensor, "N"]:
        """Which images get it, each with a probability of p times the multiplier."""
        return self._below(name, multiplier * self.p, multiplier > 0)

    def rotated(self, name: str, multiplier: float) -> Bool[Tensor, "N"]:
        """One of two rotations: both together leave an image upright as often as one of full probability would."""
        return self._below(name, 1 - math.sqrt(max(1 - multiplier * self.p, 0)), multiplier > 0)

    def _below(self, name: str, probability: float, possible: bool) -> Bool[Tensor, "N"]:
        return (self._coin[:, NAMES.index(name)] < probability) & possible


def flips(settings: Augmentations, dice: Dice) -> Bool[Tensor, "N"]:
    """Which images are mirrored left to right."""
    return dice.chosen("xflip", settings.xflip) & (dice.uniform("xflip")[0] >= 0.5)
