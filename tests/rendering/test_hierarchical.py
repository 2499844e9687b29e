"""The two-pass renderer on fields with closed forms."""

import math
from dataclasses import replace

import pytest
import torch

from dnnlib.errors import ConfigError
from torch_utils.draws import Draws
from training.rendering.cameras import CameraRig
from training.rendering.hierarchical import RaySettings, ray_draws, render_rays
from training.rendering.rays import image_rays

RIG = CameraRig(radius=2.7, focal=2.0)
SETTINGS = RaySettings(samples=(8, 6))
LEGACY = replace(SETTINGS, bins="nodes", importance="legacy", depth_clamp="legacy", misses="legacy")


def fog(content, points, directions):
    """The same density everywhere, in each item its own; colour is position."""
    return content[:, None, None].expand(points.shape[:-1]), points


def waves(content, points, directions):
    raw = 8 * torch.sin(5 * points + content[:, None, None, None]).sum(dim=-1)
    return raw, torch.cos(3 * points)


def render(field, content, settings=SETTINGS, chunk=None, angles=(0.2, -0.5), side=4, draws=None):
    rays = image_rays(RIG.at(torch.tensor(angles)), side)
    drawn = ray_draws(rays, settings.samples, jitter=draws)
    return render_rays(field, content, rays, settings.range(rays, 1.0), settings, drawn, chunk)


@pytest.mark.parametrize("fine", [0, 6])
def test_fog_between_the_first_and_the_last_sample_obeys_beer_lambert(fine):
    raw = torch.tensor([0.3, 1.5])
    out = render(fog, raw, RaySettings(near=2.0, far=3.0, samples=(8, fine)))
    length = out.farthest - out.nearest
    density = torch.log1p(torch.exp(raw - 1))[:, None]
    torch.testing.assert_close(out.opacity, 1 - torch.exp(-density * length))


def test_opaque_matter_is_seen_where_the_ray_meets_it():
    out = render(
        lambda c, p, d: (torch.where(p[..., 2] < 0.1, 1e4, -1e4), p), torch.zeros(2), RaySettings(samples=(64, 64))
    )
    rays = image_rays(RIG.at(torch.tensor([0.2, -0.5])), 4)
    wall = (0.1 - rays.origins[..., 2]) / rays.directions[..., 2]
    torch.testing.assert_close(out.depth, wall, atol=0.02, rtol=0)
    point = rays.origins + wall[..., None] * rays.directions
    torch.testing.assert_close(out.features, point, atol=0.02, rtol=0)
    torch.testing.assert_close(out.opacity, torch.ones(2, 16))


@pytest.mark.parametrize("settings", [SETTINGS, LEGACY, replace(LEGACY, near=None, far=None)])
@pytest.mark.parametrize("chunk", [1, 5, 16, 20, 1000])
def test_chunks_change_nothing(settings, chunk):
    content = torch.tensor([0.0, 1.0, 2.0])
    angles = (0.2, -0.5, 0.9)
    whole = render(waves, content, settings, 10**6, angles)
    cut = render(waves, content, settings, chunk, angles)
    for name in ("features", "depth", "opacity"):
        torch.testing.assert_close(getattr(cut, name), getattr(whole, name), atol=1e-6, rtol=1e-6)


def test_bins_of_equal_disparity_start_in_front_of_the_camera():
    with pytest.raises(ConfigError, match="near=0: spacing=disparity"):
        RaySettings(near=0, far=3, spacing="disparity")
    assert RaySettings(near=0, far=3).near == 0
    near = render(fog, torch.zeros(2), RaySettings(near=0.1, far=3, spacing="disparity", samples=(8, 0))).nearest
    torch.testing.assert_close(near, torch.full_like(near, 1 / (15 / 16 / 0.1 + 1 / 16 / 3)))  # 8 bins from 10 to 1/3


def test_one_scene_is_seen_from_many_cameras():
    many = render(waves, torch.tensor([0.7]), angles=(0.2, -0.5, 0.9))
    for i, angle in enumerate((0.2, -0.5, 0.9)):
        one = render(waves, torch.tensor([0.7]), angles=(angle,))
        torch.testing.assert_close(many.features[i], one.features[0])
        torch.testing.assert_close(many.depth[i], one.depth[0])


