"""The tri-plane field as one operator: against its twin in double precision, and facts of its own."""

import math
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from torch_utils.ops import native
from torch_utils.ops.triplane_field import TILE, WIDENING, field_twin, triplane_field

INPUTS = ("planes", "points", "w1", "b1", "w2", "b2")


class Sizes(NamedTuple):
    batch: int = 2  # of planes
    items: int = 2
    points: int = 150
    height: int = 6
    width: int = 9
    features: int = 5
    hidden: int = 10
    colours: int = 4
    axes: Any = "fixed"
    box_side: float = 1.0


SIZES = [
    Sizes(),
    Sizes(1, 3, 2 * TILE, 8, 5, 17, 33, 19, "legacy", 1.6),  # planes that all items share; whole tiles
    Sizes(2, 2, TILE + 1, 7, 16, 5, 130, 80, "legacy", 0.7),  # items fewer than threads
    Sizes(5, 5, 40, 3, 4, 17, 10, 80, "fixed", 3.0),  # items that no tile fills
    Sizes(1, 1, 700, 5, 6, 48, 130, 19),  # one item, several tiles for each thread
    Sizes(1, 1, 1, 1, 1, 1, 1, 1),
]


@pytest.fixture(autouse=True)
def _library():
    why_not = native.why_not()
    if why_not:
        pytest.skip(f"no compiled operators: {why_not}")
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def draw(sizes: Sizes) -> Any:
    """The six inputs; a third of the points lies outside the box, and some exactly on its border."""
    points = (torch.rand(sizes.items, sizes.points, 3) - 0.5) * 1.3
    on_border = torch.rand(points.shape) < 0.1
    points = torch.where(on_border, points.sign() / 2, points) * sizes.box_side
    hidden, outputs = sizes.hidden, 1 + sizes.colours
    return (
        torch.randn(sizes.batch, sizes.height, sizes.width, 3, sizes.features), points,
        torch.randn(hidden, sizes.features), torch.randn(hidden),
        torch.randn(outputs, hidden) / hidden**0.5, torch.randn(outputs),
    )  # fmt: skip


def twin(*inputs: Any, axes: Any = "fixed", box_side: float = 1.0) -> Any:
    return field_twin(*inputs, axes=axes, box_side=box_side)


def doubled(inputs: tuple[Tensor, ...]) -> Any:
    return tuple(t.detach().double() for t in inputs)


def moving(inputs: tuple[Tensor, ...]) -> Any:
    return tuple(t.detach().requires_grad_() for t in inputs)


def assert_near(found: Tensor, expected: Tensor, bound: float = 3e-6, what: str = "") -> None:
    """In the norm, as gradients add many numbers."""
    assert found.shape == expected.shape
    error = (found.double() - expected).norm() / expected.norm().clamp_min(1e-30)
    assert error <= bound, f"{what}: {error:.1e}"


def answers_and_gradients(field, inputs: tuple[Tensor, ...], probes, **settings) -> tuple[Tensor, ...]:
    inputs = moving(inputs)
    found = field(*inputs, **settings)
    probes = [probe.to(found[0].dtype) for probe in probes]
    return *(t.detach() for t in found), *torch.autograd.grad(found, inputs, probes)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_values_and_gradients_are_those_of_the_twin_and_one_thread_count_gives_the_same_bits(sizes: Sizes):
    inputs, settings = draw(sizes), {"axes": sizes.axes, "box_side": sizes.box_side}
    probes = torch.randn(sizes.items, sizes.points), torch.randn(sizes.items, sizes.points, sizes.colours)
    expected = answers_and_gradients(twin, doubled(inputs), probes, **settings)
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found, again = (answers_and_gradients(triplane_field, inputs, probes, **settings) for _ in range(2))
        for name, one, two, exact in zip(("raw", "colour", *INPUTS), found, again, expected, strict=True):
            assert_near(one, exact, what=f"{name}, {threads} threads")
            assert torch.equal(one, two), name


@pytest.mark.parametrize("batch", [1, 5])
def test_only_sums_over_threads_depend_on_how_many_there_are(batch):
    """Planes of many items have one thread each, which adds their points in their order."""
    inputs = draw(Sizes(batch, 5, 2 * TILE + 9, 2, 3))
    probes = torch.randn(5, 2 * TILE + 9), torch.randn(5, 2 * TILE + 9, 4)
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        answers = answers_and_gradients(triplane_field, inputs, probes)
        found.append(dict(zip(("raw", "colour", *INPUTS), answers, strict=True)))
    for name in ["raw", "colour", "points"] + ["planes"] * (batch > 1):
        assert torch.equal(found[0][name], found[1][name]), name
        assert torch.equal(found[0][name], found[2][name]), name


