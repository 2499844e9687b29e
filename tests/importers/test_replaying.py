"""Gradients that a fixture lists: of a value, or left by backward passes."""

import pytest
import torch
from torch import nn

from dnnlib.errors import CheckpointError
from training.importers.replaying import listed_gradients


@pytest.fixture
def net() -> nn.Module:
    return nn.ModuleDict({"used": nn.Linear(2, 1), "idle": nn.Linear(1, 1)})


LISTED = {name: torch.zeros(1) for name in ("grad/used.weight", "grad/used.bias", "grad/idle.bias", "out/image")}


def test_what_backward_left_is_what_the_value_has(net: nn.Module):
    x = torch.tensor([[2.0, 3.0]])
    of_value = listed_gradients(net["used"](x).sum(), net, LISTED)
    for _ in range(2):
        net["used"](x / 2).sum().backward()
    left = listed_gradients(None, net, LISTED)
    net.zero_grad(set_to_none=False)  # what was read stays
    assert {name: grad.tolist() for name, grad in of_value.items()} == {
        "grad/used.weight": [[2.0, 3.0]], "grad/used.bias": [1.0], "grad/idle.bias": [0.0]
    }  # fmt: skip
    assert left["grad/used.weight"].tolist() == [[2.0, 3.0]]
    assert (left["grad/used.bias"].item(), left["grad/idle.bias"].item()) == (2.0, 0.0)


def test_a_value_without_gradient_and_a_list_without_names(net: nn.Module):
    assert all(grad.eq(0).all() for grad in listed_gradients(torch.ones(()), net, LISTED).values())
    assert listed_gradients(net["used"](torch.ones(1, 2)).sum(), net, {}) == {}


@pytest.mark.parametrize("value", [None, torch.ones(())])
def test_a_gradient_of_no_parameter_is_named(value, net: nn.Module):
    with pytest.raises(CheckpointError, match=r"no parameter here: used\.scale"):
        listed_gradients(value, net, {"grad/used.scale": torch.zeros(1)})