def test_a_ray_does_not_depend_on_its_company():
    settings = replace(SETTINGS, near=None, far=None)
    both = render(waves, torch.tensor([0.0, 1.0]), settings)
    alone = render(waves, torch.tensor([1.0]), settings, angles=(-0.5,))
    torch.testing.assert_close(both.depth[1], alone.depth[0])
    torch.testing.assert_close(both.features[1], alone.features[0])


def test_rays_past_the_box_see_the_background():
    for background, colour in (("black", -1.0), ("white", 1.0)):
        settings = replace(SETTINGS, near=None, far=None, background=background)
        out = render(fog, torch.full((2,), 50.0), settings, side=16)
        missed = out.opacity == 0
        assert 0 < missed.sum() < missed.numel()
        assert (out.features[missed] == colour).all()
        assert out.depth.isfinite().all()


def test_random_samples_belong_to_items_not_to_the_batch():
    def draws(items):
        return Draws(3, nimg=7, items=items, batch=4)

    whole = render(waves, torch.tensor([0.0, 1.0]), draws=draws([2, 3]))
    second = render(waves, torch.tensor([1.0]), angles=(-0.5,), draws=draws([3]))
    torch.testing.assert_close(whole.features[1:], second.features)
    still = render(waves, torch.tensor([0.0, 1.0]))
    assert (whole.features - still.features).abs().max() > 1e-3


def test_noise_of_densities_has_the_given_deviation():
    rays = image_rays(RIG.at(torch.zeros(3)), 16)
    drawn = ray_draws(rays, (8, 8), noise=Draws(0, items=range(3), batch=3), noise_std=0.5)
    assert drawn.coarse_noise is not None
    assert drawn.fine_noise is not None
    for noise in (drawn.coarse_noise, drawn.fine_noise):
        assert noise.std().item() == pytest.approx(0.5, rel=0.05)
    assert not torch.equal(drawn.coarse_noise, drawn.fine_noise)


def test_more_samples_converge_to_the_integral():
    """Light through sin-shaped density: the exact opacity is 1 - exp(-integral)."""

    def bump(content, points, directions):
        density = 2 + torch.sin(6 * (points - 0.3).norm(dim=-1))
        return density + torch.log(-torch.expm1(-density)) + 1, points  # inverse of softplus(raw - 1)

    rays = image_rays(RIG.at(torch.tensor([0.2])), 2).map(torch.Tensor.double)
    errors = []
    for count in (16, 64):
        settings = RaySettings(near=2.0, far=3.0, samples=(count, 0))
        ends = settings.range(rays, 1.0)
        out = render_rays(bump, torch.zeros(1), rays, ends, settings, ray_draws(rays, (count, 0)))
        fine = torch.linspace(0, 1, 4001, dtype=torch.float64)
        depths = out.nearest[..., None] + fine * (out.farthest - out.nearest)[..., None]
        density = 2 + torch.sin(6 * (rays.at(depths) - 0.3).norm(dim=-1))
        exact = 1 - torch.exp(-torch.trapezoid(density, depths))
        errors.append((out.opacity - exact).abs().max().item())
    assert errors[1] < errors[0] / 8
    assert errors[1] < 1e-4


def test_gradients_reach_densities_and_colours():
    content = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
    rays = image_rays(RIG.at(torch.tensor([0.2])), 2).map(torch.Tensor.double)
    settings = RaySettings(samples=(5, 0))

    def opacity_and_depth(value):
        out = render_rays(waves, value, rays, settings.range(rays, 1.0), settings, ray_draws(rays, (5, 0)))
        return out.features, out.depth, out.opacity

    assert torch.autograd.gradcheck(opacity_and_depth, content)


@pytest.mark.parametrize(
    "wrong",
    [{"near": None}, {"near": 3.0, "far": 2.0}, {"samples": (1, 4)}, {"samples": (3, 4), "importance": "legacy"}],
)
def test_settings_that_cannot_be(wrong):
    with pytest.raises(ConfigError, match=r"near|samples"):
        RaySettings(**wrong)


def test_a_long_ray_through_fog_is_black_behind_it():
    out = render(fog, torch.full((1,), 500.0), RaySettings(near=2.0, far=3.0, samples=(16, 0)), angles=(0.0,))
    assert out.opacity.min().item() == pytest.approx(1, abs=1e-6)
    assert math.isclose(out.depth.min().item(), 2.0, abs_tol=0.1)
