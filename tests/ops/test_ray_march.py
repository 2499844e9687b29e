"""Rays through a tri-plane field in one operator: its kernels, on an emulated GPU, against the twin, and rendering."""

from dataclasses import replace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from tests.ops.compiled import within
from tests.ops.emulated import emulated
from torch_utils.ops import field_kernels
from torch_utils.ops.ray_march import march_ready, march_twin, ray_march
from torch_utils.ops.triplane_field import field_twin
from training.layers.fields import TriplaneField
from training.rendering.hierarchical import RaySettings, ray_draws, render_rays
from training.rendering.rays import Rays
from training.rendering.volume import composite, midpoint_weights, to_samples

INPUTS = ("planes", "origins", "directions", "depths", "w1", "b1", "w2", "b2")
MOVING = [k for k, name in enumerate(INPUTS) if name != "depths"]


class Sizes(NamedTuple):
    batch: int = 2  # of planes
    items: int = 2
    rays: int = 7
    samples: int = 13  # no whole number of tiles
    height: int = 6
    width: int = 9
    features: int = 32
    hidden: int = 64
    colours: int = 32


SIZES = [
    Sizes(),
    Sizes(1, 3, 5, 4, 8, 5, 17, 33, 19),  # planes that all items share; one tile; lanes without work
    Sizes(2, 2, 3, 1, 4, 4, 5, 10, 4),  # one sample, which weighs nothing
    Sizes(2, 2, 3, 3, 4, 4, 40, 10, 0),  # more features than lanes, no colours
    Sizes(1, 1, 3, 8, 4, 4, 1, 1, 70),  # whole tiles; one feature; more colours than lanes
]
SETTINGS: list[dict[str, Any]] = [
    {},
    {"axes": "legacy", "box_side": 1.6, "activation": "relu", "shift": 0.3},
]


def draw(sizes: Sizes) -> Any:
    """The eight inputs; rays begin outside of the box, some leave it, and some miss it."""
    origins = torch.randn(sizes.items, sizes.rays, 3) * 0.2 - torch.tensor([0.0, 0.0, 1.0])
    aim = torch.randn(sizes.items, sizes.rays, 3) * 0.3 + torch.tensor([0.0, 0.0, 1.0])
    hidden, outputs = sizes.hidden, 1 + sizes.colours
    return (
        torch.randn(sizes.batch, sizes.height, sizes.width, 3, sizes.features), origins,
        torch.nn.functional.normalize(aim, dim=-1),
        (torch.rand(sizes.items, sizes.rays, sizes.samples) * 2).sort(dim=-1).values,
        torch.randn(hidden, sizes.features) / sizes.features**0.5, torch.randn(hidden),
        torch.randn(outputs, hidden) * 2 / hidden**0.5, torch.randn(outputs),
    )  # fmt: skip


def sums(inputs: Any, **settings: Any) -> Any:
    return ray_march(*inputs[:4], inputs[4:], **settings)


def answers_and_gradients(inputs: Any, **settings: Any) -> tuple[Tensor, ...]:
    inputs = [t.detach().clone().requires_grad_() for t in inputs]
    found = sums(inputs, **settings)
    draws = torch.Generator().manual_seed(1)
    probes = [torch.randn(t.shape, generator=draws).to(t.dtype) for t in found]
    slopes = torch.autograd.grad(found, [inputs[k] for k in MOVING], probes)
    return *(t.detach() for t in found), *slopes


def doubled(inputs: Any) -> Any:
    return [t.double() for t in inputs]


def test_the_twin_is_the_renderer_of_two_passes():
    planes, origins, directions, depths, *layers = doubled(draw(Sizes()))
    points = Rays(origins, directions).at(depths)
    raw, colours = field_twin(planes, points.flatten(1, 2), *layers, "fixed", 1.0)
    shares = to_samples(midpoint_weights(raw.view(depths.shape), depths))
    total, moment, opacity = sums([planes, origins, directions, depths, *layers])
    torch.testing.assert_close(total, composite([shares], [colours.view(*depths.shape, -1)]))
    torch.testing.assert_close(moment, (shares * depths).sum(dim=-1))
    torch.testing.assert_close(opacity, shares.sum(dim=-1))


