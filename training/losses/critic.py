"""How a discriminator looks at pictures: what it is shown of reals, and the blur it starts with."""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from torch_utils.draws import Draws
from torch_utils.ops.upfirdn2d import filter2d, setup_filter
from training.contracts import Batch, Condition, GeneratorOutput, RenderOptions
from training.layers.conv import BINOMIAL
from training.layers.resize import ResizeFilter, filtered_resizing
from training.schedules import ramp


def blur(image: Float[Tensor, "N C H W"], sigma: float) -> Float[Tensor, "N C H W"]:
    """Separable 2^-(i / sigma)^2 with i up to 3 sigma, zeros outside the image (StyleGAN3's and EG3D's start)."""
    reach = math.floor(3 * sigma)
    if reach == 0:
        return image
    taps = torch.arange(-reach, reach + 1, device=image.device).div(sigma).square().neg().exp2()
    return filter2d(image, taps / taps.sum())


@dataclass(frozen=True)
class ImageCritic:
    """A discriminator of images, with the fading blur of EG3D.

    Both reals and fakes are blurred; of the raw images only the reals are, once, when they are made: EG3D trains
    like this. raw=False is for discriminators that see the final image alone.
    """

    net: str
    raw: bool = False
    blur_sigma: float = 0.0  # pixels, at the start
    blur_fade_kimg: float = 0.0
    raw_filter: ResizeFilter = "antialiased"  # how raw images of reals are made (training.layers.resize)
    augment: Any = None  # training.augment.Augmentation: what else is done to both, after the blur

    def sigma(self, nimg: int) -> float:
        return ramp(nimg, self.blur_fade_kimg, self.blur_sigma, 0.0)

    def real(self, batch: Batch, options: RenderOptions, nimg: int) -> GeneratorOutput:
        if not self.raw:
            return GeneratorOutput(image=batch.image, camera=batch.condition.camera)
        taps = setup_filter(BINOMIAL).to(batch.image.device)
        raw = filtered_resizing(batch.image, options.resolution or batch.image.shape[-1], taps, self.raw_filter)
        return GeneratorOutput(
            image=batch.image, image_raw=blur(raw, self.sigma(nimg)), camera=batch.condition.camera
        )  # fmt: skip

    def look(self, output: GeneratorOutput, nimg: int, draws: Draws) -> GeneratorOutput:
        blurred = replace(output, image=blur(output.image, self.sigma(nimg)))
        return blurred if self.augment is None else self.augment.look(blurred, draws.within("augment"))

    def told(self, told: Condition, draws: Draws) -> Condition:
        return told if self.augment is None else self.augment.told(told, draws.within("augment"))

    def hear(self, score: Float[Tensor, "N"]) -> None:
        if self.augment is not None:
            self.augment.hear(score)
