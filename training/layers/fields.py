"""Fields: networks that say what is at a point of a scene.

N items, P points each in scene units; colours in [-1, 1]. Rendering gets fields as callables and owns no weight.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from torch_utils.ops.conv2d_resample import pointwise_conv2d
from torch_utils.ops.triplane import PlaneAxes, sample_planes
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
        features = sample_planes(planes, points.reshape(points.shape[0], -1, 3), self.axes, self.box_side)
        raw, colours = self.decode(features)
        return raw.view(points.shape[:-1]), colours.reshape(*points.shape[:-1], -1)

    def decode(self, features: Float[Tensor, "N P C"]) -> tuple[Float[Tensor, "N P"], Float[Tensor, "N P F"]]:
        """Raw densities and colours from the planes' features."""
        first, last = self.net[0], self.net[2]
        assert isinstance(first, FullyConnected)
        assert isinstance(last, FullyConnected)
        hidden = F.softplus(_pointwise(features, first))
        density, colours = _pointwise(hidden, last).split([1, self.colours], dim=-1)
        return density.squeeze(-1), torch.sigmoid(colours) * 2.004 - 1.002


def _pointwise(x: Float[Tensor, "N P I"], layer: FullyConnected) -> Float[Tensor, "N P O"]:
    """The layer at every point: on a CPU as a 1x1 convolution, which is faster there."""
    if x.is_cuda or x.dtype != layer.weight.dtype or layer.bias is None:
        return layer(x)
    weight = (layer.weight * layer.weight_gain)[:, :, None, None]
    image = x.unsqueeze(2).permute(0, 3, 1, 2)  # [N, I, P, 1], channels last in memory
    return pointwise_conv2d(image, weight, layer.bias * layer.bias_gain).permute(0, 2, 3, 1).squeeze(2)