@pytest.mark.parametrize("settings", SETTINGS, ids=["softplus", "relu"])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_the_kernels_find_sums_and_gradients_of_the_twin(sizes: Sizes, settings):
    inputs = draw(sizes)
    exact = answers_and_gradients(doubled(inputs), **settings)
    with emulated() as emulator:
        found = answers_and_gradients(inputs, **settings)
    assert emulator.launched == ["march_forward", "march_backward"]
    for one, expected in zip(found, exact, strict=True):
        within(one, expected, 3e-6)


def test_many_samples_of_a_ray_do_not_blur_its_gradient():
    """What lies behind is found by subtraction: errors must not grow along a ray, of fog or of glass."""
    for shift in (-6.0, 0.0, 4.0):
        inputs = draw(Sizes(1, 1, 4, 96, 32, 32))
        exact = answers_and_gradients(doubled(inputs), shift=shift)
        with emulated():
            found = answers_and_gradients(inputs, shift=shift)
        for one, expected in zip(found, exact, strict=True):
            within(one, expected, 5e-6)


def test_nothing_depends_on_the_order_of_threads_but_sums_over_rays():
    found = []
    for backwards in (False, True):
        torch.manual_seed(0)
        with emulated() as emulator:
            emulator.backwards = backwards
            found.append(answers_and_gradients(draw(Sizes())))
    for k, (one, other) in enumerate(zip(*found, strict=True)):
        added = k >= 3 and INPUTS[MOVING[k - 3]] not in ("origins", "directions")
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-5) if added else torch.equal(one, other)


@pytest.mark.parametrize("wanted", [[0], [1], [2], [4, 7], [1, 2], MOVING])
def test_gradients_asked_for_alone_are_the_same(wanted):
    inputs = draw(Sizes())
    whole = None
    with emulated():
        whole = answers_and_gradients(inputs)[3:]
        moving = [t.clone().requires_grad_(k in wanted) for k, t in enumerate(inputs)]
        found = sums(moving)
        draws = torch.Generator().manual_seed(1)
        probes = [torch.randn(t.shape, generator=draws) for t in found]
        slopes = torch.autograd.grad(found, [moving[k] for k in wanted], probes)
    for k, slope in zip(wanted, slopes, strict=True):
        assert torch.equal(slope, whole[MOVING.index(k)])


def test_a_penalty_on_gradients_has_the_gradients_of_the_twin():
    inputs, slopes = draw(Sizes(1, 1, 3, 5, 4, 4, 3, 4, 2)), []
    for given, march in ((inputs, emulated), (doubled(inputs), None)):
        moving = [t.clone().requires_grad_() for t in given]

        def penalty(moving=moving):
            total, moment, _ = sums(moving)
            first = torch.autograd.grad(total.square().sum() + moment.sum(), moving[:3], create_graph=True)
            loss = sum(slope.square().sum() for slope in first)
            return torch.autograd.grad(loss, [moving[k] for k in MOVING])

        if march is None:
            slopes.append(penalty())
        else:
            with march():
                slopes.append(penalty())
    for found, expected in zip(*slopes, strict=True):
        within(found, expected, 1e-4)  # single precision twice


def test_what_is_no_number_stays_on_its_ray():
    inputs = draw(Sizes())
    with emulated():
        clean = sums(inputs)
        inputs[1][1, 3, 0] = torch.nan
        for answer, before in zip(sums(inputs), clean, strict=True):
            assert answer[1, 3].isnan().all()
            answer[1, 3] = before[1, 3]
            assert torch.equal(answer, before)


def test_strides_do_not_matter():
    inputs = draw(Sizes())
    turned = [t.mT.contiguous().mT if t.ndim > 1 else t.repeat_interleave(2)[::2] for t in inputs]
    assert not any(t.is_contiguous() for t in turned)
    with emulated():
        for one, other in zip(answers_and_gradients(inputs), answers_and_gradients(turned), strict=True):
            assert torch.equal(one, other)


def test_kernels_serve_float32_of_shapes_that_agree_and_of_sizes_that_a_block_holds():
    *where, w1, b1, w2, b2 = inputs = draw(Sizes())
    assert not march_ready(*inputs, axes="fixed")  # on a CPU
    with emulated():
        assert march_ready(*inputs, axes="fixed")
        assert not march_ready(*doubled(inputs), axes="fixed")
        assert not march_ready(*where, w1, b1, w2[:, :3], b2, axes="fixed")
        assert not march_ready(*draw(Sizes(batch=3)), axes="fixed")
        assert not march_ready(*draw(Sizes(rays=0)), axes="fixed")
        assert not march_ready(*draw(Sizes(hidden=256, colours=128)), axes="fixed")
    assert field_kernels.shared_memory(32, 64, 33) == 32072  # what the compiler says of the usual sizes


