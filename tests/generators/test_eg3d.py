"""Facts about the tri-plane generator."""

from dataclasses import replace

import pytest
import torch

from dnnlib.errors import ConfigError
from torch_utils.draws import Draws
from torch_utils.ema import commit_averages
from training.contracts import Camera, CameraRig, Condition, RenderOptions, SceneGenerator
from training.generators.eg3d import TriplaneGenerator
from training.layers.fields import TriplaneField
from training.layers.mapping import MappingNetwork
from training.layers.synthesis import SynthesisNetwork
from training.layers.upsample import SuperResolution
from training.rendering.hierarchical import RaySettings
from training.rendering.rays import image_rays

RIG = CameraRig(radius=2.7, focal=4.26)
STILL = RenderOptions()


def generator(label_dim: int = 0, upsampled: bool = True, rays: dict | None = None, **arguments) -> TriplaneGenerator:
    backbone = SynthesisNetwork(w_dim=12, img_resolution=16, img_channels=24, channel_base=128, channel_max=16)
    net = TriplaneGenerator(
        mapping=MappingNetwork(z_dim=10, c_dim=25 + label_dim, w_dim=12, num_layers=2),
        backbone=backbone, field=TriplaneField(features=8, hidden=16, colours=8),
        upsampler=SuperResolution(w_dim=12, input_resolution=8, img_resolution=16, widths=(8, 8), features=8)
        if upsampled else None,
        rays=RaySettings(samples=(6, 6), **(rays or {})), **{"raw_resolution": 8, **arguments},
    )  # fmt: skip
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("noise_strength"):
                parameter.fill_(0.5)
        net.mapping_network.w_avg.normal_()
        net.field.net[2].weight.mul_(10)
    return net


def codes_of(net: TriplaneGenerator, n: int = 2):
    return net.mapping(torch.randn(n, 10), Condition(camera=RIG.at(torch.linspace(-0.3, 0.3, n))))


def views(n: int) -> Camera:
    return RIG.at(torch.linspace(-0.4, 0.5, n), torch.linspace(0.1, -0.2, n))


def test_it_is_a_scene_generator():
    assert isinstance(generator(), SceneGenerator)


def test_sizes_of_all_that_it_makes():
    out = generator().synthesis(codes_of(generator()), views(2), STILL)
    expected = {
        "image": (2, 3, 16, 16), "image_raw": (2, 3, 8, 8), "depth": (2, 1, 8, 8), "opacity": (2, 1, 8, 8),
        "features": (2, 8, 8, 8),
    }  # fmt: skip
    assert {name: tuple(getattr(out, name).shape) for name in expected} == expected
    assert out.camera is not None
    assert out.depth is not None
    assert 2.25 <= out.depth.min() <= out.depth.max() <= 3.3
    small = generator(upsampled=False).synthesis(codes_of(generator()), views(2), replace(STILL, resolution=5))
    assert torch.equal(small.image, small.image_raw)
    assert small.image.shape == (2, 3, 5, 5)


def test_a_scene_seen_again_is_what_synthesis_shows():
    net = generator()
    codes, cameras = codes_of(net, 1), views(3)
    scene = net.scene(codes, STILL)
    together = net.render(scene, cameras, STILL)
    for i in range(3):
        alone = net.synthesis(codes, cameras[i : i + 1], STILL)
        for name in ("image", "image_raw", "depth", "opacity"):
            torch.testing.assert_close(getattr(together, name)[i], getattr(alone, name)[0], atol=1e-5, rtol=1e-5)


def test_one_camera_sees_many_scenes():
    net = generator()
    codes = codes_of(net, 2)
    together = net.synthesis(codes, views(1), STILL)
    alone = net.synthesis(codes[1:], views(1), STILL)
    torch.testing.assert_close(together.image[1:], alone.image, atol=1e-5, rtol=1e-5)


def test_chunks_and_calls_change_nothing():
    net = generator()
    codes = codes_of(net)
    first = net.synthesis(codes, views(2), STILL)
    again = net.synthesis(codes, views(2), replace(STILL, chunk=10, resolution=8, samples=(6, 6)))
    torch.testing.assert_close(again.image, first.image, atol=1e-5, rtol=1e-5)
    assert torch.equal(net.synthesis(codes, views(2), STILL).image, first.image)


def test_what_the_camera_sees_is_what_the_field_says():
    """Marching the queried densities of one ray by hand gives its pixel."""
    net = generator(upsampled=False, rays={"near": 2.3, "far": 3.1}, raw_resolution=3)
    net.rays = replace(net.rays, samples=(32, 0))
    scene, camera = net.scene(codes_of(net, 1), STILL), views(1)
    out = net.render(scene, camera, STILL)
    depths = 2.3 + 0.8 * (torch.arange(32) + 0.5) / 32
    rays = image_rays(camera, 3)
    points = rays.origins[:, 4:5] + depths[None, :, None] * rays.directions[:, 4:5]
    found = net.query(scene, points)
    torch.testing.assert_close(found.density, torch.nn.functional.softplus(found.raw_density - 1))
    raw, colour = found.raw_density[0], found.colour[0]
    passed, seen = 1.0, torch.zeros(8)
    for k in range(31):
        thickness = torch.nn.functional.softplus((raw[k] + raw[k + 1]) / 2 - 1) * (depths[k + 1] - depths[k])
        share = passed * (1 - torch.exp(-thickness))
        seen, passed = seen + share * (colour[k] + colour[k + 1]) / 2, passed - share
    assert out.features is not None
    torch.testing.assert_close(out.features[0, :, 1, 1], seen - passed, atol=1e-5, rtol=1e-5)


