"""The synthesis network: sizes, styles, noise, gradients."""

import pytest
import torch

from torch_utils.draws import Draws
from training.layers.synthesis import SynthesisBlock, SynthesisNetwork

ARCHITECTURES = ["skip", "resnet", "orig"]


def network(architecture: str = "skip", resolution: int = 16, **options) -> SynthesisNetwork:
    net = SynthesisNetwork(
        w_dim=8, img_resolution=resolution, img_channels=3, channel_max=6, architecture=architecture, **options
    )
    for name, parameter in net.named_parameters():
        if name.endswith("noise_strength"):
            torch.nn.init.constant_(parameter, 0.3)
    return net


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("resolution", [4, 8, 32])
def test_a_style_for_every_convolution_and_one_for_the_image(architecture: str, resolution: int):
    net = network(architecture, resolution)
    assert net.num_ws == 2 * (resolution.bit_length() - 1) - 2
    assert net(torch.randn(2, net.num_ws, 8)).shape == (2, 3, resolution, resolution)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_parameter_and_every_style_has_a_gradient(architecture: str):
    net = network(architecture)
    ws = torch.randn(2, net.num_ws, 8, requires_grad=True)
    net(ws).square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert ws.grad.abs().sum(dim=2).min() > 0


def test_an_image_shares_its_style_with_the_next_convolution():
    """The last style reaches the last image layer alone: the change is linear in it."""
    net = network(use_noise=False).double()
    ws, change = torch.randn(1, net.num_ws, 8).double(), torch.zeros(1, net.num_ws, 8).double()
    change[:, -1] = torch.randn(8)
    once, twice = net(ws + change) - net(ws), net(ws + 2 * change) - net(ws)
    assert torch.allclose(2 * once, twice, atol=1e-10)
    change = change.roll(-1, dims=1)
    once, twice = net(ws + change) - net(ws), net(ws + 2 * change) - net(ws)
    assert not torch.allclose(2 * once, twice, atol=1e-3)


def test_constant_noise_is_constant_and_none_is_none():
    net = network()
    ws = torch.randn(1, net.num_ws, 8)
    assert torch.equal(net(ws, "const"), net(ws, "const"))
    assert not torch.allclose(net(ws, "const"), net(ws, "none"), atol=1e-3)
    for name, parameter in net.named_parameters():
        if name.endswith("noise_strength"):
            torch.nn.init.zeros_(parameter)
    assert torch.allclose(net(ws, "const"), net(ws, "none"), atol=1e-6)
    assert not any("noise" in name for name in network(use_noise=False).state_dict())


def test_random_noise_belongs_to_the_item_and_the_layer():
    net = network()
    ws = torch.randn(1, net.num_ws, 8).expand(3, -1, -1)
    draws = Draws(seed=1, items=(0, 1, 2), batch=3)
    together = net(ws, "random", draws)
    alone = net(ws[:1], "random", Draws(seed=1, items=(1,), batch=3))
    assert torch.allclose(together[1:2], alone, atol=1e-5)
    assert not torch.allclose(together[0], together[1], atol=1e-3)
    recorded = {f"b{r}/conv{i}/noise": torch.zeros(3, 1, r, r) for r in (4, 8, 16) for i in (0, 1)}
    silent = net(ws, "random", Draws(seed=1, items=(0, 1, 2), batch=3, recorded=recorded))
    assert torch.allclose(silent, net(ws, "none"), atol=1e-6)
    with pytest.raises(ValueError, match="draws"):
        net(ws, "random")


def test_a_picture_is_the_same_alone_and_in_a_batch():
    net = network(resolution=32)
    ws = torch.randn(4, net.num_ws, 8)
    assert torch.allclose(net(ws)[2:3], net(ws[2:3]), atol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_second_derivatives_exist_for_path_lengths(architecture: str):
    net = network(architecture, 8)
    ws = torch.randn(2, net.num_ws, 8, requires_grad=True)
    image = net(ws)
    (slope,) = torch.autograd.grad((image * torch.randn_like(image)).sum(), ws, create_graph=True)
    slope.square().sum().backward()
    assert net.b8.conv0.weight.grad.abs().max() > 0


def test_a_clamp_bounds_the_features():
    net = network("orig", conv_clamp=0.01)
    assert net(torch.randn(1, net.num_ws, 8)).abs().max() <= 0.01


def test_a_block_without_upsampling_adds_to_the_image_it_is_given():
    block = SynthesisBlock(4, 5, w_dim=8, resolution=8, img_channels=3, up=1)
    x, image, ws = torch.randn(2, 4, 8, 8), torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8)
    given = image.clone()
    features, sum_ = block(x, image, ws)
    _, added = block(x, None, ws)
    assert features.shape == (2, 5, 8, 8)
    assert torch.allclose(sum_, image + added, atol=1e-6)
    assert torch.equal(image, given)


def test_widths_are_given_by_rule_or_one_by_one():
    by_rule = SynthesisNetwork(w_dim=8, img_resolution=16, img_channels=3, channel_base=64, channel_max=10)
    assert [by_rule.get_submodule(f"b{r}").conv1.weight.shape[0] for r in (4, 8, 16)] == [10, 8, 4]
    given = SynthesisNetwork(w_dim=8, img_resolution=8, img_channels=1, channels={4: 3, 8: 2})
    assert given(torch.randn(1, 4, 8)).shape == (1, 1, 8, 8)


def test_wrong_sizes_are_errors():
    with pytest.raises(ValueError, match="img_resolution=48"):
        network(resolution=48)
    with pytest.raises(ValueError, match=r"\[N, 6, 8\]"):
        network()(torch.randn(1, 4, 8))
