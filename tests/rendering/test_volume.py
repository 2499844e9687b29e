"""Volume rendering against closed forms."""

import math

import pytest
import torch

from training.rendering.volume import (
    activate_density,
    composite,
    expected_depth,
    midpoint_weights,
    ray_weights,
    to_samples,
)

F64 = torch.float64


def test_uniform_fog_obeys_beer_lambert():
    edges = torch.linspace(1.0, 3.0, 65, dtype=F64)
    opacity = ray_weights(torch.full((64,), 0.7, dtype=F64), edges).sum()
    assert opacity.item() == pytest.approx(1 - math.exp(-0.7 * 2.0), abs=1e-12)


def test_fog_of_changing_density_obeys_beer_lambert_in_any_cut():
    edges = torch.rand(5, 33, dtype=F64).cumsum(dim=-1)
    density = torch.rand(5, 32, dtype=F64) * 3
    passed = torch.cumsum(density * edges.diff(dim=-1), dim=-1)
    torch.testing.assert_close(ray_weights(density, edges).cumsum(-1), 1 - torch.exp(-passed), atol=1e-12, rtol=0)


def test_half_of_the_light_is_lost_twice():
    weights = ray_weights(torch.full((2,), math.log(2), dtype=F64), torch.tensor([0.0, 1.0, 2.0], dtype=F64))
    torch.testing.assert_close(weights, torch.tensor([0.5, 0.25], dtype=F64))


def test_a_last_interval_without_end_takes_all_the_light_that_is_left():
    weights = ray_weights(torch.tensor([0.1, 0.3]), torch.tensor([1.0, 2.0, 1e10]))
    assert weights.sum().item() == pytest.approx(1, abs=1e-6)
    assert weights[0].item() == pytest.approx(1 - math.exp(-0.1), abs=1e-6)


def test_raw_densities_are_averaged_before_the_activation():
    raw, depths = torch.tensor([-3.0, 5.0], dtype=F64), torch.tensor([1.0, 1.5], dtype=F64)
    thickness = 0.5 * math.log1p(math.exp(1.0 - 1))
    assert midpoint_weights(raw, depths).item() == pytest.approx(1 - math.exp(-thickness), abs=1e-12)


def test_activations():
    raw = torch.tensor([-2.0, 0.0, 3.0], dtype=F64)
    torch.testing.assert_close(activate_density(raw, "relu", 0.0), torch.tensor([0.0, 0.0, 3.0], dtype=F64))
    torch.testing.assert_close(activate_density(raw), (raw - 1).exp().log1p())


def test_half_of_an_intervals_weight_goes_to_each_end():
    torch.testing.assert_close(to_samples(torch.tensor([0.5, 0.25])), torch.tensor([0.25, 0.375, 0.125]))
    weights, values = torch.rand(4, 9, dtype=F64), torch.rand(4, 10, 3, dtype=F64)
    middles = (values[:, 1:] + values[:, :-1]) / 2
    expected = (weights[..., None] * middles).sum(dim=1)
    torch.testing.assert_close(composite([to_samples(weights)], [values]), expected)


def test_samples_composite_in_any_order_and_grouping():
    weights, values = torch.rand(4, 9, dtype=F64) / 9, torch.rand(4, 9, 3, dtype=F64)
    whole = composite([weights], [values], background=1.0)
    order = torch.randperm(9)
    first, rest = order[:4], order[4:]
    parts = composite([weights[:, first], weights[:, rest]], [values[:, first], values[:, rest]], background=1.0)
    torch.testing.assert_close(parts, whole)


def test_what_is_not_covered_shows_the_background():
    nothing = composite([torch.zeros(2, 5)], [torch.rand(2, 5, 3)], background=-1.0)
    assert torch.equal(nothing, torch.full((2, 3), -1.0))
    half = composite([torch.full((1, 2), 0.25)], [torch.zeros(1, 2, 3)], background=1.0)
    torch.testing.assert_close(half, torch.full((1, 3), 0.5))


def test_the_depth_of_a_thin_wall_is_where_it_stands_however_transparent():
    depths = torch.linspace(1, 3, 41, dtype=F64).expand(2, -1)
    raw = torch.full((2, 41), -60.0, dtype=F64)
    raw[:, 20] = torch.tensor([4000.0, 60.5], dtype=F64)  # opaque, and barely seen
    found = expected_depth(to_samples(midpoint_weights(raw, depths)), depths)
    torch.testing.assert_close(found, torch.full((2,), 2.0, dtype=F64), atol=0.05, rtol=0)


def test_an_empty_ray_has_no_depth_and_finite_gradients():
    weights = torch.zeros(1, 4, requires_grad=True)
    depth = expected_depth(weights, torch.arange(4.0)[None])
    assert depth.isinf().all()
    (slope,) = torch.autograd.grad(depth.clamp(max=3.0).sum(), weights)
    assert slope.isfinite().all()
