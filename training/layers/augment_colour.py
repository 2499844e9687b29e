"""Adaptive augmentation of pixel values: colour by one matrix an image, bands of frequencies, a cut-out square.

Matrices [N, 4, 4] are affine maps of (r, g, b).
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dnnlib.errors import ConfigError
from training.layers.augment_draws import BANDS, Augmentations, Dice
from training.layers.augment_geometry import product

SYM2 = (-0.12940952255092145, 0.22414386804185735, 0.836516303737469, 0.48296291314469025)
POWER = (10 / 13, 1 / 13, 1 / 13, 1 / 13)  # that natural images have in them


def colours(settings: Augmentations, dice: Dice) -> Float[Tensor, "N 4 4"]:
    s = settings
    light = torch.where(dice.chosen("brightness", s.brightness), dice.normal("brightness")[0] * s.brightness_std, 0)
    contrast = torch.where(
        dice.chosen("contrast", s.contrast), (dice.normal("contrast")[0] * s.contrast_std).exp2(), 1
    )  # fmt: skip
    luma = torch.where(dice.chosen("lumaflip", s.lumaflip), (dice.uniform("lumaflip")[0] * 2).floor(), 0)
    hue = torch.where(dice.chosen("hue", s.hue), (2 * dice.uniform("hue")[0] - 1) * math.pi * s.hue_max, 0)
    pure = torch.where(
        dice.chosen("saturation", s.saturation), (dice.normal("saturation")[0] * s.saturation_std).exp2(), 1
    )  # fmt: skip
    one = torch.eye(4)
    axis = torch.tensor([1.0, 1.0, 1.0, 0.0]) / math.sqrt(3)  # of greys
    grey = torch.outer(axis, axis)
    cross = torch.tensor([[0.0, -1, 1, 0], [1, 0, -1, 0], [-1, 1, 0, 0], [0, 0, 0, 0]]) / math.sqrt(3)
    colour = torch.diag(torch.tensor([1.0, 1.0, 1.0, 0.0])) - grey
    light, contrast, luma, hue, pure = (t.reshape(-1, 1, 1) for t in (light, contrast, luma, hue, pure))
    shift = torch.zeros(4, 4)
    shift[:3, 3] = 1
    last = torch.diag(torch.tensor([0.0, 0.0, 0.0, 1.0]))
    return product((
        last + grey + colour * pure, last + grey + colour * hue.cos() + cross * hue.sin(), one - 2 * luma * grey,
        last + (one - last) * contrast, one + shift * light,
    ))  # fmt: skip


def recoloured(images: Float[Tensor, "N C H W"], C: Float[Tensor, "N 4 4"]) -> Float[Tensor, "N C H W"]:
    """Images of one channel take the mean of what would become of a grey's three."""
    C, channels = C.to(images), images.shape[1]
    if channels == 1:
        mean = C[:, :3].mean(dim=1)
        return images * mean[:, :3].sum(dim=1).reshape(-1, 1, 1, 1) + mean[:, 3].reshape(-1, 1, 1, 1)
    if channels % 3:
        raise ValueError(f"images of {channels} channels have no colour: it takes one channel, or threes of them")
    pixels = images.unflatten(1, (-1, 3)).flatten(3)
    pixels = C[:, None, :3, :3] @ pixels + C[:, None, :3, 3:]
    return pixels.reshape(images.shape)


def wavelet_bands() -> Float[Tensor, "bands taps"]:
    """Filters that take an image apart into the lowest frequencies and three octaves; they add up to nothing done."""
    low = torch.tensor(SYM2, dtype=torch.float64)
    high = low * torch.tensor([1.0, -1.0, 1.0, -1.0])
    low2, high2 = (_convolved(f[None], f.flip(0))[0] / 2 for f in (low, high))
    bank = torch.eye(BANDS, 1, dtype=torch.float64)
    for i in range(1, BANDS):
        stuffed = torch.stack([bank, torch.zeros_like(bank)], dim=2).flatten(1)[:, :-1]
        bank = _convolved(stuffed, low2)
        middle = (bank.shape[1] - len(high2)) // 2
        bank[i, middle : middle + len(high2)] += high2
    return bank.float()


def _convolved(rows: Tensor, taps: Tensor) -> Tensor:
    """Every row's full convolution with the taps."""
    return F.conv1d(rows[:, None], taps.flip(0)[None, None], padding=len(taps) - 1)[:, 0]


def bands(settings: Augmentations, dice: Dice) -> Float[Tensor, "N bands"]:
    """The factor of every band; one that is made stronger makes the others weaker, so that the power stays."""
    gains = torch.ones(1, BANDS)
    for i, share in enumerate(settings.imgfilter_bands):
        chosen = dice.chosen(f"band{i}", settings.imgfilter * share)
        factor = torch.where(chosen, (dice.normal(f"band{i}")[0] * settings.imgfilter_std).exp2(), 1) if share else 1
        own = torch.ones(len(chosen), BANDS)
        own[:, i] = factor
        gains = gains * own / (own.square() * torch.tensor(POWER)).sum(dim=1, keepdim=True).sqrt()
    return gains


def filtered(images: Float[Tensor, "N C H W"], gains: Float[Tensor, "N bands"]) -> Float[Tensor, "N C H W"]:
    """Each image with its own filter, reflected beyond its edges: images must be larger than half the filter."""
    taps = (gains @ wavelet_bands()).to(images)
    reach, channels = taps.shape[1] // 2, images.shape[0] * images.shape[1]
    taps = taps.repeat_interleave(images.shape[1], dim=0)
    if min(images.shape[2:]) <= reach:
        raise ConfigError(f"filters among augmentations (augpipe) need images of more than {reach} px")
    planes = F.pad(images.reshape(1, channels, *images.shape[2:]), [reach] * 4, mode="reflect")
    planes = F.conv2d(planes, taps[:, None, None, :], groups=channels)
    planes = F.conv2d(planes, taps[:, None, :, None], groups=channels)
    return planes.reshape(images.shape)


def cut_out(images: Float[Tensor, "N C H W"], settings: Augmentations, dice: Dice) -> Float[Tensor, "N C H W"]:
    """A square of each chosen image becomes grey."""
    half = torch.where(dice.chosen("cutout", settings.cutout), settings.cutout_size / 2, 0)
    inside = []
    for centre, side in zip(dice.uniform("cutout"), (images.shape[3], images.shape[2]), strict=True):
        at = (torch.arange(side) + 0.5) / side
        inside.append((at - centre[:, None]).abs() < half[:, None])
    square = inside[1][:, None, :, None] & inside[0][:, None, None, :]
    return images * (~square).to(images)
