"""Resizing: what must stay, and how the filters relate."""

import pytest
import torch

from torch_utils.ops.upfirdn2d import setup_filter
from training.layers.resize import filtered_resizing, resize

F4 = setup_filter([1, 3, 3, 1])


@pytest.mark.parametrize("mode", ["antialiased", "none", "classic", 0.3])
@pytest.mark.parametrize("size", [8, 12, 32])
def test_flat_images_stay_flat(mode, size: int):
    out = filtered_resizing(torch.full((1, 3, 16, 16), 0.4), size, F4, mode)
    assert out.shape == (1, 3, size, size)
    inside = out if mode != "classic" else out[:, :, 3:-3, 3:-3]  # the filter sees zeros beyond the border
    assert torch.allclose(inside, torch.tensor(0.4), atol=1e-6)


def test_a_number_blends_plain_and_antialiased():
    x = torch.randn(1, 2, 16, 16)
    plain, smooth = (filtered_resizing(x, 8, F4, mode) for mode in ("none", "antialiased"))
    assert not torch.allclose(plain, smooth, atol=1e-2)
    assert torch.allclose(filtered_resizing(x, 8, F4, 0.25), 0.75 * plain + 0.25 * smooth, atol=1e-6)


def test_antialiasing_removes_what_the_small_grid_cannot_show():
    checkers = torch.ones(1, 1, 16, 16)
    checkers[:, :, ::2] = -1
    assert resize(checkers, 4)[:, :, 1:-1].abs().max() < 0.1
    assert torch.equal(resize(checkers, 16), checkers)


def test_enlarging_needs_no_antialiasing():
    x = torch.randn(1, 2, 8, 8)
    assert torch.equal(resize(x, 20), resize(x, 20, antialias=False))


def test_resizing_has_second_derivatives():
    x = torch.randn(1, 1, 6, 6, dtype=torch.float64, requires_grad=True)
    f = F4.double()
    for mode in ("antialiased", "none", "classic", 0.5):
        assert torch.autograd.gradgradcheck(lambda x, m=mode: filtered_resizing(x, 4, f, m).square(), (x,))
