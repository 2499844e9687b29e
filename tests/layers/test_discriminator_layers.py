"""The discriminator's trunk and head: sizes, groups, freezing, conditions."""

import pytest
import torch

from dnnlib.errors import ConfigError, DataError
from training.contracts import CameraRig, Condition
from training.layers.d_body import DiscriminatorBody
from training.layers.labels import conditioning_vector
from training.layers.minibatch_std import MinibatchStd

ARCHITECTURES = ["resnet", "skip", "orig"]


def body(c_dim: int = 0, **options) -> DiscriminatorBody:
    return DiscriminatorBody(c_dim=c_dim, img_resolution=16, img_channels=3, channel_max=6, **options)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_images_become_scores_with_second_derivatives(architecture: str):
    net, images = body(architecture=architecture), torch.randn(4, 3, 16, 16, requires_grad=True)
    scores = net.judge(images)
    assert scores.shape == (4,)
    (slope,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
    slope.square().sum().backward()
    missing = [name for name, p in net.named_parameters() if p.grad is None and not name.endswith("out.bias")]
    assert [name for name in missing if "bias" not in name] == []


def test_group_members_share_their_deviation():
    """With groups of two, items n and n + 2 make a group: changing item 0 changes the scores of 0 and 2 alone."""
    net = body(mbstd_group_size=2)
    images = torch.randn(4, 3, 16, 16)
    changed = images.clone()
    changed[0] += 1
    moved = (net.judge(changed) - net.judge(images)).abs() > 1e-6
    assert moved.tolist() == [True, False, True, False]


def test_without_deviation_items_are_judged_alone():
    net = body(mbstd_num_channels=0)
    images = torch.randn(3, 3, 16, 16)
    assert torch.allclose(net.judge(images)[1:2], net.judge(images[1:2]), atol=1e-5)


def test_the_deviation_of_two_images_is_half_their_distance():
    x = torch.zeros(2, 4, 3, 3)
    x[1] = 3
    y = MinibatchStd(2)(x)
    assert y.shape == (2, 5, 3, 3)
    assert torch.allclose(y[:, 4], torch.tensor(1.5), atol=1e-4)
    assert torch.allclose(MinibatchStd(None, 2)(x)[:, 4:], torch.tensor(1.5), atol=1e-4)
    assert torch.allclose(MinibatchStd(4)(x[:1])[:, 4], torch.tensor(1e-4), atol=1e-6)  # alone


def test_uneven_groups_are_an_error():
    with pytest.raises(ConfigError, match="6 images"):
        MinibatchStd(4)(torch.zeros(6, 2, 4, 4))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_layers_freeze_from_the_image_on(architecture: str):
    trained, frozen = body(architecture=architecture), body(architecture=architecture, freeze_layers=3)
    assert trained.state_dict().keys() == frozen.state_dict().keys()
    without_gradient = trained.state_dict().keys() - {name for name, _ in frozen.named_parameters()}
    layers = {name.rpartition(".")[0] for name in without_gradient}
    assert layers == {"b16.fromrgb", "b16.conv0", "b16.conv1"}
    frozen.load_state_dict(trained.state_dict())
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(trained.judge(images), frozen.judge(images))


def test_freezing_reaches_across_blocks_but_never_the_head():
    net = body(freeze_layers=100)
    assert {name.partition(".")[0] for name, _ in net.named_parameters()} == {"b4"}
    five = body(freeze_layers=5)
    assert "b16.skip.weight" not in dict(five.named_parameters())
    assert "b8.conv0.weight" not in dict(five.named_parameters())
    assert "b8.conv1.weight" in dict(five.named_parameters())


def test_a_condition_enters_by_projection():
    """The score is linear in the mapped condition: cmap_dim outputs, their product with it, over sqrt(cmap_dim)."""
    net = body(c_dim=5, cmap_dim=7)
    features, cmap = torch.randn(3, 6 * 16), torch.randn(3, 7)
    assert net.b4.out.weight.shape == (7, 6)
    assert torch.allclose(net.b4.score(features, 3 * cmap), 3 * net.b4.score(features, cmap), atol=1e-5)
    outputs = net.b4.out(net.b4.fc(features))
    assert torch.allclose(net.b4.score(features, outputs), outputs.square().sum(dim=1) / 7**0.5, atol=1e-5)
    images, c = torch.randn(3, 3, 16, 16), torch.randn(3, 5)
    assert not torch.allclose(net.judge(images, c), net.judge(images, -c), atol=1e-5)


def test_the_image_must_have_the_right_size():
    with pytest.raises(ValueError, match=r"\[3, 16, 16\]"):
        body().judge(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match="img_resolution=24"):
        DiscriminatorBody(c_dim=0, img_resolution=24, img_channels=3)


def test_conditioning_vectors_keep_the_order_of_what_is_known():
    camera, label = CameraRig(radius=2.7, focal=4.26).at(torch.tensor([0.1, 0.2])), torch.randn(2, 3)
    both = conditioning_vector(("label", "camera"), Condition(camera=camera, label=label))
    assert torch.equal(both, torch.cat([camera.label(), label], dim=1))
    assert conditioning_vector((), Condition(camera=camera, label=label)) is None
    with pytest.raises(DataError, match="label"):
        conditioning_vector(("label",), Condition(camera=camera))
