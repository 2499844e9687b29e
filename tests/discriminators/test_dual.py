"""Facts about EG3D's discriminators: the single and the fading one."""

from typing import Any

import pytest
import torch

from torch_utils.draws import Draws
from training.contracts import CameraRig, Condition, GeneratorOutput
from training.discriminators.dual import DualDiscriminator, FadingDiscriminator, SingleDiscriminator

SIZE: dict[str, Any] = {"img_resolution": 16, "channel_max": 6, "mbstd_group_size": 2}
TOLD = Condition(camera=CameraRig(radius=2.7, focal=4.26).at(torch.linspace(-0.4, 0.4, 4)))


def pictures() -> GeneratorOutput:
    return GeneratorOutput(image=torch.randn(4, 3, 16, 16), image_raw=torch.randn(4, 3, 8, 8))


def at(nimg: int) -> Draws:
    return Draws(0, nimg=nimg, items=range(4), batch=4)


def fading(dual: DualDiscriminator) -> FadingDiscriminator:
    net = FadingDiscriminator(fade_kimg=2, **SIZE)
    net.load_state_dict(dual.state_dict())
    return net


def test_a_single_one_sees_no_raw_image():
    net, output = SingleDiscriminator(**SIZE), pictures()
    alone = GeneratorOutput(image=output.image)
    assert net.sees == ("image",)
    assert net.img_channels == 3
    assert torch.equal(net(output, TOLD).score, net(alone, TOLD).score)
    noisy = SingleDiscriminator(disc_c_noise=1.0, **SIZE)
    assert noisy.alternates(4) is False
    assert net.alternates(4) is True
    noisy.load_state_dict(net.state_dict())
    assert not torch.allclose(noisy(alone, TOLD, at(0)).score, net(alone, TOLD).score, atol=1e-6)


def test_the_raw_image_fades_with_the_images_seen():
    dual, output = DualDiscriminator(**SIZE), pictures()
    assert output.image_raw is not None
    net = fading(dual)
    assert net.sees == ("image", "image_raw")
    for nimg, gain in ((0, 1.0), (500, 0.75), (2000, 0.0), (10**6, 0.0)):
        shown = GeneratorOutput(image=output.image, image_raw=gain * output.image_raw)
        torch.testing.assert_close(net(output, TOLD, at(nimg)).score, dual(shown, TOLD).score)
    assert torch.equal(net(output, TOLD).score, net(output, TOLD, at(2000)).score)  # pictures outside training


def test_r1_feels_the_fade():
    """The slope by the raw image is that of the dual discriminator, times the fade."""
    net, output = fading(DualDiscriminator(**SIZE)), pictures()
    assert output.image_raw is not None
    raw = output.image_raw.requires_grad_()
    slopes = [torch.autograd.grad(net(output, TOLD, at(nimg)).score.sum(), raw)[0].abs().max() for nimg in (0, 2000)]
    assert slopes[0] > 0
    assert slopes[1] == 0


def test_fakes_and_reals_are_judged_apart_so_that_draws_are_there():
    assert DualDiscriminator(**SIZE).alternates(4)
    assert not fading(DualDiscriminator(**SIZE)).alternates(4)


@pytest.mark.parametrize("net", [DualDiscriminator(**SIZE), FadingDiscriminator(**SIZE)])
def test_a_missing_raw_image_is_said(net):
    with pytest.raises(ValueError, match="image_raw"):
        net(GeneratorOutput(image=torch.zeros(4, 3, 16, 16)), TOLD, at(0))
