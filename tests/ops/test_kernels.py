"""Kernels for GPUs, emulated on the CPU, against their twins: bias_act, upfirdn2d and the tri-plane field."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.ops import test_triplane_field as field_tests
from tests.ops import test_upfirdn2d as upfirdn2d_tests
from tests.ops.compiled import within
from tests.ops.emulated import emulated
from torch_utils.ops import bias_act as bias_act_module
from torch_utils.ops.bias_act import ACTIVATIONS, bias_act
from torch_utils.ops.triplane_field import triplane_field
from torch_utils.ops.upfirdn2d import setup_filter, upfirdn2d

ROUNDING = {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 1e-2}
BINOMIAL = setup_filter([1, 3, 3, 1])


def slopes(op: Any, x: Tensor, *others: Tensor, kernels: bool) -> list[Tensor]:
    """The result, first derivatives, and those of a penalty on the first one of x."""
    inputs = [t.detach().requires_grad_() for t in (x, *others)]
    draws = torch.Generator().manual_seed(3)
    y = op(*inputs)
    probe = torch.randn(y.shape, generator=draws).to(y)
    first = torch.autograd.grad(y, inputs, probe, retain_graph=True)
    again = torch.autograd.grad((y.square() * probe).sum(), inputs, create_graph=True)
    return [y.detach(), *first, *torch.autograd.grad(again[0].square().sum(), inputs)]


def compare(op: Any, bound: float, *inputs: Tensor, kernels: set[str]) -> None:
    with emulated() as emulator:
        found = slopes(op, *inputs, kernels=True)
    assert set(emulator.launched) == kernels
    for one, expected in zip(found, slopes(op, *(t.double() for t in inputs), kernels=False), strict=True):
        within(one, expected, bound)


@pytest.mark.parametrize("options", [{}, {"gain": 0.7, "clamp": 0.45, "alpha": 0.3}])
@pytest.mark.parametrize("act", ACTIVATIONS)
def test_bias_act_has_values_and_two_derivatives_of_its_twin(act, options):
    x, b = torch.randn(2, 5, 27, 11), torch.randn(5)  # more than a block takes, no whole number of them
    kernels = {"bias_act_forward", "bias_act_backward"}
    compare(lambda x, b: bias_act(x, b, act=act, **options), 1e-5, x, b, kernels=kernels)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_bias_act_takes_half_precision(dtype):
    x, b = torch.randn(2, 5, 7, 11).to(dtype), torch.randn(5)
    for act in ("lrelu", "swish"):
        with emulated() as emulator:
            found = bias_act(x, b, act=act, clamp=1.0)
        assert emulator.launched
        assert found.dtype == dtype
        exact = bias_act(x.double(), b.to(dtype).double(), act=act, clamp=1.0)
        assert ((found.double() - exact).abs() <= exact.abs() * ROUNDING[dtype] / 2 + 1e-7).all()


def test_rounding_to_half_precision_is_to_the_nearest_and_ties_are_even():
    bits = torch.arange(0, 2**16, 7, dtype=torch.int32)
    whole = (bits << 16 | 0x8000).view(torch.float32)  # between two numbers of bfloat16
    near = torch.cat([whole, (bits << 16 | 0x7FFF).view(torch.float32), (bits << 16 | 0x8001).view(torch.float32)])
    near = torch.cat([near, torch.tensor([0.0, -0.0, math.inf, -math.inf, math.nan, 65504.0, 65519.0, 65520.0, 1e-8])])
    for dtype in (torch.float16, torch.bfloat16):
        with emulated():  # a filter of one tap is float, and so is all arithmetic
            found = upfirdn2d(near.to(dtype).view(1, 1, 1, -1), None)
            scaled = bias_act(near.to(dtype).view(1, -1), gain=1.5)  # ties
        assert torch.equal(found.flatten().nan_to_num(9.0), near.to(dtype).nan_to_num(9.0))
        expected = (near.to(dtype).float() * 1.5).to(dtype)
        assert torch.equal(scaled.flatten().nan_to_num(9.0), expected.nan_to_num(9.0))


@pytest.mark.parametrize("act", ["linear", "relu", "lrelu"])
def test_bias_act_knows_layouts_and_dimensions(act):
    x = torch.randn(3, 4, 5, 6)
    layouts = [x, x.contiguous(memory_format=torch.channels_last), x.transpose(2, 3), x[:, :, ::2], x[..., :1, :1]]
    with emulated():
        for given in [*layouts, x.flatten(1), x[0, 0, 0], x[..., 0].expand(2, 3, 4, 5), torch.randn(2, 3, 4, 5, 6)]:
            for dim in range(-1, given.ndim):
                b = torch.randn(given.shape[dim])
                found = bias_act(given, b, dim=dim, act=act)
                torch.testing.assert_close(found.double(), bias_act(given.double(), b.double(), dim=dim, act=act))
        assert bias_act(layouts[1]).is_contiguous(memory_format=torch.channels_last)


def test_bias_act_hands_on_what_is_no_number():
    x = torch.tensor([[math.nan, -math.inf, math.inf, -1e4, 1e4, 90.0, -90.0, -0.0]])
    for act in ACTIVATIONS:
        for clamp in (None, 3.0):
            with emulated():
                found = bias_act(x, act=act, clamp=clamp)
            expected = bias_act(x, act=act, clamp=clamp)
            if act == "relu":
                expected[0, 1] = 0  # the twin multiplies by a slope of zero
            torch.testing.assert_close(found, expected, equal_nan=True)


@pytest.mark.parametrize("gain", [-1.0, 0.0])
def test_a_gain_that_hides_signs_is_for_the_twin(gain):
    x = torch.randn(4, 4, requires_grad=True)
    with emulated() as emulator:
        bias_act(x, act="lrelu", gain=gain).sum().backward()
        assert not emulator.launched
        bias_act(x, act="lrelu", alpha=-0.5)
        assert not emulator.launched
        bias_act(x, act="swish", gain=gain).sum().backward()
        assert emulator.launched


def test_a_bias_of_another_size_is_refused_as_by_the_twin():
    with emulated() as emulator, pytest.raises(RuntimeError, match="size"):
        bias_act(torch.zeros(2, 3), torch.zeros(4))
    assert not emulator.launched


@pytest.mark.parametrize("case", upfirdn2d_tests.CASES)
@pytest.mark.parametrize("last", [False, True])
def test_upfirdn2d_has_values_and_two_derivatives_of_its_twin(case, last):
    up, down, padding, flip = case
    x, f = torch.randn(2, 3, 9, 8), torch.randn(3, 2)
    x = x.contiguous(memory_format=torch.channels_last) if last else x

    def op(x: Tensor) -> Tensor:
        return upfirdn2d(x, f, up=up, down=down, padding=padding, flip_filter=flip, gain=1.5)

    compare(op, 3e-6, x, kernels={"upfirdn2d"})
    with emulated():
        assert op(x).is_contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_upfirdn2d_takes_half_precision(dtype):
    x = torch.randn(2, 3, 9, 8).to(dtype)
    with emulated() as emulator:
        found = upfirdn2d(x, BINOMIAL, up=2, padding=(2, 1), gain=4)
    assert emulator.launched
    assert found.dtype == dtype
    within(found, upfirdn2d(x.double(), BINOMIAL.double(), up=2, padding=(2, 1), gain=4), ROUNDING[dtype])


def test_upfirdn2d_takes_separable_filters_and_strange_strides_and_leaves_long_filters_to_the_twin():
    x = torch.randn(2, 4, 12, 10).transpose(2, 3)[:, ::2]
    twelve = setup_filter(range(1, 13))
    with emulated() as emulator:
        found = upfirdn2d(x, twelve, up=(2, 1), padding=6)
        assert emulator.launched == ["upfirdn2d"] * 2
        upfirdn2d(x, torch.ones(9, 9), padding=6)
        assert len(emulator.launched) == 2
        with pytest.raises(ValueError, match="do not fit"):
            upfirdn2d(x, torch.ones(4, 4), padding=-4)
    within(found, upfirdn2d(x.double(), twelve.double(), up=(2, 1), padding=6), 1e-6)


@pytest.mark.parametrize("sizes", field_tests.SIZES, ids=str)
def test_the_field_has_values_and_gradients_of_its_twin(sizes):
    inputs, settings = field_tests.draw(sizes), {"axes": sizes.axes, "box_side": sizes.box_side}
    probes = torch.randn(sizes.items, sizes.points), torch.randn(sizes.items, sizes.points, sizes.colours)
    doubled = field_tests.doubled(inputs)
    exact = field_tests.answers_and_gradients(field_tests.twin, doubled, probes, **settings)
    with emulated() as emulator:
        found = field_tests.answers_and_gradients(triplane_field, inputs, probes, **settings)
    wide = sizes.hidden > 64  # more than a block holds in shared memory
    assert emulator.launched == ([] if wide else ["field_forward", "field_backward"])
    for name, one, expected in zip(("raw", "colour", *field_tests.INPUTS), found, exact, strict=True):
        field_tests.assert_near(one, expected, what=name)


@pytest.mark.parametrize("name", field_tests.INPUTS)
def test_a_gradient_of_the_field_asked_for_alone_is_the_same(name):
    with emulated():
        field_tests.test_a_gradient_asked_for_alone_is_the_same(name)


@pytest.mark.parametrize("test", [
    field_tests.test_a_point_on_a_texel_has_the_slope_of_the_side_that_the_twin_takes,
    field_tests.test_strides_do_not_matter,
])  # fmt: skip
def test_the_field_on_texels_and_with_strides(test):
    with emulated():
        test()


@pytest.mark.parametrize("far", [math.inf, -1e9, 3e38])
def test_far_points_see_zeros(far):
    with emulated():
        field_tests.test_far_points_see_zeros(far)


@pytest.mark.parametrize("axes", ["fixed", "legacy"])
def test_what_is_no_number_gives_what_is_no_number_there_and_nowhere_else(axes):
    with emulated():
        field_tests.test_what_is_no_number_gives_what_is_no_number_there_and_nowhere_else(1, axes)


@pytest.mark.parametrize("value", [-1e4, -88.0, -1e-3, 20.0, 1e4])
def test_layers_stay_exact_for_extreme_numbers(value):
    with emulated():
        field_tests.test_layers_stay_exact_for_extreme_numbers(value)


def test_the_field_can_say_densities_alone():
    planes, points, w1, b1, w2, b2 = field_tests.draw(field_tests.SIZES[0])
    with emulated() as emulator:
        raw, colours = triplane_field(planes, points, w1, b1, w2[:1], b2[:1])
        whole = triplane_field(planes, points, w1, b1, w2, b2)[0]
    assert emulator.launched == ["field_forward"] * 2
    assert colours.shape == (2, 150, 0)
    torch.testing.assert_close(raw, whole)


def test_the_operators_keep_to_the_rules_of_torch():
    x, b, f = torch.randn(2, 3, 4, 5), torch.randn(3), BINOMIAL
    last = x.contiguous(memory_format=torch.channels_last)
    ops = torch.ops.parallax
    with emulated():
        for given in (x, last):
            for act in ("lrelu", "swish"):
                moving = given.clone().requires_grad_(), b.clone().requires_grad_()
                torch.library.opcheck(ops.bias_act, (*moving, 1, act, 0.2, 1.5, 0.8))
            y, grad = bias_act(given, act="lrelu"), torch.randn(2, 3, 4, 5).requires_grad_()
            torch.library.opcheck(ops.bias_act_gradient, (grad, y, None, 1, "lrelu", 0.2, 1.5, None))
            axes = [2, 1, 2, 1, 4], [1, 2, 1, 1, 4]
            torch.library.opcheck(ops.upfirdn2d, (given.clone().requires_grad_(), f, *axes))


def test_results_without_gradients_are_the_same():
    x = torch.randn(2, 3, 4, 5)
    with emulated(), torch.inference_mode():
        y = upfirdn2d(bias_act(x, act="lrelu"), BINOMIAL, padding=1)
    within(y, upfirdn2d(bias_act(x.double(), act="lrelu"), BINOMIAL.double(), padding=1), 1e-6)


def test_the_index_of_an_activation_is_its_place():
    assert bias_act_module.OF_RESULT == ("linear", "relu", "lrelu")  # up to LRELU in bias_act.cu
