"""StyleGAN2 as a generator: the protocol, conditions, truncation, options."""

import pytest
import torch

from dnnlib.errors import ConfigError
from torch_utils.draws import Draws
from torch_utils.ema import commit_averages
from training.contracts import Condition, Generator, RenderOptions
from training.generators.stylegan2 import StyleGAN2Generator
from training.layers.mapping import MappingNetwork
from training.layers.synthesis import SynthesisNetwork


def generator(c_dim: int = 0, **options) -> StyleGAN2Generator:
    return StyleGAN2Generator(
        mapping=MappingNetwork(z_dim=8, c_dim=c_dim, w_dim=12, num_layers=2, w_avg_beta=0.5),
        synthesis=SynthesisNetwork(w_dim=12, img_resolution=16, img_channels=3, channel_max=6),
        **options,
    )


def test_it_is_a_generator():
    G = generator()
    assert isinstance(G, Generator)
    assert (G.z_dim, G.img_resolution) == (8, 16)
    codes = G.mapping(torch.randn(2, 8), Condition())
    assert codes.ws.shape == (2, 6, 12)
    assert G.synthesis(codes, None, RenderOptions()).image.shape == (2, 3, 16, 16)


def test_a_class_label_changes_the_picture():
    G, z = generator(c_dim=3), torch.randn(1, 8)
    images = [
        G.synthesis(G.mapping(z, Condition(label=torch.eye(3)[i : i + 1])), None, RenderOptions()).image for i in (0, 1)
    ]
    assert not torch.allclose(*images, atol=1e-3)
    with pytest.raises(ValueError, match="conditions of 3"):
        G.mapping(z, Condition())


def test_truncation_pulls_the_first_rows_towards_the_mean():
    G = generator()
    codes = G.mapping(torch.randn(4, 8), Condition(), update_emas=True)
    commit_averages(G)
    mean = G.mean_codes()
    assert torch.allclose(mean.ws[0, 0], 0.5 * codes.ws[:, 0].mean(dim=0), atol=1e-6)
    near = mean.lerp(codes, 0.0, slice(2))
    assert torch.equal(near.ws[:, :2], mean.ws[:, :2].expand(4, -1, -1))
    assert torch.equal(near.ws[:, 2:], codes.ws[:, 2:])


def test_the_mean_codes_are_a_copy():
    G = generator()
    mean = G.mean_codes()
    G.mapping(torch.randn(4, 8), Condition(), update_emas=True)
    commit_averages(G)
    assert not mean.ws.any()


def test_training_draws_noise_and_still_pictures_do_not():
    assert generator().options_at(0).noise == "random"
    assert generator(noise="none").options_at(10**6).noise == "none"
    G = generator()
    codes = G.mapping(torch.randn(1, 8), Condition())
    with torch.no_grad():
        G.synthesis_network.b16.conv0.noise_strength.fill_(1.0)
    a, b = (G.synthesis(codes, None, G.options_at(0).using(Draws(seed=s))).image for s in (0, 1))
    assert not torch.allclose(a, b, atol=1e-3)
    still = G.options_at(0).still()
    assert torch.equal(G.synthesis(codes, None, still).image, G.synthesis(codes, None, still).image)


def test_parts_that_do_not_fit_are_an_error():
    synthesis = SynthesisNetwork(w_dim=12, img_resolution=16, img_channels=3, channel_max=6)
    with pytest.raises(ConfigError, match="w_dim"):
        StyleGAN2Generator(mapping=MappingNetwork(z_dim=8, c_dim=0, w_dim=13), synthesis=synthesis)
    with pytest.raises(ConfigError, match="num_ws"):
        StyleGAN2Generator(mapping=MappingNetwork(z_dim=8, c_dim=0, w_dim=12, num_ws=5), synthesis=synthesis)
