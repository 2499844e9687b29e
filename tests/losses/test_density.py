"""Facts about the regularisers of a density field, on fields whose densities are known."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from training.contracts import Batch, CameraRig, Codes, Condition, Draws, Inputs, RenderOptions
from training.losses.density import DensityTV, MonotonicDensity
from training.phases import Phase
from training.step import Step

N = 3
D = 1 / 256


def step_on(density, **recorded: Tensor) -> Step:
    """A step of a generator with this field."""
    net = SimpleNamespace(
        query=lambda scene, points: SimpleNamespace(raw_density=density(points)), scene=lambda codes, options: None,
        mapping=lambda z, condition, update_emas: Codes(), options_at=lambda nimg: RenderOptions(),
    )  # fmt: skip
    batch = Batch(image=torch.zeros(N, 3, 8, 8), condition=Condition(camera=CameraRig(radius=2.7, focal=4.26).at(0.0)))
    draws = Draws(seed=0, phase="Greg", items=range(N), batch=N, recorded=recorded)
    return Step(nets={"G": net}, batch=batch, inputs=Inputs(), draws=draws, nimg=0, critics={})


@pytest.mark.parametrize("detach", [False, True])
def test_a_field_that_grows_on_the_way_in_costs_nothing(detach: bool):
    """The frontal camera is at +z, so z falls along its rays."""
    values = MonotonicDensity(detach=detach)(step_on(lambda points: -3 * points[..., 2] + points[..., 0]))
    assert torch.equal(values, torch.zeros(N))


def test_a_field_that_falls_on_the_way_in_costs_its_fall():
    values = MonotonicDensity(weight=10, distance=0.02)(step_on(lambda points: 3 * points[..., 2]))
    torch.testing.assert_close(values, torch.full((N,), 10 * 3 * 0.02))
    aside = MonotonicDensity()(step_on(lambda points: 5 * points[..., 0] - points[..., 1]))
    assert aside.abs().max() < 1e-4  # no other direction matters


def test_detached_only_what_lies_behind_moves():
    """For s(p) = a z + b with a > 0 both move to a smaller slope; detached, b grows as well."""
    for detach, slope, offset in ((False, 10 * D, 0.0), (True, None, -10.0)):
        a, b = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.tensor(0.5))
        points = torch.rand(N, 2000, 3)
        term = MonotonicDensity(detach=detach)
        term(step_on(lambda p, a=a, b=b: a * p[..., 2] + b, **{"monotonic.points": points})).mean().backward()
        expected = -10 * (2 * points[..., 2] - 1 - D).mean().item() if slope is None else slope
        assert a.grad is not None
        assert a.grad.item() == pytest.approx(expected, abs=1e-5)
        assert (0.0 if b.grad is None else b.grad.item()) == pytest.approx(offset, abs=1e-5)


@pytest.mark.parametrize("term", [MonotonicDensity(points=20, distance=0.1), DensityTV(points=20, std=0.1)])
def test_gradients_are_those_of_finite_differences(term):
    drawn = {name: torch.rand(N, 20, 3, dtype=torch.float64) for name in ("monotonic.points", "density.points")}
    drawn["density.shift"] = torch.randn(N, 20, 3, dtype=torch.float64)

    def value(a: Tensor) -> Tensor:
        return term(step_on(lambda p: (p * a).sin().sum(dim=-1), **drawn)).mean()

    assert torch.autograd.gradcheck(value, torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64, requires_grad=True))


def test_points_fill_the_cube_twice_as_wide_as_the_box():
    seen: list[Tensor] = []

    def density(points: Tensor) -> Tensor:
        seen.append(points)
        return points[..., 0]

    for term in (MonotonicDensity(), DensityTV(std=0.0)):
        term(step_on(density))
        assert seen[-1].shape == (N, 2 * term.points, 3)
        for axis in (0, 1):
            assert -1 <= seen[-1][..., axis].min() < -0.98
            assert 0.98 < seen[-1][..., axis].max() <= 1
    assert math.isclose(seen[-1][..., 2].std().item(), 1 / math.sqrt(3), rel_tol=0.03)


def test_both_terms_have_backward_passes_of_their_own_and_a_formula():
    terms = {"monotonic": MonotonicDensity(detach=True), "density": DensityTV()}
    phase = Phase(name="Greg", nets=("G",), optimizer="G", terms=terms)
    assert [list(group) for group in phase.groups()] == [["monotonic"], ["density"]]
    assert MonotonicDensity(detach=True).formula != MonotonicDensity().formula
