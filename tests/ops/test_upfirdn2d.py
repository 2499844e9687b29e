"""upfirdn2d against its definition, its closed forms and its own derivatives."""

import itertools

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from torch_utils.ops.upfirdn2d import downsample2d, filter2d, setup_filter, upfirdn2d, upsample2d

BINOMIAL = setup_filter([1, 3, 3, 1]).double()


def by_definition(x, f, up, down, padding, flip):
    """Pixel by pixel: stuff zeros, pad or crop, convolve, keep every down-th."""
    (ux, uy), (dx, dy), (x0, x1, y0, y1) = up, down, padding
    n, c, h, w = x.shape
    stuffed = x.new_zeros(n, c, h * uy, w * ux)
    stuffed[:, :, ::uy, ::ux] = x
    margin = 16
    wide = torch.nn.functional.pad(stuffed, [margin] * 4)
    wide = wide[:, :, margin - y0 : margin + h * uy + y1, margin - x0 : margin + w * ux + x1]
    k = f if flip else f.flip([0, 1])
    rows, columns = wide.shape[2] - f.shape[0] + 1, wide.shape[3] - f.shape[1] + 1
    out = x.new_zeros(n, c, rows, columns)
    for i, j in itertools.product(range(rows), range(columns)):
        out[:, :, i, j] = (wide[:, :, i : i + f.shape[0], j : j + f.shape[1]] * k).sum(dim=(2, 3))
    return out[:, :, ::dy, ::dx]


CASES = [
    ((1, 1), (1, 1), (0, 0, 0, 0), False),
    ((1, 1), (2, 2), (1, 1, 1, 1), False),
    ((2, 2), (1, 1), (2, 1, 2, 1), False),
    ((2, 2), (1, 1), (5, 4, 0, 3), True),
    ((2, 1), (1, 3), (1, 2, 2, 0), False),
    ((3, 2), (2, 3), (-1, 4, 3, -2), True),
    ((1, 1), (1, 1), (-1, 3, 2, -1), False),
    ((1, 1), (2, 1), (3, 0, -1, 2), False),
]


@pytest.mark.parametrize(("up", "down", "padding", "flip"), CASES)
def test_it_follows_its_definition(up, down, padding, flip):
    x, f = torch.randn(2, 3, 6, 7, dtype=torch.float64), torch.randn(3, 2, dtype=torch.float64)
    y = upfirdn2d(x, f, up=up, down=down, padding=padding, flip_filter=flip, gain=1.5)
    assert torch.allclose(y, 1.5 * by_definition(x, f, up, down, padding, flip), atol=1e-12)


@pytest.mark.parametrize(("up", "down", "padding", "flip"), CASES)
def test_first_and_second_derivatives(up, down, padding, flip):
    x, f = torch.randn(1, 2, 5, 4, dtype=torch.float64, requires_grad=True), torch.randn(3, 3, dtype=torch.float64)

    def op(x):
        return upfirdn2d(x, f, up=up, down=down, padding=padding, flip_filter=flip)

    assert gradcheck(op, (x,))
    assert gradgradcheck(lambda x: op(x).square(), (x,))


def test_a_separable_filter_equals_its_outer_product():
    x, row = torch.randn(2, 3, 9, 9, dtype=torch.float64), torch.rand(8, dtype=torch.float64)
    options = {"up": (2, 1), "down": (1, 2), "padding": (4, 3, 5, 2), "gain": 3.0}
    assert torch.allclose(upfirdn2d(x, row, **options), upfirdn2d(x, torch.outer(row, row), **options), atol=1e-12)


def test_without_filter_it_stuffs_zeros_and_picks():
    x = torch.arange(6.0).reshape(1, 1, 2, 3)
    y = upfirdn2d(x, None, up=2)
    assert torch.equal(y[:, :, ::2, ::2], x)
    assert y.sum() == x.sum()
    assert torch.equal(upfirdn2d(y, None, down=2), x)


@pytest.mark.parametrize("taps", [[1, 3, 3, 1], [1, 2, 1], [1, 2, 3, 4, 5, 4, 3, 2, 1]])
def test_brightness_survives_resampling(taps):
    f, flat = setup_filter(taps).double(), torch.full((1, 2, 24, 24), 0.7, dtype=torch.float64)
    inside = (slice(None), slice(None), slice(8, -8), slice(8, -8))
    assert torch.allclose(upsample2d(flat, f)[inside].mean(), torch.tensor(0.7).double(), atol=1e-7)
    assert torch.allclose(filter2d(flat, f)[inside], torch.tensor(0.7).double(), atol=1e-7)
    middle = downsample2d(flat, f)[:, :, 4:-4, 4:-4]
    assert torch.allclose(middle, torch.tensor(0.7).double(), atol=1e-7)


def test_images_stay_in_place():
    """A ramp in pixel centres stays that ramp: doubled it has values at quarter pixels, halved at pixel corners."""
    ramp = torch.arange(16.0, dtype=torch.float64).expand(1, 1, 16, 16)
    twice = upsample2d(ramp, BINOMIAL)[0, 0, 8, 4:-4]
    assert torch.allclose(twice, (torch.arange(32.0).double() / 2 - 0.25)[4:-4], atol=1e-6)
    half = downsample2d(ramp, BINOMIAL)[0, 0, 4, 2:-2]
    assert torch.allclose(half, (torch.arange(8.0).double() * 2 + 0.5)[2:-2], atol=1e-6)


def test_a_convolution_spreads_a_point_into_the_filter_and_a_correlation_into_its_mirror():
    f = torch.tensor([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0], [64.0, 128.0, 256.0]])
    point = torch.zeros(1, 1, 5, 5)
    point[0, 0, 2, 2] = 1
    assert torch.equal(filter2d(point, f)[0, 0, 1:4, 1:4], f)
    assert torch.equal(filter2d(point, f, flip_filter=True)[0, 0, 1:4, 1:4], f.flip([0, 1]))


def test_setup_filter_normalises_flips_and_scales():
    assert setup_filter(None).tolist() == [[1.0]]
    assert setup_filter([1, 3, 3, 1]).sum().item() == pytest.approx(1.0)
    assert setup_filter([1, 3, 3, 1], gain=4).sum().item() == pytest.approx(4.0)
    assert setup_filter([1, 2], normalize=False, flip_filter=True).tolist() == [[4.0, 2.0], [2.0, 1.0]]
    long = setup_filter(list(range(1, 9)), gain=9)
    assert long.shape == (8,)
    assert long.sum().item() == pytest.approx(3.0)
    assert setup_filter(list(range(1, 9)), separable=False).shape == (8, 8)
    assert setup_filter([1, 1], separable=True).tolist() == [0.5, 0.5]
    with pytest.raises(ValueError, match="axes"):
        setup_filter([[[1.0]]])


def test_a_filter_that_does_not_fit_is_an_error():
    with pytest.raises(ValueError, match="4 taps do not fit into 3"):
        upfirdn2d(torch.zeros(1, 1, 3, 8), BINOMIAL.float())
    with pytest.raises(ValueError, match="positive"):
        upfirdn2d(torch.zeros(1, 1, 8, 8), None, up=0)


def test_channels_last_images_stay_so():
    x = torch.randn(2, 4, 8, 8).contiguous(memory_format=torch.channels_last)
    for y in (upsample2d(x, BINOMIAL), downsample2d(x, BINOMIAL), filter2d(x, BINOMIAL)):
        assert y.is_contiguous(memory_format=torch.channels_last)