def test_where_every_run_must_give_the_same_bits_the_twin_serves():
    inputs = draw(Sizes())
    try:
        torch.use_deterministic_algorithms(True)
        with emulated():
            assert not march_ready(*inputs, axes="fixed")
    finally:
        torch.use_deterministic_algorithms(False)


def test_the_operators_keep_to_the_rules_of_torch():
    inputs = draw(Sizes(1, 1, 2, 3, 2, 2, 2, 3, 2))
    settings = ("fixed", 1.0, False, -1.0)
    with emulated():
        moving = [t.clone().requires_grad_(k != 3) for k, t in enumerate(inputs)]
        torch.library.opcheck(torch.ops.parallax.ray_march, (*moving, *settings))
        results = torch.ops.parallax.ray_march(*inputs, *settings)
        grads = [torch.ones_like(t) for t in results]
        for wanted in ([True, True], [True, False], [False, True]):
            arguments = (grads, list(results), list(inputs), *settings, wanted)
            torch.library.opcheck(torch.ops.parallax.ray_march_gradient, arguments)


RENDERED: dict[str, dict[str, Any]] = {
    "usual": {},
    "one pass": {"samples": (9, 0)},
    "quirks": {"bins": "nodes", "importance": "legacy", "depth_clamp": "legacy", "misses": "legacy"},
    "white box": {"background": "white", "near": None, "far": None, "density_activation": "relu", "density_shift": 0.0},
}


@pytest.mark.parametrize("name", RENDERED)
@pytest.mark.parametrize("views", [1, 3])
def test_rendering_by_the_kernels_is_rendering(name, views):
    """Both passes, both backgrounds, rays that miss: pictures and all gradients, to cameras as well."""
    planes, origins, directions, *_ = draw(Sizes(1 if views == 3 else 2, 3 if views == 3 else 2, 20))
    settings = replace(RaySettings(near=0.2, far=1.9, samples=(6, 7)), **RENDERED[name])
    field = TriplaneField(features=32, hidden=64, colours=5)
    torch.nn.init.normal_(field.net[2].bias)
    found = []
    for kernels in (False, True):
        given = [t.clone().requires_grad_() for t in (planes, origins, directions)]
        rays = Rays(*given[1:])
        ends = settings.range(rays, 1.0)
        if kernels:
            with emulated() as emulator:
                out = render_rays(field, given[0], rays, ends, settings, ray_draws(rays, settings.samples))
            passes = ["field_forward"] * (name != "one pass") + ["march_forward"]
            assert emulator.launched == passes
        else:
            out = render_rays(field, given[0], rays, ends, settings, ray_draws(rays, settings.samples))
        seen = out.opacity > 1e-3
        loss = out.features.square().sum() + out.depth[seen].sum() + out.opacity.square().sum()
        with emulated():
            slopes = torch.autograd.grad(loss, [*given, *field.parameters()])
        found.append([out.features, out.depth[seen], out.opacity, out.nearest, out.farthest, *slopes])
    for one, other in zip(*found, strict=True):
        within(other, one.double(), 1e-5)


def test_noise_on_densities_is_for_the_parts(monkeypatch: pytest.MonkeyPatch):
    planes, origins, directions, *_ = draw(Sizes())
    rays, settings = Rays(origins, directions), RaySettings(near=0.2, far=1.9, samples=(6, 7))
    draws = ray_draws(rays, settings.samples)
    noisy = replace(draws, coarse_noise=torch.zeros(2, 7, 6), fine_noise=torch.zeros(2, 7, 7))
    field, ends = TriplaneField(colours=5), settings.range(rays, 1.0)
    with emulated() as emulator, torch.no_grad():
        plain = render_rays(field, planes, rays, ends, settings, draws)
        assert emulator.launched == ["field_forward", "march_forward"]
        parts = render_rays(field, planes, rays, ends, settings, noisy)
        assert emulator.launched[2:] == ["field_forward", "field_forward"]
    within(parts.features, plain.features.double(), 1e-5)


def test_the_twin_takes_what_kernels_do_not():
    inputs = draw(Sizes())
    for found, expected in zip(sums(inputs), march_twin(*inputs, "fixed", 1.0, False, -1.0), strict=True):
        assert torch.equal(found, expected)
