"""Super-resolution: rendered features to the final image (EG3D, Chan et al. 2022)."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dnnlib.errors import ConfigError
from torch_utils.draws import Draws
from training.layers.conv import BINOMIAL, Taps
from training.layers.resize import resize
from training.layers.synthesis import Noise, SynthesisBlock


class Upsampled(NamedTuple):
    """The final image, and the raw one as it is after super-resolution."""

    image: Float[Tensor, "N C H W"]
    image_raw: Float[Tensor, "N C h w"]


class SuperResolution(nn.Module):
    """StyleGAN2's skip blocks on a rendered image and its features, all fed with the last style vector.

    Input of another size is resized to input_resolution first. There is a block for each of `widths`; the last ones
    double the size, as often as it takes to reach img_resolution, and those before leave it as it is.
    EG3D's modules, as (input_resolution, img_resolution, widths): 8XDC (128, 512, (256, 128)), 8X (128, 512,
    (128, 64)), 4X (128, 256, (128, 64)), 2X (64, 128, (128, 64)); the older Deepfp32 is 4X without antialias.
    noise is that of its layers, whatever the rest of the generator does; use_noise says whether they own noise at all
    (None: if it is used). half_dtype is the precision of all blocks on a GPU (then give a conv_clamp: 256 in the
    paper).
    raw_in_place, a quirk that published 2X and 4X weights were trained with: where no resize happens and the first
    block keeps the size, that block's image is also what discriminators get as image_raw.
    """

    def __init__(
        self, *, w_dim: int, input_resolution: int, img_resolution: int, widths: Sequence[int] = (128, 64),
        features: int = 32, img_channels: int = 3, antialias: bool = True, noise: Noise = "none",
        raw_in_place: bool = False, conv_clamp: float | None = None, use_noise: bool | None = None,
        activation: str = "lrelu", resample_filter: Taps = BINOMIAL,
        half_dtype: Literal["float16", "bfloat16"] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        doublings = (img_resolution // input_resolution).bit_length() - 1
        if input_resolution << max(doublings, 0) != img_resolution:
            raise ConfigError(
                f"img_resolution={img_resolution} is not input_resolution={input_resolution} doubled some times."
            )
        if doublings > len(widths):
            raise ConfigError(
                f"from {input_resolution} to {img_resolution} px takes {doublings} doublings: give as many widths, "
                f"not {list(widths)}."
            )
        self.input_resolution, self.img_resolution, self.antialias = input_resolution, img_resolution, antialias
        self.noise: Noise = noise
        self.raw_in_place = raw_in_place and doublings < len(widths)
        use_noise = noise != "none" if use_noise is None else use_noise
        resolution, channels = input_resolution, features
        for i, width in enumerate(widths):
            up = 2 if i >= len(widths) - doublings else 1
            resolution *= up
            block = SynthesisBlock(
                channels, width, w_dim=w_dim, resolution=resolution, img_channels=img_channels,
                is_last=i == len(widths) - 1, up=up, resample_filter=resample_filter, conv_clamp=conv_clamp,
                use_noise=use_noise, activation=activation,
                half_dtype=None if half_dtype is None else getattr(torch, half_dtype),
            )  # fmt: skip
            self.add_module(f"block{i}", block)
            channels = width
        self.num_blocks = len(widths)

    def forward(
        self, rgb: Float[Tensor, "N C h w"], features: Float[Tensor, "N F h w"], ws: Float[Tensor, "N L w_dim"],
        draws: Draws | None = None,
    ) -> Upsampled:  # fmt: skip
        """Random noise of a layer is drawn as "block0/conv0/noise"; without draws it is constant."""
        noise = "const" if self.noise == "random" and draws is None else self.noise
        resized = rgb.shape[-1] != self.input_resolution
        x = resize(features, self.input_resolution, self.antialias)
        image, last = resize(rgb, self.input_resolution, self.antialias), ws[:, -1:].expand(-1, 3, -1)
        for i in range(self.num_blocks):
            x, image = self.get_submodule(f"block{i}")(x, image, last, noise, draws and draws.within(f"block{i}"))
            if i == 0 and self.raw_in_place and not resized:
                rgb = image
        return Upsampled(image, rgb)
