"""Volume rendering along rays: densities in, pixels out.

Pure functions without state. Leading axes are free (*rays); S samples or K intervals run from near to far. Distances in
scene units, densities in 1/unit, colours in [-1, 1].
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from torch_utils.ops.weighted_sum import weighted_sum

DensityActivation = Literal["softplus", "relu"]


def activate_density(
    raw: Float[Tensor, "*any"], activation: DensityActivation = "softplus", shift: float = -1.0
) -> Float[Tensor, "*any"]:
    """Density from what a network says: f(raw + shift). softplus(raw - 1) is mip-NeRF's and EG3D's."""
    raw = raw + shift if shift else raw
    return F.softplus(raw) if activation == "softplus" else F.relu(raw)


def ray_weights(density: Float[Tensor, "*rays K"], edges: Float[Tensor, "*rays K+1"]) -> Float[Tensor, "*rays K"]:
    """How much each interval between edges contributes to its ray, if density is constant within.

    w_k = T_k (1 - exp(-s_k d_k)), T_k = exp(-sum_{j < k} s_j d_j), d_k = edges_{k+1} - edges_k: the quadrature of
    Max 1995 (NeRF, equation 3). The sum of all is the ray's opacity.
    Worked example: density ln 2 on edges 0, 1, 2 gives 0.5, 0.25; the opacity is 0.75.
    """
    thickness = density * (edges[..., 1:] - edges[..., :-1])
    passed = F.pad(thickness[..., :-1], (1, 0)).cumsum(dim=-1)
    return torch.exp(-passed) * (1 - torch.exp(-thickness))


def midpoint_weights(
    raw: Float[Tensor, "*rays S"], depths: Float[Tensor, "*rays S"], activation: DensityActivation = "softplus",
    shift: float = -1.0,
) -> Float[Tensor, "*rays S-1"]:  # fmt: skip
    """ray_weights of the intervals between samples; within one, the raw density is the mean of its two ends.

    The marcher of EG3D. Its colours and depths are means of two ends too: see to_samples.
    """
    return ray_weights(activate_density((raw[..., 1:] + raw[..., :-1]) / 2, activation, shift), depths)


def to_samples(weights: Float[Tensor, "*rays K"]) -> Float[Tensor, "*rays K+1"]:
    """Weights of samples from those of the intervals between them: each end gets half.

    sum_k w_k (c_k + c_{k+1}) / 2 = sum_k u_k c_k: no colour has to be averaged, or even sorted.
    Worked example: 0.5, 0.25 gives 0.25, 0.375, 0.125.
    """
    return (F.pad(weights, (1, 0)) + F.pad(weights, (0, 1))) / 2


def composite(
    weights: Sequence[Float[Tensor, "*rays _"]], values: Sequence[Float[Tensor, "*rays _ C"]], background: float = 0.0
) -> Float[Tensor, "*rays C"]:
    """sum_s w_s v_s + (1 - sum_s w_s) background.

    Samples come in one or more groups, in any order: coarse and fine ones need not be merged.
    """
    total: Tensor | float = background
    for w, v in zip(weights, values, strict=True):
        total = total + weighted_sum(w, v)
        if background:
            total = total - background * w.sum(dim=-1, keepdim=True)
    assert isinstance(total, Tensor)
    return total


def expected_depth(weights: Float[Tensor, "*rays S"], depths: Float[Tensor, "*rays S"]) -> Float[Tensor, "*rays"]:
    """sum w z / sum w, the mean depth of what is seen; infinite where nothing is. Its gradient is finite everywhere."""
    opacity = weights.sum(dim=-1)
    seen = opacity > 0
    return torch.where(seen, (weights * depths).sum(dim=-1) / torch.where(seen, opacity, 1.0), torch.inf)
