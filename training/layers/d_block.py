"""The discriminator's layers: blocks that halve the resolution, and the head on 4x4 pixels (Karras et al. 2020).

Everything that judges or encodes images with a StyleGAN2 trunk is made of these.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from torch_utils.ops.upfirdn2d import downsample2d, setup_filter
from training.layers.conv import BINOMIAL, Conv2d, Taps, working
from training.layers.linear import FullyConnected
from training.layers.minibatch_std import MinibatchStd

Architecture = Literal["orig", "skip", "resnet"]


class DiscriminatorBlock(nn.Module):
    """Two convolutions that bring [N, in_channels, R, R] to [N, out_channels, R/2, R/2].

    in_channels = 0 reads the image; "skip" does so at every block, "resnet" adds a shortcut. The first `frozen` of its
    num_layers layers (in the order fromrgb, conv0, conv1, skip) are not trained.
    """

    resample_filter: Tensor | None

    def __init__(
        self, in_channels: int, mid_channels: int, out_channels: int, *, img_channels: int,
        architecture: Architecture = "resnet", activation: str = "lrelu", resample_filter: Taps = BINOMIAL,
        conv_clamp: float | None = None, frozen: int = 0, half_dtype: torch.dtype | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.architecture = architecture
        self.half_dtype = half_dtype  # precision on a GPU; None keeps that of the weights
        self.num_layers = 0

        def conv(inputs: int, outputs: int, size: int, **how) -> Conv2d:
            self.num_layers += 1
            return Conv2d(inputs, outputs, size, trainable=self.num_layers > frozen, **how)

        act = {"activation": activation, "conv_clamp": conv_clamp}
        halve = {"down": 2, "resample_filter": resample_filter}
        if in_channels == 0 or architecture == "skip":
            self.fromrgb = conv(img_channels, mid_channels, 1, **act)
        self.conv0 = conv(mid_channels, mid_channels, 3, **act)
        self.conv1 = conv(mid_channels, out_channels, 3, **act, **halve)
        if architecture == "resnet":
            self.skip = conv(mid_channels, out_channels, 1, bias=False, **halve)
        taps = setup_filter(resample_filter) if architecture == "skip" else None
        self.register_buffer("resample_filter", taps, persistent=False)

    def forward(
        self, x: Float[Tensor, "N I H W"] | None, img: Float[Tensor, "N C H W"] | None
    ) -> tuple[Float[Tensor, "N O h w"], Float[Tensor, "N C h w"] | None]:
        """Features of half the resolution, and the image for the next block if it wants one."""
        weight = self.conv0.weight
        x = None if x is None else working(x, weight, self.half_dtype)
        img = None if img is None else working(img, weight, self.half_dtype)
        if hasattr(self, "fromrgb"):
            if img is None:
                raise ValueError("this block reads the image, and there is none")
            seen = self.fromrgb(img)
            x = seen if x is None else x + seen
            img = downsample2d(img, self.resample_filter) if self.architecture == "skip" else None
        if self.architecture != "resnet":
            return self.conv1(self.conv0(x)), img
        shortcut = self.skip(x, gain=0.5**0.5)
        return shortcut + self.conv1(self.conv0(x), gain=0.5**0.5), img


class DiscriminatorEpilogue(nn.Module):
    """The head: minibatch deviation, a convolution, two fully connected layers, projection on the condition.

    cmap_dim = 0 gives a plain score. Otherwise the score is the product of the head's cmap_dim outputs with a mapped
    condition, divided by sqrt(cmap_dim) (projection discriminator, Miyato and Koyama 2018). Never frozen, never in half
    precision.
    """

    def __init__(
        self, channels: int, *, cmap_dim: int, img_channels: int, resolution: int = 4,
        architecture: Architecture = "resnet", mbstd_group_size: int | None = 4, mbstd_num_channels: int = 1,
        activation: str = "lrelu", conv_clamp: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.cmap_dim = cmap_dim
        if architecture == "skip":
            self.fromrgb = Conv2d(img_channels, channels, 1, activation=activation)
        self.mbstd = MinibatchStd(mbstd_group_size, mbstd_num_channels) if mbstd_num_channels else nn.Identity()
        inputs = channels + mbstd_num_channels
        self.conv = Conv2d(inputs, channels, 3, activation=activation, conv_clamp=conv_clamp)
        self.fc = FullyConnected(channels * resolution**2, channels, activation=activation)
        self.out = FullyConnected(channels, cmap_dim or 1)

    def features(self, x: Float[Tensor, "N C H W"], img: Tensor | None = None) -> Float[Tensor, "N F"]:
        """The convolution's output, flat: what other heads (a pose, a latent) may also look at."""
        x = x.to(self.conv.weight.dtype)
        if hasattr(self, "fromrgb"):
            x = x + self.fromrgb(img.to(x.dtype))  # pyright: ignore
        return self.conv(self.mbstd(x)).flatten(1)

    def score(self, features: Float[Tensor, "N F"], cmap: Float[Tensor, "N cmap"] | None = None) -> Float[Tensor, "N"]:
        out = self.out(self.fc(features))
        if self.cmap_dim == 0:
            return out.squeeze(1)
        return (out * cmap).sum(dim=1) / self.cmap_dim**0.5

    def forward(
        self, x: Float[Tensor, "N C H W"], img: Tensor | None = None, cmap: Float[Tensor, "N cmap"] | None = None
    ) -> Float[Tensor, "N"]:
        return self.score(self.features(x, img), cmap)
