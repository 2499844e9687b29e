"""Layers with equalised learning rate: variance, resampling, freezing."""

import pytest
import torch

from training.layers.conv import Conv2d
from training.layers.linear import FullyConnected, normalize_2nd_moment


def test_normalised_codes_have_unit_second_moment():
    z = torch.randn(5, 64) * torch.tensor([0.1, 1.0, 3.0, 10.0, 100.0])[:, None]
    assert torch.allclose(normalize_2nd_moment(z).square().mean(dim=1), torch.ones(5), atol=1e-5)


@pytest.mark.parametrize("lr_multiplier", [1.0, 0.01])
def test_fully_connected_layers_keep_the_variance_at_any_learning_rate(lr_multiplier: float):
    layer = FullyConnected(256, 512, lr_multiplier=lr_multiplier)
    assert layer(torch.randn(64, 256)).var().item() == pytest.approx(1.0, abs=0.05)
    assert layer.weight.std().item() == pytest.approx(1 / lr_multiplier, rel=0.05)


def test_a_learning_rate_multiplier_slows_the_layer_down():
    """A step of the optimiser that moves the stored weight by d moves what is used by multiplier * d / sqrt(in)."""
    slow = FullyConnected(4, 1, lr_multiplier=0.01)
    x = torch.ones(1, 4)
    before = slow(x)
    with torch.no_grad():
        slow.weight += 1.0
        slow.bias += 1.0
    assert (slow(x) - before).item() == pytest.approx(0.01 * 4 / 2 + 0.01, rel=1e-4)


def test_lrelu_layers_keep_the_second_moment():
    layer = FullyConnected(256, 512, activation="lrelu")
    assert layer(torch.randn(64, 256)).square().mean().item() == pytest.approx(1.04, abs=0.06)  # (1 + 0.2^2) / 2 * 2


@pytest.mark.parametrize(("up", "down", "size"), [(1, 1, 8), (2, 1, 16), (1, 2, 4)])
@pytest.mark.parametrize("kernel", [1, 3])
def test_convolutions_resample(kernel: int, up: int, down: int, size: int):
    layer = Conv2d(3, 5, kernel, activation="lrelu", up=up, down=down)
    assert layer(torch.randn(2, 3, 8, 8)).shape == (2, 5, size, size)


@pytest.mark.parametrize("activation", ["linear", "lrelu", "tanh"])
def test_the_gain_scales_what_comes_out_and_its_clamp(activation: str):
    layer = Conv2d(3, 5, 3, activation=activation, conv_clamp=0.5)
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(2, 3, 8, 8)
    assert torch.allclose(layer(x, gain=0.3), 0.3 * layer(x), atol=1e-6)
    assert layer(x).abs().max() <= 0.5


def test_frozen_layers_keep_their_names_but_are_not_trained():
    frozen, trained = Conv2d(3, 5, 3, trainable=False), Conv2d(3, 5, 3)
    assert not list(frozen.parameters())
    assert frozen.state_dict().keys() == trained.state_dict().keys() == {"weight", "bias"}
    frozen.load_state_dict(trained.state_dict())
    x = torch.randn(1, 3, 4, 4)
    assert torch.equal(frozen(x), trained(x))


def test_layers_without_resampling_own_no_filter():
    assert Conv2d(3, 5, 3).resample_filter is None
    assert Conv2d(3, 5, 3, up=2, resample_filter=[1, 2, 1]).resample_filter.shape == (3, 3)
