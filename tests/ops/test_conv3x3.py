"""The minimal filtering of 3x3 convolutions against torch's, and its derivatives."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ops.compiled import threads, within
from torch_utils.ops import conv2d_resample, native
from torch_utils.ops.conv3x3 import conv3x3, conv3x3_fits

pytestmark = pytest.mark.skipif(native.why_not() is not None, reason=f"no compiled operators: {native.why_not()}")
SHAPES = {  # images, inputs, outputs, height, width, padding
    "a square": (2, 16, 32, 8, 8, 1),
    "odd sides": (3, 32, 16, 7, 5, 1),
    "no padding": (1, 16, 16, 6, 9, 0),
    "more padding": (2, 16, 48, 4, 4, 2),
    "one result": (1, 16, 16, 3, 3, 0),
    "one pixel": (5, 16, 16, 1, 1, 1),
    "one row": (1, 48, 16, 1, 11, 1),
    "many groups of tiles": (3, 16, 80, 21, 23, 1),
    "many channels": (1, 208, 144, 6, 6, 1),
}


def numbers(images, inputs, outputs, height, width, padding):
    """x, w, b and a gradient, and the padding."""
    generator = torch.Generator().manual_seed(inputs + outputs + height)
    x = torch.randn(images, inputs, height, width, generator=generator)
    w = torch.randn(outputs, inputs, 3, 3, generator=generator) / (9 * inputs) ** 0.5
    b = torch.randn(outputs, generator=generator)
    grad = torch.randn(images, outputs, height + 2 * padding - 2, width + 2 * padding - 2, generator=generator)
    return x, w, b, grad, padding


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("count", [1, 3])
def test_values_and_gradients_are_those_of_torch_in_double_precision(shape, count):
    x, w, b, grad, padding = numbers(*shape)
    mine = [t.clone().requires_grad_() for t in (x, w, b)]
    exact = [t.double().requires_grad_() for t in (x, w, b)]
    with threads(count):
        y = conv3x3(*mine, padding)
        found = torch.autograd.grad(y, mine, grad)
    expected = F.conv2d(*exact, padding=padding)
    wanted = torch.autograd.grad(expected, exact, grad.double())
    within(y, expected, 1e-6)
    for got, want in zip(found, wanted, strict=True):
        within(got, want, 3e-6)


def test_the_layout_in_memory_does_not_matter():
    x, w, b, _, padding = numbers(2, 32, 16, 6, 10, 1)
    expected = conv3x3(x, w, b, padding)
    assert expected.is_contiguous(memory_format=torch.channels_last)
    turned = x.permute(3, 0, 1, 2).contiguous().permute(1, 2, 3, 0)
    strided = torch.stack([w, w], dim=-1)[..., 0]
    assert torch.equal(conv3x3(turned, strided, torch.stack([b, b], 1)[:, 0], padding), expected)


@pytest.mark.parametrize("count", [1, 2])
def test_the_same_threads_give_the_same_bits(count):
    x, w, b, grad, padding = numbers(4, 32, 32, 16, 16, 1)
    runs = []
    with threads(count):
        for _ in range(2):
            leaves = [t.clone().requires_grad_() for t in (x, w, b)]
            y = conv3x3(*leaves, padding)
            runs.append([y, *torch.autograd.grad(y, leaves, grad)])
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def test_second_derivatives_are_those_of_torch():
    """A gradient penalty such as R1, by its gradient for the weights and the image."""
    x, w, b, _, padding = numbers(2, 16, 16, 5, 6, 1)

    def penalty(convolve, dtype):
        image, weight = x.to(dtype).requires_grad_(), w.to(dtype).requires_grad_()
        y = convolve(image, weight, b.to(dtype)).square().mean(dim=(1, 2, 3)).sin().sum()
        (slope,) = torch.autograd.grad(y, image, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), (image, weight))

    found = penalty(lambda *a: conv3x3(*a, padding), torch.float32)
    for got, want in zip(found, penalty(lambda *a: F.conv2d(*a, padding=padding), torch.float64), strict=True):
        within(got, want, 1e-5)


def test_what_is_no_number_stays_in_its_neighbourhood():
    x, w, b, _, _ = numbers(2, 16, 16, 9, 9, 1)
    clean = conv3x3(x, w, b)
    x[1, 3, 4, 4] = torch.nan
    spoilt = conv3x3(x, w, b)
    assert spoilt[1, :, 4, 4].isnan().all()
    assert torch.equal(spoilt[0], clean[0])
    far = torch.ones(9, 9, dtype=torch.bool)
    far[3:6, 3:6] = False
    assert torch.equal(spoilt[1][:, far], clean[1][:, far])


@given(
    inputs=st.sampled_from([15, 16, 32]), outputs=st.sampled_from([3, 16]), side=st.sampled_from([1, 2, 5, 23, 24]),
    padding=st.integers(0, 3), stride=st.sampled_from([1, 2]), kernel=st.sampled_from([1, 3]), flip=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_convolutions_of_every_kind_find_their_way(inputs, outputs, side, padding, stride, kernel, flip, dtype):
    if side + 2 * padding < kernel:
        return
    generator = torch.Generator().manual_seed(side)
    x = torch.randn(1, inputs, side, side, generator=generator, dtype=dtype)
    w = torch.randn(outputs, inputs, kernel, kernel, generator=generator, dtype=dtype)
    pads = (padding, padding)
    found = conv2d_resample._conv(x, w, stride=stride, padding=pads, groups=1, flip_weight=flip)
    flipped = w if flip or kernel == 1 else w.flip([2, 3])
    within(found, F.conv2d(x.double(), flipped.double(), stride=stride, padding=padding), 2e-6)


def test_it_serves_the_networks_where_it_can(monkeypatch):
    x, w, _, _, _ = numbers(2, 16, 16, 16, 16, 1)
    assert conv3x3_fits(x, w, None, 1, (1, 1), 1)
    assert not conv3x3_fits(x[:, :, :4], w, None, 1, (1, 1), 1)
    assert not conv3x3_fits(x.double(), w.double(), None, 1, (1, 1), 1)
    assert not conv3x3_fits(x, w, None, 2, (1, 1), 1)
    assert not conv3x3_fits(x, w[:, :8], None, 1, (1, 1), 2)
    assert not conv3x3_fits(x.to("meta"), w.to("meta"), None, 1, (1, 1), 1)
    monkeypatch.setattr(native, "_choice", "torch")
    assert not conv3x3_fits(x, w, None, 1, (1, 1), 1)


@pytest.mark.parametrize("wrong", ["channels", "bias", "kind of bias", "axes"])
def test_what_torch_refuses_is_refused(wrong):
    x, w, b, _, _ = numbers(2, 16, 16, 32, 32, 1)
    x = x[:, :8] if wrong == "channels" else x[None] if wrong == "axes" else x
    b = b[:1] if wrong == "bias" else b.double() if wrong == "kind of bias" else b
    with pytest.raises(RuntimeError):
        conv2d_resample._conv(x, w, b, padding=(1, 1), flip_weight=True)


def test_the_default_precision_of_torch_does_not_matter():
    x, w, b, _, padding = numbers(1, 16, 16, 8, 8, 1)
    expected = conv3x3(x, w, b, padding)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(conv3x3(x, w, b, padding), expected)
    finally:
        torch.set_default_dtype(torch.float32)


def test_the_operators_are_sound():
    x, w, b, grad, padding = numbers(1, 16, 16, 4, 4, 1)
    leaves = [t.requires_grad_() for t in (x, w, b)]
    torch.library.opcheck(torch.ops.parallax.conv3x3.default, (*leaves, padding))
    torch.library.opcheck(torch.ops.parallax.conv3x3_weights.default, (x, grad.requires_grad_(), padding))
