"""bias_act against its formula and its own derivatives."""

import math

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from torch_utils.ops.bias_act import ACTIVATIONS, bias_act

X = torch.tensor([[-2.0, -0.5, 0.25, 3.0], [1.0, -1.0, 0.5, -0.125]], dtype=torch.float64)
B = torch.tensor([0.1, -0.2, 0.3, -0.4], dtype=torch.float64)


@pytest.mark.parametrize(
    ("act", "x", "y"),
    [
        ("linear", -3.0, -3.0),
        ("relu", -3.0, 0.0),
        ("relu", 2.0, 2.0 * math.sqrt(2)),
        ("lrelu", -3.0, -0.6 * math.sqrt(2)),
        ("tanh", 0.5, math.tanh(0.5)),
        ("sigmoid", 1.0, 1 / (1 + math.exp(-1))),
        ("elu", -1.0, math.exp(-1) - 1),
        ("selu", 1.0, 1.0507009873554805),
        ("softplus", 2.0, math.log1p(math.exp(2))),
        ("softplus", 100.0, 100.0),
        ("swish", 1.0, math.sqrt(2) / (1 + math.exp(-1))),
    ],
)
def test_activations_have_their_textbook_values_and_gains(act: str, x: float, y: float):
    assert bias_act(torch.tensor([[x]], dtype=torch.float64), act=act).item() == pytest.approx(y, abs=1e-12)


@pytest.mark.parametrize("act", ACTIVATIONS)
@pytest.mark.parametrize("options", [{}, {"gain": 0.7, "clamp": 0.45}])
def test_first_and_second_derivatives(act: str, options: dict):
    inputs = (X.clone().requires_grad_(), B.clone().requires_grad_())
    assert gradcheck(lambda x, b: bias_act(x, b, act=act, **options), inputs)
    assert gradgradcheck(lambda x, b: bias_act(x, b, act=act, **options), inputs)


def test_the_gradient_vanishes_where_the_clamp_acts():
    x = torch.tensor([[-5.0, -0.1, 0.1, 5.0]], requires_grad=True)
    y = bias_act(x, act="lrelu", gain=1.0, clamp=0.5)
    assert torch.allclose(y, torch.tensor([[-0.5, -0.02, 0.1, 0.5]]))
    y.sum().backward()
    assert torch.allclose(x.grad, torch.tensor([[0.0, 0.2, 1.0, 0.0]]))


def test_the_bias_lies_along_its_dimension():
    x = torch.zeros(2, 3, 4, 5)
    for dim in range(-1, 4):
        b = torch.arange(float(x.shape[dim]))
        y = bias_act(x, b, dim=dim)
        assert torch.equal(y.movedim(dim, -1), b.expand(y.movedim(dim, -1).shape))


def test_a_negative_gain_or_slope_is_not_mistaken_for_a_kink():
    x = torch.tensor([[-2.0, 2.0]], requires_grad=True)
    assert torch.allclose(bias_act(x, act="lrelu", gain=-1.0), torch.tensor([[0.4, -2.0]]))
    y = bias_act(x, act="lrelu", alpha=-0.5, gain=1.0)
    assert torch.allclose(y, torch.tensor([[1.0, 2.0]]))
    y.sum().backward()
    assert torch.allclose(x.grad, torch.tensor([[-0.5, 1.0]]))


@pytest.mark.parametrize("clamp", [None, 0.5])
@pytest.mark.parametrize("act", ["linear", "relu", "lrelu"])
def test_in_place_gives_the_same_values_and_gradients(act: str, clamp: float | None):
    def run(inplace: bool):
        x = X.clone().requires_grad_()
        y = bias_act(x * 1.5, act=act, gain=1.0, clamp=clamp, inplace=inplace)
        (slope,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        return (y, slope, *torch.autograd.grad(slope.square().sum(), x))

    for a, b in zip(run(False), run(True), strict=True):
        assert torch.equal(a, b)


def test_without_permission_the_input_stays_as_it_is():
    x = X.clone()
    bias_act(x, act="lrelu", gain=1.0, clamp=0.1)
    assert torch.equal(x, X)


def test_an_unknown_activation_is_named():
    with pytest.raises(ValueError, match="gelu"):
        bias_act(X, act="gelu")
