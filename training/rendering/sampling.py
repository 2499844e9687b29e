"""Where along rays a field is asked: stratified and importance samples.

Pure functions; random numbers come in as arguments. Leading axes are free (*rays); S samples or K intervals run from
near to far. Depths are distances along rays. Imports no other file of ours.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Bins = Literal["cells", "nodes"]
Spacing = Literal["depth", "disparity"]
Reach = Literal["full", "legacy"]


def stratified(
    near: Float[Tensor, "*rays"], far: Float[Tensor, "*rays"], offsets: Float[Tensor, "*#rays S"],
    bins: Bins = "cells", spacing: Spacing = "depth",
) -> Float[Tensor, "*rays S"]:  # fmt: skip
    """One depth in each of S equal bins, offsets in [0, 1) of a bin from its start.

    bins "cells" divide [near, far]. "nodes", as in EG3D, are the S - 1 intervals between S nodes from near to far and
    one more, so that the last sample lies beyond far. Bins are equal in depth, or in 1 / depth.
    Worked example: near 1, far 3, S 4, offsets 0.5: 1.25, 1.75, 2.25, 2.75.
    """
    count = offsets.shape[-1]
    bin_count = count if bins == "cells" else max(count - 1, 1)
    share = (torch.arange(count, dtype=near.dtype, device=near.device) + offsets.to(near)) / bin_count
    near, far = near[..., None], far[..., None]
    if spacing == "disparity":
        return 1 / ((1 - share) / near + share / far)
    return near + share * (far - near)


def smooth_weights(weights: Float[Tensor, "*rays K"], floor: float = 0.01) -> Float[Tensor, "*rays K"]:
    """Weights of intervals, spread to their neighbours: the mean of the maxima with the left and the right one.

    (max(w_{k-1}, w_k) + max(w_k, w_{k+1})) / 2 + floor; a missing neighbour is ignored (mip-NeRF, Barron et al. 2021,
    as EG3D has it).
    """
    highest = torch.maximum(F.pad(weights, (1, 0), value=-torch.inf), F.pad(weights, (0, 1), value=-torch.inf))
    return (highest[..., :-1] + highest[..., 1:]) / 2 + floor


def invert_pdf(
    weights: Float[Tensor, "*rays K"], edges: Float[Tensor, "*rays K+1"], shares: Float[Tensor, "*#rays F"]
) -> Float[Tensor, "*rays F"]:
    """The quantiles of a histogram: depths below which the given shares of its weight lie.

    weights (>= 0, of any sum) of the intervals between edges; shares in [0, 1). An interval that holds less than 1e-5
    of the weight gives its near end.
    Worked example: edges 0, 1, 2, weights 1, 3, share 0.5: 1.333 (that is 1 + (0.5 - 0.25) / 0.75).
    """
    weights = weights + 1e-5
    cdf = F.pad((weights / weights.sum(dim=-1, keepdim=True)).cumsum(dim=-1), (1, 0))
    shares = shares.to(cdf).expand(*cdf.shape[:-1], -1).contiguous()
    above = torch.searchsorted(cdf.contiguous(), shares, right=True)
    low, high = (above - 1).clamp_min(0), above.clamp_max(weights.shape[-1])
    start, end = cdf.gather(-1, low), cdf.gather(-1, high)
    near, far = edges.gather(-1, low), edges.gather(-1, high)
    held = end - start
    return near + (shares - start) / torch.where(held < 1e-5, 1.0, held) * (far - near)


def importance(
    weights: Float[Tensor, "*rays K"], depths: Float[Tensor, "*rays K+1"], shares: Float[Tensor, "*#rays F"],
    reach: Reach = "full",
) -> Float[Tensor, "*rays F"]:  # fmt: skip
    """New depths where the weights of the intervals between coarse depths are large; not sorted, without gradient.

    reach "full" draws from all intervals. "legacy" is EG3D's: the inner S - 3 smoothed weights sit on the intervals
    between the first S - 2 midpoints of depths, half an interval too near, so that the far end gets none; S >= 4.
    """
    weights, depths = smooth_weights(weights.detach()), depths.detach()
    if reach == "full":
        return invert_pdf(weights, depths, shares)
    if depths.shape[-1] < 4:
        raise ValueError("EG3D's importance sampling needs at least 4 coarse samples")
    middles = (depths[..., 1:] + depths[..., :-1]) / 2
    return invert_pdf(weights[..., 1:-1], middles[..., :-1], shares)
