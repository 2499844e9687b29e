"""StyleGAN2's discriminator (Karras et al., CVPR 2020): one image, told its camera, its class, both or nothing."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from torch_utils.draws import Draws
from training.contracts import Condition, DiscriminatorOutput, GeneratorOutput
from training.layers.d_body import DiscriminatorBody
from training.layers.labels import conditioning_vector, parts_told


class StyleGAN2Discriminator(DiscriminatorBody):
    """told: what it is told beside the image, of "camera" and "label" (label_dim numbers; 0: no label after all).

    All other arguments are those of DiscriminatorBody.
    """

    sees: tuple[str, ...] = ("image",)  # fields of GeneratorOutput that R1 differentiates

    def __init__(self, *, told: Sequence[str] = (), label_dim: int = 0, img_channels: int = 3, **body: Any) -> None:
        parts = parts_told(told, label_dim)
        super().__init__(c_dim=sum(parts.values()), img_channels=img_channels, **body)
        self.told = tuple(parts)

    def encode(self, told: Condition) -> Float[Tensor, "N c"] | None:
        """The conditioning vector: camera, then label. None if it is told nothing."""
        return conditioning_vector(self.told, told)

    def forward(self, output: GeneratorOutput, told: Condition, draws: Draws | None = None) -> DiscriminatorOutput:
        return DiscriminatorOutput(score=self.judge(output.image, self.encode(told)))