@pytest.mark.parametrize("name", INPUTS)
def test_a_gradient_asked_for_alone_is_the_same(name):
    inputs, wanted = list(draw(SIZES[0])), INPUTS.index(name)
    slopes = []
    for field, given in ((triplane_field, inputs), (twin, list(doubled(tuple(inputs))))):
        given[wanted].requires_grad_()
        raw, colours = field(*given)
        slopes += torch.autograd.grad(raw.sum() + colours.square().sum(), given[wanted])
    assert_near(*slopes)


@pytest.mark.parametrize("used", [0, 1])
def test_a_loss_may_use_one_of_the_two_answers(used):
    inputs = draw(SIZES[0])
    slopes = []
    for field, given in ((triplane_field, moving(inputs)), (twin, moving(doubled(inputs)))):
        loss = field(*given)[used].square().sum()
        slopes.append(torch.autograd.grad(loss, given))
    for name, found, expected in zip(INPUTS, *slopes, strict=True):
        assert_near(found, expected, what=name)


def test_a_point_on_a_texel_has_the_slope_of_the_side_that_the_twin_takes():
    texels = torch.cartesian_prod(*[torch.arange(-2.0, 7.0)] * 3)[None]  # 4 by 4 of them, and two beyond each border
    inputs = draw(Sizes(1, 1, 1, 4, 4))
    inputs = (inputs[0], (texels + 0.5) / 4 - 0.5, *inputs[2:])
    probes = torch.randn(1, len(texels[0])), torch.randn(1, len(texels[0]), 4)
    expected = answers_and_gradients(twin, doubled(inputs), probes)
    found = answers_and_gradients(triplane_field, inputs, probes)
    for name, one, exact in zip(("raw", "colour", *INPUTS), found, expected, strict=True):
        assert_near(one, exact, what=name)


@pytest.mark.parametrize("sizes", [SIZES[0], SIZES[1]], ids=str)
def test_a_penalty_on_gradients_has_the_gradients_of_the_twin(sizes):
    inputs = draw(sizes)
    slopes = []
    for field, given in ((triplane_field, moving(inputs)), (twin, moving(doubled(inputs)))):
        raw, colours = field(*given, axes=sizes.axes, box_side=sizes.box_side)
        first = torch.autograd.grad(raw.sum() + colours.square().sum(), given[:2], create_graph=True)
        try:
            slopes.append(torch.autograd.grad(first[0].square().sum() + first[1].square().sum(), given))
        except RuntimeError as error:
            if "grid_sampler_2d_backward is not implemented" not in str(error):
                raise
            pytest.skip(f"torch {torch.__version__} has no second derivative of grid_sample")
    for name, found, expected in zip(INPUTS, *slopes, strict=True):
        assert_near(found, expected, 3e-5, name)  # single precision twice


@pytest.mark.parametrize("create_graph", [False, True])
def test_inputs_may_follow_from_one_another(create_graph):
    inputs = draw(SIZES[0])
    slopes = []
    for field, given in ((triplane_field, moving(inputs)), (twin, moving(doubled(inputs)))):
        planes, points, *layers = given
        shifted = points + planes.mean() * 0.01
        raw, colours = field(planes, shifted, *layers)
        loss = raw.sum() + colours.square().sum()
        slopes += torch.autograd.grad(loss, planes, create_graph=create_graph)
    assert_near(slopes[0].detach(), slopes[1].detach(), 1e-5)


@pytest.mark.parametrize("coordinate", [0, 1, 2])
@pytest.mark.parametrize("axes", ["fixed", "legacy"])
def test_what_is_no_number_gives_what_is_no_number_there_and_nowhere_else(coordinate, axes):
    inputs = draw(SIZES[0])
    clean = triplane_field(*inputs, axes=axes)
    inputs[1][1, 40, coordinate] = torch.nan
    inputs[1][1, 40, (coordinate + 1) % 3] = 9.0  # outside of planes, which changes nothing
    for answer, before in zip(triplane_field(*inputs, axes=axes), clean, strict=True):
        assert answer[1, 40].isnan().all()
        answer[1, 40] = before[1, 40]
        assert torch.equal(answer, before)


@pytest.mark.parametrize("far", [math.inf, -math.inf, 1e30, -1e9, 3e38])
def test_far_points_see_zeros(far):
    planes, points, *layers = draw(Sizes(points=4))
    points[:] = 0.1
    outside = points.clone()
    for k in range(3):  # one coordinate alone, which not all planes have; then all
        points[:, k, k], outside[:, k, k] = far, 2.0
    points[:, 3], outside[:, 3] = far, 2.0
    found, expected = triplane_field(planes, points, *layers), twin(planes, outside, *layers)
    for answer, exact in zip(found, expected, strict=True):
        torch.testing.assert_close(answer, exact)


