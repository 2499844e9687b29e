"""EG3D's discriminators (Chan et al., CVPR 2022): the image, or it beside the raw image it was super-resolved from."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from torch_utils.draws import Draws
from torch_utils.ops.upfirdn2d import setup_filter
from training.contracts import Condition, DiscriminatorOutput, GeneratorOutput
from training.layers.conv import BINOMIAL, Taps
from training.layers.d_body import DiscriminatorBody
from training.layers.labels import conditioning_vector, parts_told
from training.layers.resize import ResizeFilter, filtered_resizing
from training.schedules import ramp


class SingleDiscriminator(DiscriminatorBody):
    """Sees the image alone: super-resolution may then paint what the rendered image does not show.

    told: what it is told beside, of "camera" and "label" (label_dim numbers; 0: no label after all). disc_c_noise:
    standard deviation of the noise that draws add to the conditioning vector, in units of the vector's own deviation
    within the micro-batch; without draws, or for a micro-batch of one, there is none. All other arguments are those of
    DiscriminatorBody.
    """

    sees: tuple[str, ...] = ("image",)  # fields of GeneratorOutput that R1 differentiates

    def __init__(
        self, *, told: Sequence[str] = ("camera",), label_dim: int = 0, img_channels: int = 3,
        disc_c_noise: float = 0.0, **body: Any,
    ) -> None:  # fmt: skip
        parts = parts_told(told, label_dim)
        super().__init__(c_dim=sum(parts.values()), img_channels=img_channels, **body)
        self.told, self.disc_c_noise = tuple(parts), disc_c_noise

    def alternates(self, count: int) -> bool:
        return self.disc_c_noise == 0 and super().alternates(count)

    def encode(self, told: Condition) -> Float[Tensor, "N c"] | None:
        """The conditioning vector: camera, then label. None if it is told nothing."""
        return conditioning_vector(self.told, told)

    def pictures(self, output: GeneratorOutput, draws: Draws | None) -> Float[Tensor, "N C H W"]:
        """What it judges."""
        return output.image

    def forward(self, output: GeneratorOutput, told: Condition, draws: Draws | None = None) -> DiscriminatorOutput:
        c = self.encode(told)
        if c is not None and draws is not None and self.disc_c_noise > 0 and c.shape[0] > 1:
            c = c + draws.normal("disc_c_noise", c.shape[1:]) * c.std(dim=0) * self.disc_c_noise
        return DiscriminatorOutput(score=self.judge(self.pictures(output, draws), c))


class DualDiscriminator(SingleDiscriminator):
    """Sees image and image_raw, resized to the image's size, as 2 img_channels channels.

    raw_filter: how the raw image is resized (training.layers.resize). All other arguments are those of
    SingleDiscriminator.
    """

    sees: tuple[str, ...] = ("image", "image_raw")
    resample_filter: Tensor

    def __init__(
        self, *, img_channels: int = 3, raw_filter: ResizeFilter = "antialiased", raw_taps: Taps = BINOMIAL,
        **single: Any,
    ) -> None:  # fmt: skip
        super().__init__(img_channels=2 * img_channels, **single)
        self.raw_filter: ResizeFilter = raw_filter
        self.register_buffer("resample_filter", setup_filter(raw_taps), persistent=False)

    def pictures(self, output: GeneratorOutput, draws: Draws | None) -> Float[Tensor, "N C H W"]:
        if output.image_raw is None:
            raise ValueError("the dual discriminator also looks at image_raw, and this output has none")
        raw = filtered_resizing(output.image_raw, self.img_resolution, self.resample_filter, self.raw_filter)
        return torch.cat([output.image, raw], dim=1)


class FadingDiscriminator(DualDiscriminator):
    """A dual discriminator whose raw image fades to grey over the first fade_kimg thousand images (DummyDual of EG3D).

    A function of the images seen, which the draws know; without draws the raw image is grey. EG3D's counts forward
    passes of 32 images instead, about three in an iteration, and forgets the count with every restart.
    """

    def __init__(self, *, fade_kimg: float = 500.0, **dual: Any) -> None:
        super().__init__(**dual)
        self.fade_kimg = fade_kimg

    def alternates(self, count: int) -> bool:
        return False  # a pass of both has no draws

    def pictures(self, output: GeneratorOutput, draws: Draws | None) -> Float[Tensor, "N C H W"]:
        gain = 0.0 if draws is None else ramp(draws.nimg, self.fade_kimg, 1.0, 0.0)
        raw = None if output.image_raw is None else output.image_raw * gain
        return super().pictures(replace(output, image_raw=raw), draws)
