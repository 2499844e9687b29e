"""Weighted sums along rays."""

import inspect

import pytest
import torch

from tests.ops.compiled import threads, within
from torch_utils.ops import native
from torch_utils.ops.weighted_sum import sum_twin, weighted_sum

pytestmark = pytest.mark.skipif(native.why_not() is not None, reason=f"no compiled operators: {native.why_not()}")
SHAPES = [(1, 1, 1), (7, 5, 3), (2, 9, 4, 32), (3, 33, 6, 19)]


def numbers(shape):
    generator = torch.Generator().manual_seed(len(shape))
    *rays, samples, channels = shape
    weights = torch.rand(*rays, samples, generator=generator)
    return weights, torch.randn(shape, generator=generator), torch.randn(*rays, channels, generator=generator)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [1, 3])
def test_values_and_gradients_are_the_twins(shape, count):
    weights, values, grad = numbers(shape)
    mine = [t.clone().requires_grad_() for t in (weights, values)]
    exact = [t.double().requires_grad_() for t in (weights, values)]
    with threads(count):
        found = weighted_sum(*mine)
        slopes = torch.autograd.grad(found, mine, grad)
    expected = sum_twin(*exact)
    within(found, expected, 1e-6)
    for got, want in zip(slopes, torch.autograd.grad(expected, exact, grad.double()), strict=True):
        within(got, want, 1e-6)


def test_a_worked_example():
    weights, values = torch.tensor([[0.5, 0.25]]), torch.tensor([[[1.0, 2.0], [4.0, -8.0]]])
    torch.testing.assert_close(weighted_sum(weights, values), torch.tensor([[1.5, -1.0]]))


def test_second_derivatives_are_the_twins():
    weights, values, _ = numbers((4, 5, 3))

    def penalty(total, dtype):
        leaves = [t.to(dtype).requires_grad_() for t in (weights, values)]
        slopes = torch.autograd.grad(total(*leaves).square().sum(), leaves, create_graph=True)
        return torch.autograd.grad(sum(s.square().sum() for s in slopes), leaves)

    found, wanted = penalty(weighted_sum, torch.float32), penalty(sum_twin, torch.float64)
    for got, want in zip(found, wanted, strict=True):
        within(got, want, 1e-5)


def test_views_empty_rays_and_double_precision():
    weights, values, _ = numbers((4, 6, 5))
    within(weighted_sum(weights[:, ::2], values[:, ::2]), sum_twin(weights[:, ::2], values[:, ::2]).double(), 1e-6)
    assert weighted_sum(weights[:0], values[:0]).shape == (0, 5)
    assert weighted_sum(weights.double(), values.double()).dtype == torch.float64


def test_weights_of_one_ray_serve_many_and_others_are_refused():
    weights, values, _ = numbers((4, 6, 5))
    bare = inspect.unwrap(weighted_sum)  # without the tests' own look at shapes
    within(bare(weights[:1], values), sum_twin(weights[:1], values).double(), 1e-6)
    with pytest.raises(RuntimeError):
        bare(weights[:, :4], values)


def test_the_operators_are_sound():
    weights, values, grad = numbers((2, 3, 4))
    leaves = (weights.requires_grad_(), values.requires_grad_())
    torch.library.opcheck(torch.ops.parallax.weighted_sum.default, leaves)
    torch.library.opcheck(torch.ops.parallax.weighted_sum_gradient.default, (weights.detach(), values.detach(), grad))
