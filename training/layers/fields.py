"""Fields: networks that say what is at a point of a scene.

N items, P points each in scene units; colours in [-1, 1]. Rendering gets fields as callables and owns no weight.
"""

from jaxtyping import Float
from torch import Tensor, nn

from torch_utils.ops.ray_march import march_ready, ray_march
from torch_utils.ops.triplane import PlaneAxes
from torch_utils.ops.triplane_field import triplane_field
from training.layers.linear import FullyConnected


class TriplaneField(nn.Module):
    """Features from three planes, then two layers: a raw density and colours (EG3D's decoder, Chan et al. 2022).

    FC(features -> hidden) - softplus - FC(hidden -> 1 + colours). Colours are 2 sigmoid(x) - 1, widened by 0.2 % to
    reach black and white. View directions play no role. The field fills a cube of side box_side; axes says what the
    planes see (torch_utils/ops/triplane.py).
    """

    def __init__(
        self, *, features: int = 32, hidden: int = 64, colours: int = 32, box_side: float = 1.0,
        axes: PlaneAxes = "fixed", lr_multiplier: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.features, self.colours, self.box_side = features, colours, box_side
        self.axes: PlaneAxes = axes
        first = FullyConnected(features, hidden, lr_multiplier=lr_multiplier)
        last = FullyConnected(hidden, 1 + colours, lr_multiplier=lr_multiplier)
        self.net = nn.Sequential(first, nn.Softplus(), last)

    def forward(
        self, planes: Float[Tensor, "B H W 3 C"], points: Float[Tensor, "N *M 3"], directions: Tensor | None = None
    ) -> tuple[Float[Tensor, "N *M"], Float[Tensor, "N *M F"]]:
        """Raw densities and colours at points; planes of one item may serve points of many."""
        return self._ask(planes, points, *self._layers())

    def can_march(self, planes: Tensor, origins: Tensor, directions: Tensor, depths: Tensor) -> bool:
        """Whether there is one operator for whole rays here (torch_utils/ops/ray_march.py)."""
        return march_ready(planes, origins, directions, depths, *self._layers(), axes=self.axes)

    def raw_density(self, planes: Tensor, points: Float[Tensor, "N *M 3"]) -> Float[Tensor, "N *M"]:
        """Raw densities alone."""
        w1, b1, w2, b2 = self._layers()
        return self._ask(planes, points, w1, b1, w2[:1], b2[:1])[0]

    def march(
        self, planes: Tensor, origins: Float[Tensor, "N M 3"], directions: Float[Tensor, "N M 3"],
        depths: Float[Tensor, "N M S"], activation: str, shift: float,
    ) -> tuple[Float[Tensor, "N M F"], Float[Tensor, "N M"], Float[Tensor, "N M"]]:  # fmt: skip
        """Sums along rays of samples' colours, depths and ones, each times the sample's weight."""
        return ray_march(
            planes, origins, directions, depths, self._layers(), axes=self.axes, box_side=self.box_side,
            activation=activation, shift=shift,
        )  # fmt: skip

    def _layers(self) -> list[Tensor]:
        first, last = self.net[0], self.net[2]
        assert isinstance(first, FullyConnected)
        assert isinstance(last, FullyConnected)
        return [t for layer in (first, last) for t in layer.scaled() if t is not None]

    def _ask(self, planes: Tensor, points: Tensor, *layers: Tensor) -> tuple[Tensor, Tensor]:
        flat = points.reshape(points.shape[0], -1, 3)
        raw, colours = triplane_field(planes, flat, *layers, axes=self.axes, box_side=self.box_side)
        return raw.view(points.shape[:-1]), colours.view(*points.shape[:-1], colours.shape[-1])
