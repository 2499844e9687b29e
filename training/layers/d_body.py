"""A whole StyleGAN2 discriminator on plain tensors: image and conditioning vector to score.

The discriminators derive from it; they only choose what it sees and what it is told.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from training.layers.conv import BINOMIAL, Taps
from training.layers.d_block import Architecture, DiscriminatorBlock, DiscriminatorEpilogue
from training.layers.mapping import MappingNetwork
from training.layers.minibatch_std import MinibatchStd
from training.layers.synthesis import channels_at


class DiscriminatorBody(nn.Module):
    """Blocks b{img_resolution} ... b8, the mapping of the condition, the head b4.

    c_dim: length of the conditioning vector; 0 for none. channels gives the widths at 4, 8, 16 ... one by one and wins
    over channel_base and channel_max. cmap_dim: numbers that a condition is mapped to, None for the width at 4 px. The
    first freeze_layers layers from the image on are not trained. num_half_res blocks of highest resolution run in half
    precision on a GPU (then give a conv_clamp: 256 in the paper). mapping: further arguments of the MappingNetwork.
    """

    def __init__(
        self, *, c_dim: int, img_resolution: int, img_channels: int, architecture: Architecture = "resnet",
        channel_base: int = 32768, channel_max: int = 512, channels: Mapping[int, int] | None = None,
        conv_clamp: float | None = None, cmap_dim: int | None = None, freeze_layers: int = 0,
        activation: str = "lrelu", head_activation: str | None = None, resample_filter: Taps = BINOMIAL,
        mbstd_group_size: int | None = 4, mbstd_num_channels: int = 1, mapping: Mapping[str, Any] | None = None,
        num_half_res: int = 0, half_dtype: Literal["float16", "bfloat16"] = "float16",
    ) -> None:  # fmt: skip
        super().__init__()
        if img_resolution < 8 or img_resolution & (img_resolution - 1):
            raise ValueError(f"img_resolution={img_resolution} is not 4 px doubled some times: 8, 16, 32 ...")
        self.c_dim, self.img_resolution, self.img_channels = c_dim, img_resolution, img_channels
        self.resolutions = [2**k for k in range(img_resolution.bit_length() - 1, 2, -1)]
        widths = channels or {r: channels_at(r, channel_base, channel_max) for r in [*self.resolutions, 4]}
        cmap_dim = 0 if c_dim == 0 else widths[4] if cmap_dim is None else cmap_dim
        common = {"img_channels": img_channels, "architecture": architecture, "conv_clamp": conv_clamp}
        layers = 0
        for resolution in self.resolutions:
            halved = num_half_res and resolution >= max(2 * img_resolution >> num_half_res, 8)
            block = DiscriminatorBlock(
                0 if resolution == img_resolution else widths[resolution], widths[resolution], widths[resolution // 2],
                **common, activation=activation, resample_filter=resample_filter, frozen=freeze_layers - layers,
                half_dtype=getattr(torch, half_dtype) if halved else None,
            )  # fmt: skip
            self.add_module(f"b{resolution}", block)
            layers += block.num_layers
        if c_dim > 0:
            how = {"z_dim": 0, "c_dim": c_dim, "w_dim": cmap_dim, "num_ws": None, "w_avg_beta": None}
            self.mapping = MappingNetwork(**how, **(mapping or {}))
        self.b4 = DiscriminatorEpilogue(
            widths[4], cmap_dim=cmap_dim, **common, mbstd_group_size=mbstd_group_size,
            mbstd_num_channels=mbstd_num_channels, activation=head_activation or activation,
        )  # fmt: skip

    def alternates(self, count: int) -> bool:
        """Whether `count` fakes and as many reals get the scores of two batches when they alternate in one."""
        mbstd = self.b4.mbstd
        return not isinstance(mbstd, MinibatchStd) or mbstd.alternates(count)

    def judge(self, img: Float[Tensor, "N C H W"], c: Float[Tensor, "N c"] | None = None) -> Float[Tensor, "N"]:
        """The score, a logit: > 0 means real."""
        if img.shape[1:] != (self.img_channels, self.img_resolution, self.img_resolution):
            want = [self.img_channels, self.img_resolution, self.img_resolution]
            raise ValueError(f"this discriminator sees images [N, {want}], not {list(img.shape)}")
        x, seen = None, img
        for resolution in self.resolutions:
            x, seen = self.get_submodule(f"b{resolution}")(x, seen)
        return self.b4(x, seen, self.mapping(None, c) if self.c_dim else None)
