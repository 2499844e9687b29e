"""StyleGAN2's and EG3D's discriminators: what they see and what they are told."""

import pytest
import torch

from dnnlib.errors import ConfigError, DataError
from torch_utils.draws import Draws
from training.build import build
from training.contracts import Camera, CameraRig, Condition, GeneratorOutput
from training.discriminators.dual import DualDiscriminator
from training.discriminators.stylegan2 import StyleGAN2Discriminator

SIZE = {"img_resolution": 16, "channel_max": 6, "mbstd_num_channels": 0}


def cameras(n: int = 4) -> Camera:
    return CameraRig(radius=2.7, focal=4.26).sample(Draws(seed=0, items=range(n), batch=n))


def pictures(n: int = 4, raw: int = 8) -> GeneratorOutput:
    return GeneratorOutput(image=torch.randn(n, 3, 16, 16), image_raw=torch.randn(n, 3, raw, raw))


@pytest.mark.parametrize("net", [StyleGAN2Discriminator(**SIZE), DualDiscriminator(told=(), **SIZE)])
def test_everything_it_sees_moves_the_score(net):
    seen = {name: getattr(pictures(), name).requires_grad_() for name in net.sees}
    output = GeneratorOutput(**{"image": torch.zeros(4, 3, 16, 16), **seen})
    scores = net(output, Condition()).score
    assert scores.shape == (4,)
    for slope in torch.autograd.grad(scores.sum(), list(seen.values())):
        assert slope.abs().sum(dim=(1, 2, 3)).min() > 0


def test_the_camera_comes_before_the_label():
    net = StyleGAN2Discriminator(told=("label", "camera"), label_dim=3, **SIZE)
    told = Condition(camera=cameras(), label=torch.eye(3)[[0, 1, 2, 0]])
    c = net.encode(told)
    assert torch.equal(c[:, :25], told.camera.label())
    assert torch.equal(c[:, 25:], told.label)
    assert net.c_dim == 28


def test_it_is_told_only_what_it_wants():
    net = StyleGAN2Discriminator(told=("label",), label_dim=0, **SIZE)  # data without classes
    assert net.encode(Condition(camera=cameras())) is None
    assert net(pictures(), Condition()).score.shape == (4,)
    with pytest.raises(DataError, match="camera"):
        DualDiscriminator(**SIZE)(pictures(), Condition())


TOLD = [(("foo",), "foo"), (("camera", "Label"), "Label"), ("camera", "camera")]


@pytest.mark.parametrize(("told", "named"), TOLD)
def test_what_cannot_be_told_is_refused_with_what_can(told, named: str):
    for net in ("stylegan2.StyleGAN2", "dual.Dual"):
        node = {"_target_": f"training.discriminators.{net}Discriminator", "told": told, **SIZE}
        with pytest.raises(
            ConfigError, match=rf"^nets\.D: told={named} cannot be told: give a list, .* camera and label\.$"
        ):
            build(node, where="nets.D")


def test_the_raw_image_is_resized_to_the_image():
    net = DualDiscriminator(told=(), **SIZE)
    for raw in (8, 16, 32):
        assert net(pictures(raw=raw), Condition()).score.shape == (4,)
    with pytest.raises(ValueError, match="image_raw"):
        net(GeneratorOutput(image=torch.zeros(4, 3, 16, 16)), Condition())


@pytest.mark.parametrize("raw_filter", ["none", "classic", 0.5])
def test_other_filters_of_the_raw_image_see_something_else(raw_filter):
    net, output = DualDiscriminator(told=(), **SIZE), pictures(raw=32)
    other = DualDiscriminator(told=(), raw_filter=raw_filter, **SIZE)
    other.load_state_dict(net.state_dict())
    assert not torch.allclose(net(output, Condition()).score, other(output, Condition()).score, atol=1e-5)


def test_noise_on_the_condition_needs_draws_and_company():
    net = DualDiscriminator(disc_c_noise=1.0, **SIZE)
    output, told = pictures(), Condition(camera=cameras())
    label = told.camera.label().clone()
    draws = Draws(seed=0, items=range(4), batch=4)
    clean = net(output, told).score
    assert not torch.allclose(net(output, told, draws).score, clean, atol=1e-6)
    assert torch.equal(told.camera.label(), label)  # the caller's numbers stay
    zero = Draws(seed=0, items=range(4), batch=4, recorded={"disc_c_noise": torch.zeros(4, 25)})
    assert torch.equal(net(output, told, zero).score, clean)
    assert net(output[:1], told[:1], Draws(seed=0)).score.isfinite().all()