def test_the_mapping_is_told_camera_and_label_unless_it_is_not_to():
    z, label = torch.randn(2, 10), torch.eye(3)[:2]
    here, there = Condition(camera=views(2), label=label), Condition(camera=RIG.at(torch.ones(2)), label=label)
    other = Condition(camera=here.camera, label=label.flip(0))
    net = generator(label_dim=3)
    assert not torch.equal(net.mapping(z, here).ws, net.mapping(z, there).ws)
    assert not torch.equal(net.mapping(z, here).ws, net.mapping(z, other).ws)
    for blind in ({"pose_conditioning": False}, {"camera_scale": 0.0}):
        net = generator(label_dim=3, **blind)
        assert torch.equal(net.mapping(z, here).ws, net.mapping(z, there).ws)
        assert torch.equal(net.mapping(z, here).ws, net.mapping(z, Condition(label=label)).ws)
        assert not torch.equal(net.mapping(z, here).ws, net.mapping(z, other).ws)
    with pytest.raises(ConfigError, match="poses"):
        generator().mapping(z, Condition())
    with pytest.raises(ConfigError, match="class labels"):
        generator(label_dim=3).mapping(z, Condition(camera=views(2)))


def test_truncation_ends_at_the_mean():
    net = generator()
    codes, mean = codes_of(net), net.mean_codes()
    assert torch.equal(mean.lerp(codes, 1.0).ws, codes.ws)
    torch.testing.assert_close(mean.lerp(codes, 0.0).ws, mean.ws.expand_as(codes.ws))
    half = mean.lerp(codes, 0.5, slice(2))
    assert torch.equal(half.ws[:, 2:], codes.ws[:, 2:])


def test_the_mean_moves_only_when_asked():
    net = generator()
    before = net.mapping_network.w_avg.clone()
    codes_of(net)
    commit_averages(net)
    assert torch.equal(net.mapping_network.w_avg, before)
    codes = net.mapping(torch.randn(4, 10), Condition(camera=views(4)), update_emas=True)
    commit_averages(net)
    torch.testing.assert_close(net.mapping_network.w_avg, codes.ws[:, 0].mean(dim=0).lerp(before, 0.998))


def test_the_raw_resolution_fades_and_training_is_random():
    net = generator(raw_resolution=16, raw_resolution_initial=8, raw_fade_kimg=10)
    assert [net.options_at(nimg).resolution for nimg in (0, 5000, 10_000, 10**6)] == [8, 12, 16, 16]
    options = net.options_at(0)
    assert (options.noise, options.jitter) == ("random", "random")
    assert generator().options_at(123).resolution == 8


def test_a_seed_gives_the_same_training_picture_in_any_cut_of_the_batch():
    net = generator()
    codes = codes_of(net)
    options = net.options_at(0)

    def draws(items):
        return Draws(5, phase="Gmain", nimg=64, items=items, batch=2)

    both = net.synthesis(codes, views(2), options.using(draws([0, 1])))
    second = net.synthesis(codes[1:], views(2)[1:], options.using(draws([1])))
    torch.testing.assert_close(both.image[1:], second.image, atol=1e-5, rtol=1e-5)
    assert not torch.equal(both.image, net.synthesis(codes, views(2), STILL).image)
    with pytest.raises(ValueError, match="draws"):
        net.synthesis(codes, views(2), options)


def test_training_gradients_reach_every_part():
    net = generator()
    draws = Draws(1, items=(0, 1), batch=2)
    out = net.synthesis(codes_of(net), views(2), net.options_at(0).using(draws))
    assert out.image_raw is not None
    (out.image.square().mean() + out.image_raw.square().mean()).backward()
    idle = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)


def test_the_density_regulariser_has_gradients():
    net = generator()
    scene = net.scene(codes_of(net), STILL)
    net.query(scene, torch.rand(2, 20, 3) * 2 - 1).raw_density.square().mean().backward()
    assert net.backbone.get_submodule("b4").const.grad.any()
    assert net.field.net[0].weight.grad.any()


def test_a_camera_may_be_learned():
    net = generator()
    camera = views(1).map(lambda t: t.clone().requires_grad_())
    net.synthesis(codes_of(net, 1), camera, STILL).image.sum().backward()
    assert camera.cam2world.grad is not None
    assert camera.cam2world.grad[:, :3].any()


def test_the_upside_of_the_world_is_up_in_the_picture():
    """Densities only above y = 0 cover the upper half of a frontal picture."""
    net = generator(upsampled=False)

    class Above(torch.nn.Module):
        box_side, features = 1.0, 8

        def forward(self, planes, points, directions):
            return 1e4 * points[..., 1], points.new_zeros(*points.shape[:-1], 8)

    scene = net.scene(codes_of(net, 1), STILL)
    net.field = Above()
    opacity = net.render(scene, RIG.at(0.0), STILL).opacity
    assert opacity is not None
    assert (opacity[0, 0, :4] > 0.99).all()
    assert (opacity[0, 0, 4:] < 0.01).all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"mapping": MappingNetwork(z_dim=4, c_dim=25, w_dim=13)},
        {"mapping": MappingNetwork(z_dim=4, c_dim=7, w_dim=12)},
        {"field": TriplaneField(features=9, hidden=4, colours=4)},
    ],
)
def test_parts_that_do_not_fit(wrong):
    net = generator()
    parts = {"mapping": net.mapping_network, "backbone": net.backbone, "field": net.field, "upsampler": None}
    with pytest.raises(ConfigError, match=r"mapping|backbone"):
        TriplaneGenerator(**(parts | wrong))
