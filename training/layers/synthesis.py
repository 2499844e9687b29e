"""The synthesis network of StyleGAN2 (Karras et al. 2020) and the layers that its relatives take from it.

Images are [N, C, H, W], style vectors ws [N, num_ws, w_dim]. Noise is "const" (buffers), "random" (drawn by the name of
the layer, per item) or "none". Nothing is remembered between calls.
"""

from collections.abc import Mapping
from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from torch_utils.draws import Draws
from torch_utils.ops.bias_act import ACTIVATIONS, bias_act
from torch_utils.ops.modulated_conv import modulated_conv2d
from torch_utils.ops.upfirdn2d import setup_filter, upsample2d
from training.layers.conv import BINOMIAL, Conv2d, Taps, split_gain, working
from training.layers.linear import FullyConnected

Noise = Literal["const", "random", "none"]
Architecture = Literal["orig", "skip", "resnet"]


def channels_at(resolution: int, channel_base: int, channel_max: int) -> int:
    """The width of StyleGAN2's networks at a resolution."""
    return min(channel_base // resolution, channel_max)


class SynthesisLayer(nn.Module):
    """act(modulated convolution + noise + bias): a style, a convolution, perhaps upsampling."""

    noise_const: Tensor
    resample_filter: Tensor | None

    def __init__(
        self, in_channels: int, out_channels: int, *, w_dim: int, resolution: int, kernel_size: int = 3, up: int = 1,
        use_noise: bool = True, activation: str = "lrelu", resample_filter: Taps = BINOMIAL,
        conv_clamp: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.resolution, self.up, self.use_noise, self.activation = resolution, up, use_noise, activation
        self.conv_clamp, self.padding = conv_clamp, kernel_size // 2
        self.act_gain = ACTIVATIONS[activation].gain
        self.affine = FullyConnected(w_dim, in_channels, bias_init=1)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        if use_noise:
            self.register_buffer("noise_const", torch.randn(resolution, resolution))
            self.noise_strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("resample_filter", setup_filter(resample_filter) if up > 1 else None, persistent=False)

    def forward(
        self, x: Float[Tensor, "N I H W"], w: Float[Tensor, "N w_dim"], noise: Noise = "const",
        draws: Draws | None = None, gain: float = 1.0,
    ) -> Float[Tensor, "N O h w"]:  # fmt: skip
        before, after = split_gain(self.activation, self.act_gain * gain)
        x = modulated_conv2d(
            x, self.weight, self.affine(w), self.bias * before, noise=self._noise(noise, draws, before), up=self.up,
            padding=self.padding, f=self.resample_filter, flip_weight=self.up == 1, gain=before,
        )  # fmt: skip
        clamp = None if self.conv_clamp is None else self.conv_clamp * gain
        return bias_act(x, act=self.activation, gain=after, clamp=clamp, inplace=True)

    def _noise(self, noise: Noise, draws: Draws | None, gain: float) -> Tensor | None:
        if not self.use_noise or noise == "none":
            return None
        if noise == "const":
            return self.noise_const[None, None] * (self.noise_strength * gain)
        if draws is None:
            raise ValueError('noise "random" needs draws')
        drawn = draws.normal("noise", (1, self.resolution, self.resolution))
        return drawn.to(self.noise_const) * (self.noise_strength * gain)


class ToRGB(nn.Module):
    """Features to an image: a modulated 1x1 convolution without demodulation."""

    def __init__(
        self, in_channels: int, img_channels: int, *, w_dim: int, kernel_size: int = 1, conv_clamp: float | None = None
    ) -> None:
        super().__init__()
        self.conv_clamp, self.padding = conv_clamp, kernel_size // 2
        self.weight_gain = 1 / (in_channels * kernel_size**2) ** 0.5
        self.affine = FullyConnected(w_dim, in_channels, bias_init=1)
        self.weight = nn.Parameter(torch.randn(img_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(img_channels))

    def forward(self, x: Float[Tensor, "N I H W"], w: Float[Tensor, "N w_dim"]) -> Float[Tensor, "N C H W"]:
        styles = self.affine(w) * self.weight_gain
        x = modulated_conv2d(x, self.weight, styles, self.bias, padding=self.padding, demodulate=False)
        return bias_act(x, clamp=self.conv_clamp, inplace=True)


class SynthesisBlock(nn.Module):
    """The layers of one resolution.

    in_channels = 0 starts from a learned constant and has one convolution. Otherwise conv0 brings the features to
    `resolution`, and the image that comes in is enlarged as much: up = 2 doubles both, up = 1 (super-resolution's
    block without upsampling) leaves them as they are. "skip" adds an image at every block, "orig" and "resnet" only at
    the last; "resnet" adds a shortcut. The first convolution and the image are filtered by resample_filter.
    num_conv and num_torgb say how many style vectors it takes, in that order.
    """

    resample_filter: Tensor | None

    def __init__(
        self, in_channels: int, out_channels: int, *, w_dim: int, resolution: int, img_channels: int,
        is_last: bool = False, architecture: Architecture = "skip", up: int = 2, resample_filter: Taps = BINOMIAL,
        conv_clamp: float | None = None, use_noise: bool = True, activation: str = "lrelu",
        half_dtype: torch.dtype | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.resolution, self.up, self.architecture = resolution, up if in_channels else 1, architecture
        self.half_dtype = half_dtype  # precision of the convolutions on a GPU; None keeps that of the weights
        layer = {
            "w_dim": w_dim, "resolution": resolution, "use_noise": use_noise, "activation": activation,
            "conv_clamp": conv_clamp,
        }  # fmt: skip
        if in_channels == 0:
            self.const = nn.Parameter(torch.randn(out_channels, resolution, resolution))
        else:
            filtered = {"up": up, "resample_filter": resample_filter}
            self.conv0 = SynthesisLayer(in_channels, out_channels, **layer, **filtered)
        self.conv1 = SynthesisLayer(out_channels, out_channels, **layer)
        self.num_conv = 1 if in_channels == 0 else 2
        self.num_torgb = 1 if is_last or architecture == "skip" else 0
        if self.num_torgb:
            self.torgb = ToRGB(out_channels, img_channels, w_dim=w_dim, conv_clamp=conv_clamp)
        if in_channels and architecture == "resnet":
            self.skip = Conv2d(in_channels, out_channels, 1, bias=False, up=up, resample_filter=resample_filter)
        taps = setup_filter(resample_filter) if self.up > 1 else None
        self.register_buffer("resample_filter", taps, persistent=False)

    def forward(
        self, x: Float[Tensor, "N I h w"] | None, img: Float[Tensor, "N C h w"] | None,
        ws: Float[Tensor, "N rows w_dim"], noise: Noise = "const", draws: Draws | None = None,
    ) -> tuple[Float[Tensor, "N O H W"], Float[Tensor, "N C H W"] | None]:  # fmt: skip
        """Features and image of this resolution. The first block takes no features, the first image is None.

        draws name the noise "conv0/noise", "conv1/noise" within their scope.
        """
        styles = iter(ws.unbind(dim=1))
        x = self.const.expand(ws.shape[0], *self.const.shape) if x is None else x
        features = working(x, self.conv1.weight, self.half_dtype)
        shortcut = self.skip(features, gain=0.5**0.5) if hasattr(self, "skip") else None
        if hasattr(self, "conv0"):
            features = self.conv0(features, next(styles), noise, draws and draws.within("conv0"))
        gain = 1.0 if shortcut is None else 0.5**0.5
        features = self.conv1(features, next(styles), noise, draws and draws.within("conv1"), gain=gain)
        features = features if shortcut is None else features + shortcut
        if img is not None and self.up > 1:
            img = upsample2d(img, self.resample_filter, up=self.up)
        if self.num_torgb:
            rgb = self.torgb(features, next(styles)).to(ws.dtype)
            if img is None:
                img = rgb
            else:  # an image that was just enlarged is ours
                img = img.add_(rgb) if self.up > 1 else img + rgb
        return features, img


class SynthesisNetwork(nn.Module):
    """Style vectors to an image [N, img_channels, img_resolution, img_resolution], without a final activation.

    Blocks b4, b8 ... double from 4 px. `channels` gives their widths one by one and wins over channel_base and
    channel_max. A block takes num_conv + num_torgb style vectors; its image's is the next one's first (num_ws).
    num_half_res blocks of highest resolution run in half precision on a GPU (then give a conv_clamp: 256 in the paper).
    """

    def __init__(
        self, *, w_dim: int, img_resolution: int, img_channels: int, channel_base: int = 32768, channel_max: int = 512,
        channels: Mapping[int, int] | None = None, architecture: Architecture = "skip",
        resample_filter: Taps = BINOMIAL, conv_clamp: float | None = None, use_noise: bool = True,
        activation: str = "lrelu", num_half_res: int = 0, half_dtype: Literal["float16", "bfloat16"] = "float16",
    ) -> None:  # fmt: skip
        super().__init__()
        if img_resolution < 4 or img_resolution & (img_resolution - 1):
            raise ValueError(f"img_resolution={img_resolution} is not 4 px doubled some times: 4, 8, 16 ...")
        self.w_dim, self.img_resolution, self.img_channels = w_dim, img_resolution, img_channels
        self.resolutions = [2**k for k in range(2, img_resolution.bit_length())]
        widths = channels or {r: channels_at(r, channel_base, channel_max) for r in self.resolutions}
        self.num_ws = 0
        for resolution in self.resolutions:
            halved = num_half_res and resolution >= max(2 * img_resolution >> num_half_res, 8)
            block = SynthesisBlock(
                widths[resolution // 2] if resolution > 4 else 0, widths[resolution], w_dim=w_dim,
                resolution=resolution, img_channels=img_channels, is_last=resolution == img_resolution,
                architecture=architecture, resample_filter=resample_filter, conv_clamp=conv_clamp,
                use_noise=use_noise, activation=activation, half_dtype=getattr(torch, half_dtype) if halved else None,
            )  # fmt: skip
            self.add_module(f"b{resolution}", block)
            self.num_ws += block.num_conv + (block.num_torgb if resolution == img_resolution else 0)

    def forward(
        self, ws: Float[Tensor, "N num_ws w_dim"], noise: Noise = "const", draws: Draws | None = None
    ) -> Float[Tensor, "N C H W"]:
        """The image. Random noise of a layer is drawn as "b8/conv0/noise"."""
        if ws.shape[1:] != (self.num_ws, self.w_dim):
            raise ValueError(f"ws must be [N, {self.num_ws}, {self.w_dim}], not {list(ws.shape)}")
        x, img, first = None, None, 0
        for resolution in self.resolutions:
            block = cast(SynthesisBlock, self.get_submodule(f"b{resolution}"))
            mine = ws[:, first : first + block.num_conv + block.num_torgb]
            x, img = block(x, img, mine, noise, draws and draws.within(f"b{resolution}"))
            first += block.num_conv
        assert img is not None  # the last block makes one
        return img
