"""Adaptive augmentation's transformations: exact where pixels only mix, differentiable twice, each by itself."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from torch_utils.draws import Draws
from training.layers.augment_colour import bands, colours, recoloured, wavelet_bands
from training.layers.augment_draws import BANDS, Augmentations, Dice, flips
from training.layers.augment_geometry import geometry, resampled
from training.layers.augment_pipe import augment

MANY = Draws(seed=3, items=range(2000))


def smooth(n: int = 2, size: int = 32, channels: int = 3) -> Tensor:
    """Images that fade to zero at the edges, without the frequencies that resampling loses."""
    at = torch.linspace(-1, 1, size)
    bell = torch.exp(-8 * at.square())
    waves = torch.sin(3 * at[None, :] + torch.arange(n * channels)[:, None])
    return (waves[:, :, None] * bell[:, None] * (bell * at.add(1))).reshape(n, channels, size, size)


def transformed(images: Tensor, percentile: float, **settings: float) -> Tensor:
    draws = Draws(seed=0, items=range(len(images)))
    return augment(images, Augmentations(**settings), Dice(draws, 1.0, percentile), draws)


def test_nothing_chosen_leaves_images_but_for_the_resampling():
    draws = Draws(seed=0, items=range(2))
    everything = Augmentations(xflip=1, rotate90=1, xint=1, scale=1, rotate=1, aniso=1, xfrac=1, brightness=1, hue=1)
    assert torch.allclose(augment(smooth(), everything, Dice(draws, 0.0), draws), smooth(), atol=2e-3)


@pytest.mark.parametrize(
    ("settings", "percentile", "expected"),
    [
        ({"xflip": 1}, 0.9, lambda x: x.flip(3)),
        ({"xflip": 1}, 0.2, lambda x: x),
        ({"rotate90": 1}, 0.3, lambda x: x.rot90(1, (2, 3))),
        ({"rotate90": 1}, 0.6, lambda x: x.rot90(2, (2, 3))),
        ({"rotate": 1, "rotate_max": 0.5}, 1.0, lambda x: x.rot90(1, (2, 3))),
        ({"xint": 1}, 1.0, lambda x: x.roll((4, 4), (2, 3))),
        ({"xint": 1}, 0.0, lambda x: x.roll((-4, -4), (2, 3))),
    ],
)
def test_pixels_move_as_they_should(settings: dict, percentile: float, expected):
    """To 3 % of the range: the filter is not quite symmetric, so a turned image is not quite restored."""
    images = smooth()
    moved = transformed(images, percentile, **settings)
    assert torch.allclose(moved, expected(images), atol=3e-2)
    assert torch.allclose(moved, images, atol=3e-2) == torch.equal(expected(images), images)


def test_enlarging_about_the_middle_keeps_the_middle_and_doubles_the_size():
    at = torch.linspace(-1, 1, 33)
    spot = torch.exp(-(at[:, None].square() + at.square()) / 0.02)[None, None]
    std = 1 / torch.erfinv(torch.tensor(0.8)).item()  # at the percentile 0.9 the factor is 2
    large = transformed(spot, 0.9, scale=1, scale_std=std)
    wide = torch.exp(-(at[:, None].square() + at.square()) / 0.08)[None, None]
    assert torch.allclose(large, wide, atol=3e-2)


def test_each_is_as_probable_as_it_says():
    dice = Dice(MANY, 0.5)
    assert flips(Augmentations(xflip=0.8), dice).float().mean().item() == pytest.approx(0.2, abs=0.03)
    assert dice.chosen("hue", 0.6).float().mean().item() == pytest.approx(0.3, abs=0.03)
    upright = ~(dice.rotated("before", 1) | dice.rotated("after", 1))
    assert upright.float().mean().item() == pytest.approx(0.5, abs=0.04)  # both together: p
    assert not dice.chosen("noise", 0).any()


def test_an_image_gets_the_same_in_any_company():
    settings = Augmentations(brightness=1, contrast=1, hue=1, saturation=1, noise=1, cutout=1)
    images, draws = torch.randn(4, 3, 16, 16), Draws(seed=1, items=[4, 5, 6, 7])
    together = augment(images, settings, Dice(draws, 1.0), draws)
    for row in range(4):
        own = replace(draws, items=[4 + row])
        assert torch.equal(augment(images[row : row + 1], settings, Dice(own, 1.0), own), together[row : row + 1])


def test_colour_matrices_turn_about_grey():
    grey = torch.full((1, 3, 2, 2), 0.4)
    for name in ("hue", "saturation"):
        assert torch.allclose(transformed(grey, 0.8, **{name: 1}), grey, atol=1e-6)
    red = torch.tensor([1.0, 0.0, 0.0]).reshape(1, 3, 1, 1)
    third = transformed(red, 5 / 6, hue=1)  # a third of a turn
    assert torch.allclose(third.flatten(), torch.tensor([0.0, 1.0, 0.0]), atol=1e-6)
    assert torch.allclose(transformed(red, 0.8, lumaflip=1).mean(), -red.mean())
    twice = transformed(transformed(red, 0.8, lumaflip=1), 0.8, lumaflip=1)
    assert torch.allclose(twice, red, atol=1e-6)


def test_contrast_and_brightness_are_a_factor_and_a_shift():
    x = torch.randn(1, 3, 4, 4)
    normal = torch.erfinv(torch.tensor(0.6)).item()
    assert torch.allclose(transformed(x, 0.8, brightness=1), x + 0.2 * normal, atol=1e-6)
    assert torch.allclose(transformed(x, 0.8, contrast=1), x * 2 ** (0.5 * normal), atol=1e-6)


def test_colours_of_a_grey_picture_and_of_a_pair_of_pictures():
    settings = Augmentations(brightness=1, contrast=1, lumaflip=1, hue=1, saturation=1)
    C = colours(settings, Dice(Draws(seed=5, items=range(3)), 1.0))
    x = torch.randn(3, 3, 4, 4)
    pair = recoloured(torch.cat([x, x.flip(2)], dim=1), C)
    assert torch.allclose(pair, torch.cat([recoloured(x, C), recoloured(x.flip(2), C)], dim=1))
    single = x[:, :1]
    assert torch.allclose(recoloured(single, C), recoloured(single.expand(-1, 3, -1, -1), C).mean(1, True), atol=1e-6)
    with pytest.raises(ValueError, match="images of 4 channels have no colour"):
        recoloured(torch.zeros(3, 4, 2, 2), C)


def test_bands_add_up_to_the_image_and_keep_its_power():
    bank = wavelet_bands()
    whole = torch.zeros(bank.shape[1])
    whole[len(whole) // 2] = 1
    assert torch.allclose(bank.sum(dim=0), whole, atol=1e-6)
    assert torch.allclose(bank.sum(dim=1), torch.tensor([1.0, 0, 0, 0]), atol=1e-6)
    gains = bands(Augmentations(imgfilter=1), Dice(MANY, 1.0))
    assert gains.shape == (2000, BANDS)
    only = bands(Augmentations(imgfilter=1, imgfilter_bands=(0, 1, 0, 0)), Dice(MANY, 1.0))
    power = (only.square() * torch.tensor([10.0, 1, 1, 1]) / 13).sum(dim=1)
    assert torch.allclose(power, torch.ones(2000), atol=1e-5)
    assert (only[:, 1] / only[:, 0]).std() > 0.3


def test_a_square_of_half_the_side_is_cut_out():
    cut = transformed(torch.ones(1, 1, 32, 32), 0.5, cutout=1)
    assert cut.sum().item() == 32**2 - 16**2
    assert cut[0, 0, 8:24, 8:24].abs().sum() == 0


def test_noise_is_as_strong_as_drawn_and_of_every_pixel():
    draws = Draws(seed=0, items=range(400))
    noisy = augment(torch.zeros(400, 1, 8, 8), Augmentations(noise=1), Dice(draws, 1.0), draws)
    assert noisy.std(dim=(1, 2, 3)).square().mean().sqrt().item() == pytest.approx(0.1, rel=0.1)


def test_it_is_differentiable_twice():
    draws = Draws(seed=2, items=range(2))
    settings = Augmentations(
        xflip=1, rotate90=1, xint=1, scale=1, rotate=1, aniso=1, xfrac=1, brightness=1, contrast=1, lumaflip=1, hue=1,
        saturation=1, cutout=1,
    )  # fmt: skip
    dice = Dice(draws, 0.8)
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: augment(t, settings, dice, draws).square(), x, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda t: augment(t, settings, dice, draws).square(), x, fast_mode=True)


def test_the_margin_is_never_larger_than_the_image():
    far = geometry(Augmentations(scale=1, scale_std=3), Dice(Draws(seed=0), 1.0, 0.1), 16, 16)
    assert resampled(torch.randn(1, 1, 16, 16), far).isfinite().all()
    assert math.isclose(far[0, 0, 0].item(), 2 ** (3 * 0.9062), rel_tol=1e-3)
