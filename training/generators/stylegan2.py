"""StyleGAN2 (Karras et al., CVPR 2020): latents and class labels to images."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from training.contracts import Camera, Codes, Condition, GeneratorOutput, RenderOptions
from training.layers.mapping import MappingNetwork
from training.layers.synthesis import Noise, SynthesisNetwork


@dataclass(frozen=True, kw_only=True)
class StyleCodes(Codes):
    """Style vectors of a synthesis network."""

    rows: ClassVar[tuple[str, ...]] = ("ws",)
    ws: Float[Tensor, "N L w_dim"]


class StyleGAN2Generator(nn.Module):
    """A mapping network and a synthesis network; a class label may condition the first.

    noise is that of training; pictures are rendered with what RenderOptions say.
    """

    def __init__(self, *, mapping: MappingNetwork, synthesis: SynthesisNetwork, noise: Noise = "random") -> None:
        super().__init__()
        mapping.serve(synthesis.num_ws, synthesis.w_dim)
        self.mapping_network, self.synthesis_network = mapping, synthesis
        self.z_dim, self.img_resolution = mapping.z_dim, synthesis.img_resolution
        self.noise: Noise = noise

    def mapping(self, z: Float[Tensor, "N z"], condition: Condition, update_emas: bool = False) -> StyleCodes:
        return StyleCodes(ws=self.mapping_network(z, condition.label, update_emas))

    def synthesis(self, codes: StyleCodes, camera: Camera | None, options: RenderOptions) -> GeneratorOutput:
        return GeneratorOutput(image=self.synthesis_network(codes.ws, options.noise, options.draws), camera=camera)

    def mean_codes(self) -> StyleCodes:
        return StyleCodes(ws=self.mapping_network.mean())

    def options_at(self, nimg: int) -> RenderOptions:
        return RenderOptions(noise=self.noise)
