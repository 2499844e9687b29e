"""Adaptive augmentation's transformations (Karras et al. 2020, "Training GANs with limited data", appendix B).

Every image gets transformations of its own, each with its own probability, differentiably. What is drawn stays on the
CPU, so that a GPU need not be waited for.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from torch_utils.draws import Draws
from training.layers.augment_colour import bands, colours, cut_out, filtered, recoloured
from training.layers.augment_draws import Augmentations, Dice
from training.layers.augment_geometry import geometry, resampled


def augment(
    images: Float[Tensor, "N C H W"], settings: Augmentations, dice: Dice, draws: Draws
) -> Float[Tensor, "N C H W"]:
    """The images transformed; channels come in threes (all alike in colour) or alone. draws: of the pixels' noise."""
    if any((settings.xflip, settings.rotate90, settings.xint, settings.scale, settings.rotate, settings.aniso,
            settings.xfrac)):  # fmt: skip
        images = resampled(images, geometry(settings, dice, images.shape[3], images.shape[2]))
    if any((settings.brightness, settings.contrast, settings.lumaflip, settings.hue, settings.saturation)):
        images = recoloured(images, colours(settings, dice))
    if settings.imgfilter:
        images = filtered(images, bands(settings, dice))
    if settings.noise:
        normal = dice.normal("noise")[0]
        if dice.fixed:
            normal = torch.erfinv(dice.uniform("noise")[0])
        sigma = torch.where(dice.chosen("noise", settings.noise), normal.abs() * settings.noise_std, 0)
        noise = draws.normal("noise", images.shape[1:])
        images = images + noise * sigma.to(images).reshape(-1, 1, 1, 1)
    return cut_out(images, settings, dice) if settings.cutout else images
