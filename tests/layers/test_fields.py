"""The tri-plane field."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from training.layers.fields import TriplaneField


def test_the_decoder_is_two_layers_with_runtime_gains():
    field = TriplaneField(features=6, hidden=10, colours=4, lr_multiplier=0.1)
    with torch.no_grad():
        for parameter in field.parameters():
            parameter.normal_()
    features = torch.randn(8, 6)
    planes = features[:, None, None, None].expand(8, 1, 1, 3, 6)  # of one texel, all alike: features at the origin
    net: Any = field.net
    first, last = net[0], net[2]
    hidden = F.softplus(features @ first.weight.t() * (0.1 / 6**0.5) + first.bias * 0.1)
    out = hidden @ last.weight.t() * (0.1 / 10**0.5) + last.bias * 0.1
    raw, colours = field(planes, torch.zeros(8, 1, 3))
    torch.testing.assert_close(raw[:, 0], out[:, 0])
    torch.testing.assert_close(colours[:, 0], 1.002 * torch.tanh(out[:, 1:] / 2))


@pytest.mark.parametrize("count", [8, 7])  # a multiple of 16 points in all takes another way in the twin
def test_points_keep_their_order_and_shape(count):
    field = TriplaneField(features=4, hidden=8, colours=3)
    planes, points = torch.randn(2, 6, 6, 3, 4), torch.rand(2, count, 5, 3) - 0.5
    raw, colours = field(planes, points)
    assert raw.shape == (2, count, 5)
    assert colours.shape == (2, count, 5, 3)
    one_raw, one_colour = field(planes[1:], points[1:, 3:4, 2:3])
    torch.testing.assert_close(raw[1, 3, 2], one_raw.squeeze())
    torch.testing.assert_close(colours[1, 3, 2], one_colour.squeeze())


@pytest.mark.parametrize("count", [4, 3])
def test_gradients_to_all_that_decides(count):
    field = TriplaneField(features=2, hidden=3, colours=2).double()
    planes = torch.randn(1, 3, 3, 3, 2, dtype=torch.float64, requires_grad=True)
    points = torch.rand(1, 4 * count, 3, dtype=torch.float64) - 0.5

    def ask(planes, *parameters):
        named = dict(zip(dict(field.named_parameters()), parameters, strict=True))
        return torch.func.functional_call(field, named, (planes, points))

    assert torch.autograd.gradcheck(ask, (planes, *field.parameters()), fast_mode=True)


def test_outside_all_planes_every_point_is_alike():
    field = TriplaneField(features=4, hidden=8, colours=3)
    raw, colours = field(torch.randn(1, 6, 6, 3, 4), torch.full((1, 2, 3), 0.9) * torch.tensor([[[1.0], [-2.0]]]))
    assert raw[0, 0] == raw[0, 1]
    assert torch.equal(colours[0, 0], colours[0, 1])