@pytest.mark.parametrize("value", [-1e4, -100.0, -88.0, -20.0, -1e-3, 0.0, 1e-3, 20.0, 100.0, 1e4])
def test_layers_stay_exact_for_extreme_numbers(value):
    planes, points = torch.zeros(1, 2, 2, 3, 1), torch.zeros(1, 1, 3)
    b1, b2 = moving((torch.tensor([value]), torch.tensor([0.0, value])))
    raw, colours = triplane_field(planes, points, torch.zeros(1, 1), b1, torch.tensor([[1.0], [0.0]]), b2)
    slopes = torch.autograd.grad(raw.sum() + colours.sum(), (b1, b2))
    small = math.exp(-abs(value))
    above, below = 1 / (1 + small), small / (1 + small)
    softplus, sigmoid = max(value, 0.0) + math.log1p(small), above if value >= 0 else below
    near = partial(pytest.approx, rel=1e-6, abs=2e-7)
    assert raw.item() == near(softplus)
    assert colours.item() == near(WIDENING * (2 * sigmoid - 1))
    assert slopes[0].item() == near(sigmoid)
    assert slopes[1].tolist() == near([1.0, 2 * WIDENING * above * below])


@pytest.mark.parametrize("empty", ["items", "points", "colours"])
def test_nothing_to_do_gives_nothing(empty):
    sizes = Sizes(**{"batch": 1, empty: 0})
    inputs = moving(draw(sizes))
    raw, colours = triplane_field(*inputs)
    assert raw.shape == (sizes.items, sizes.points)
    assert colours.shape == (sizes.items, sizes.points, sizes.colours)
    slopes = torch.autograd.grad(raw.sum() + colours.sum(), inputs)
    assert [s.shape for s in slopes] == [t.shape for t in inputs]
    if empty == "colours":
        expected = twin(*doubled(inputs))[0]
        assert_near(raw.detach(), expected)
    else:
        assert not any(s.any() for s in slopes)


def test_planes_of_two_items_do_not_serve_points_of_three():
    with pytest.raises(RuntimeError, match="size"):
        triplane_field(*draw(Sizes(batch=2, items=3)))


def test_double_precision_is_the_twin():
    inputs = doubled(draw(SIZES[0]))
    for answer, expected in zip(triplane_field(*inputs), twin(*inputs), strict=True):
        assert answer.dtype == torch.float64
        assert torch.equal(answer, expected)


def test_strides_do_not_matter():
    planes, points, w1, b1, w2, b2 = draw(SIZES[0])
    turned: Any = [planes.permute(0, 3, 4, 1, 2).contiguous().permute(0, 3, 4, 1, 2), points.mT.contiguous().mT]
    turned += [w1.t().contiguous().t(), b1.repeat_interleave(2)[::2], w2.t().contiguous().t()]
    turned += [b2.repeat_interleave(2)[::2]]
    assert not any(t.is_contiguous() for t in turned)
    probe = torch.randn(2, 4, 150)
    slopes = []
    for given in (moving((planes, points, w1, b1, w2, b2)), tuple(t.requires_grad_() for t in turned)):
        raw, colours = triplane_field(*given)
        loss = raw.sum() + (colours.transpose(1, 2) * probe).sum()  # gradients of stride 0, and transposed
        slopes.append(torch.autograd.grad(loss, given))
    exact = answers_and_gradients(twin, doubled(tuple(turned)), (torch.ones(2, 150), probe.mT))
    for name, found, straight, expected in zip(INPUTS, slopes[1], slopes[0], exact[2:], strict=True):
        assert torch.equal(found, straight), name
        assert_near(found, expected, what=name)


def test_without_gradients_the_answers_are_the_same():
    inputs = draw(SIZES[0])
    with_graph = triplane_field(*moving(inputs))
    with torch.inference_mode():
        for answer, expected in zip(triplane_field(*inputs), with_graph, strict=True):
            assert torch.equal(answer, expected)


@pytest.mark.parametrize("batch", [1, 2])
def test_the_operators_keep_to_the_rules_of_torch(batch):
    inputs = draw(Sizes(batch, 2, 3, 2, 3, 2, 3, 2))
    settings = ("fixed", 1.0)
    torch.library.opcheck(torch.ops.parallax.triplane_field, (*moving(inputs), *settings))
    raw, colours = triplane_field(*inputs)
    grads = torch.ones_like(raw), torch.ones_like(colours)
    for wanted in ([True, True], [True, False], [False, True]):
        torch.library.opcheck(torch.ops.parallax.triplane_field_gradient, (*grads, colours, *inputs, *settings, wanted))


def test_the_twin_can_be_forced(monkeypatch: pytest.MonkeyPatch):
    def forbidden():
        raise AssertionError("the library was called")

    inputs = draw(SIZES[0])
    expected = twin(*inputs)
    monkeypatch.setattr(native, "library", forbidden)
    try:
        native.choose("torch")
        for answer, exact in zip(triplane_field(*inputs), expected, strict=True):
            assert torch.equal(answer, exact)
    finally:
        native.choose("auto")
    with pytest.raises(AssertionError, match="was called"):
        triplane_field(*inputs)
