"""conv2d_resample and modulated_conv2d against their definitions."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck

from torch_utils.ops.conv2d_resample import conv2d_resample, pointwise_conv2d
from torch_utils.ops.modulated_conv import modulated_conv2d
from torch_utils.ops.upfirdn2d import setup_filter, upfirdn2d

BINOMIAL = setup_filter([1, 3, 3, 1]).double()
SKEWED = setup_filter([1, 2, 4]).double()


def by_definition(x, w, f, up, down, padding, groups, flip_weight):
    """Upsample by f, convolve, downsample by f, all at the full resolution."""
    before = after = padding
    if up > 1:
        before, after = before + (len(f) + up - 1) // 2, after + (len(f) - up) // 2
    if down > 1:
        before, after = before + (len(f) - down + 1) // 2, after + (len(f) - down) // 2
    x = upfirdn2d(x, f if up > 1 else None, up=up, padding=(before, after, before, after), gain=up**2)
    x = F.conv2d(x, w if flip_weight else w.flip([2, 3]), groups=groups)
    return upfirdn2d(x, f, down=down) if down > 1 else x


@pytest.mark.parametrize("shape", [(3, 4, 8, 8), (3, 4, 5, 5), (1, 4, 16, 1), (17, 4, 4, 4)])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_a_1x1_convolution_mixes_channels_pixel_by_pixel(shape, layout):
    x = torch.randn(shape, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    w, b = torch.randn(6, 4, 1, 1).double().requires_grad_(), torch.randn(6).double().requires_grad_()
    want = torch.einsum("nihw,oi->nohw", x, w[:, :, 0, 0]) + b[:, None, None]
    got = pointwise_conv2d(x, w, b)
    assert got.is_contiguous(memory_format=layout)
    assert torch.allclose(got, want, atol=1e-12)
    slopes = [torch.autograd.grad(y.square().sum(), (x, w, b), create_graph=True) for y in (got, want)]
    for one, other in zip(*slopes, strict=True):
        assert torch.allclose(one, other, atol=1e-10)
    bends = [torch.autograd.grad(slope.square().sum(), w)[0] for slope, *_ in slopes]
    assert torch.allclose(*bends, rtol=1e-10)


@pytest.mark.parametrize("f", [BINOMIAL, SKEWED])
@pytest.mark.parametrize("flip_weight", [True, False])
@pytest.mark.parametrize(
    ("kernel", "up", "down", "padding", "groups"),
    [(3, 1, 1, 1, 1), (3, 2, 1, 1, 1), (3, 1, 2, 1, 1), (1, 2, 1, 0, 1), (1, 1, 2, 0, 1), (3, 2, 1, 1, 2),
     (3, 2, 2, 1, 1), (5, 2, 1, 2, 1), (3, 4, 1, 1, 1), (2, 2, 1, 3, 1), (3, 1, 1, 0, 2), (2, 3, 2, 2, 1)],
)  # fmt: skip
def test_resampling_convolutions_follow_their_definition(f, flip_weight, kernel, up, down, padding, groups):
    x, w = torch.randn(2, 4, 8, 7, dtype=torch.float64), torch.randn(6, 4 // groups, kernel, kernel).double()
    b = torch.randn(6).double() if down == 1 else None
    options = {"up": up, "down": down, "padding": padding, "groups": groups, "flip_weight": flip_weight}
    want = by_definition(x, w, f, **options) + (0 if b is None else b[:, None, None])
    assert torch.allclose(conv2d_resample(x, w, f, b, **options), want, atol=1e-12)


def test_derivatives_of_an_upsampling_convolution():
    x = torch.randn(1, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    w = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)

    def op(x, w):
        return conv2d_resample(x, w, BINOMIAL, up=2, padding=1, flip_weight=False)

    assert gradcheck(op, (x, w))
    assert gradgradcheck(op, (x, w), atol=1e-4)


def modulated_by_definition(x, weight, styles, demodulate, up):
    images = []
    for image, style in zip(x, styles, strict=True):
        w = weight * style[:, None, None]
        if demodulate:
            w = w / (w.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()
        images.append(conv2d_resample(image[None], w, BINOMIAL, up=up, padding=1, flip_weight=up == 1))
    return torch.cat(images)


@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize("up", [1, 2])
def test_modulation_scales_the_weights_item_by_item(demodulate: bool, up: int):
    x, styles = torch.randn(3, 4, 5, 5, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    weight, b = torch.randn(6, 4, 3, 3, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    noise = torch.randn(3, 1, 5 * up, 5 * up, dtype=torch.float64)
    options = {"up": up, "padding": 1, "f": BINOMIAL, "demodulate": demodulate, "flip_weight": up == 1}
    y = modulated_conv2d(x, weight, styles, b, noise=noise, gain=1.7, **options)
    want = 1.7 * modulated_by_definition(x, weight, styles, demodulate, up) + b[:, None, None] + noise
    assert torch.allclose(y, want, atol=1e-10)


def test_demodulation_keeps_the_variance_whatever_the_styles():
    x, styles = torch.randn(4, 64, 16, 16), torch.rand(4, 64) * 20 + 0.1
    y = modulated_conv2d(x, torch.randn(32, 64, 3, 3) * 5, styles)
    assert torch.allclose(y.var(dim=(1, 2, 3)), torch.ones(4), atol=0.05)


def test_derivatives_of_a_modulated_convolution():
    x = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 2, 1, 1, dtype=torch.float64, requires_grad=True)
    styles = torch.rand(2, 2, dtype=torch.float64).add(0.5).requires_grad_()
    b, noise = torch.randn(2).double().requires_grad_(), torch.randn(1, 1, 3, 3).double().requires_grad_()

    def op(x, weight, styles, b, noise):
        return modulated_conv2d(x, weight, styles, b, noise=noise)

    assert gradcheck(op, (x, weight, styles, b, noise))
    assert gradgradcheck(op, (x, weight, styles, b, noise))


def test_half_precision_does_not_overflow():
    x, styles = torch.full((1, 8, 4, 4), 100.0).half(), torch.full((1, 8), 300.0)
    y = modulated_conv2d(x, torch.full((4, 8, 3, 3), 50.0), styles, padding=1)
    assert y.isfinite().all()
    assert y[0, 0, 1, 1].item() == pytest.approx(100 * 72**0.5, rel=1e-2)
