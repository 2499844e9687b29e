"""Two passes over a field: stratified samples along each ray, then more where matter was found (NeRF, section 5.2).

The field is a callable and the rays are given, so this serves every model that asks one field twice and marches by the
midpoint rule: EG3D and its descendants. N items, M rays each; S coarse and F fine samples.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from dnnlib.errors import ConfigError
from torch_utils.draws import Draws
from torch_utils.record import Record, cat
from training.rendering.rays import Rays, batch_misses, box_range, empty_misses
from training.rendering.sampling import Bins, Reach, Spacing, importance, stratified
from training.rendering.volume import (
    DensityActivation,
    composite,
    expected_depth,
    midpoint_weights,
    to_samples,
)

# (content of the scene, points [N, M, S, 3], directions [N, M, 3]) -> raw densities [N, M, S], colours [N, M, S, C]
Field = Callable[[Any, Tensor, Tensor], tuple[Tensor, Tensor]]
AUTOMATIC_CHUNK = 98304  # samples; what they need stays in a CPU's cache


@runtime_checkable
class MarchingField(Protocol):
    """A field that can see whole rays in one operator, on some devices; TriplaneField says what its methods do."""

    def can_march(self, planes: Any, origins: Tensor, directions: Tensor, depths: Tensor) -> bool: ...

    def raw_density(self, planes: Any, points: Tensor) -> Tensor: ...

    def march(
        self, planes: Any, origins: Tensor, directions: Tensor, depths: Tensor, activation: str, shift: float
    ) -> tuple[Tensor, Tensor, Tensor]: ...


@dataclass(frozen=True, kw_only=True)
class RaySettings:
    """Where along rays a field is asked and how the answers are combined. The defaults are for new training.

    The last four are quirks: what released EG3D weights were trained with is bins "nodes" and "legacy" for the rest.
    """

    near: float | None = 2.25  # distance of the first sample; None: where each ray enters the field's box
    far: float | None = 3.3  # None: where it leaves the box
    samples: Sequence[int] = (48, 48)  # a ray: coarse, fine
    spacing: Spacing = "depth"  # bins of equal size in depth, or in 1 / depth
    background: Literal["black", "white"] = "black"  # in all channels
    density_activation: DensityActivation = "softplus"
    density_shift: float = -1.0  # added to raw densities before the activation
    density_noise: float = 0.0  # in training: standard deviation, added to raw densities
    bins: Bins = "cells"  # "nodes": the last coarse sample lies up to one bin beyond far
    importance: Reach = "full"  # "legacy": fine samples never reach the far end
    depth_clamp: Literal["ray", "legacy"] = "ray"  # depth within its ray's samples, or within those of the whole batch
    misses: Literal["empty", "legacy"] = "empty"  # rays past the box see the background, or samples at others' depths

    def __post_init__(self) -> None:
        if (self.near is None) != (self.far is None):
            raise ConfigError("near and far of a ray are both numbers, or both null (from the field's box)")
        if self.near is not None and self.far is not None and not self.near < self.far:
            raise ConfigError(f"near={self.near} must be smaller than far={self.far}")
        if self.spacing == "disparity" and self.near is not None and self.near <= 0:
            raise ConfigError(f"near={self.near}: spacing=disparity divides by it, so it must be above 0")
        least = 4 if self.importance == "legacy" and self.samples[1] else 2
        if len(self.samples) != 2 or self.samples[0] < least or self.samples[1] < 0:
            raise ConfigError(f"samples={list(self.samples)}: give at least {least} coarse and 0 or more fine samples")

    @property
    def behind(self) -> float:
        """What a ray sees that meets nothing, in all channels."""
        return 1.0 if self.background == "white" else -1.0

    def range(self, rays: Rays, box_side: float) -> tuple[Float[Tensor, "N M"], Float[Tensor, "N M"]]:
        """The first and last distance along each ray. No gradient to the rays."""
        origins, directions = rays.origins.detach(), rays.directions.detach()
        if self.near is None or self.far is None:
            near, far = box_range(origins, directions, box_side)
            return empty_misses(near, far) if self.misses == "empty" else batch_misses(near, far)
        near = origins.new_full((), self.near).expand(origins.shape[:2])
        return near, origins.new_full((), self.far).expand(origins.shape[:2])


@dataclass(frozen=True)
class RayDraws(Record):
    """The random numbers of rays."""

    coarse: Float[Tensor, "N M S"]  # place of each sample in its bin, [0, 1)
    fine: Float[Tensor, "N M F"]  # quantile of each importance sample, [0, 1)
    coarse_noise: Float[Tensor, "N M S"] | None = None  # added to raw densities
    fine_noise: Float[Tensor, "N M F"] | None = None


def ray_draws(
    rays: Rays, samples: Sequence[int], *, jitter: Draws | None = None, noise: Draws | None = None,
    noise_std: float = 0.0,
) -> RayDraws:  # fmt: skip
    """Draws for these rays. Without `jitter` they are the middles of bins and the quantiles (i + 0.5) / F."""
    shape, device = rays.origins.shape[:2], rays.origins.device
    coarse, fine = samples

    def spread(values: Tensor) -> Tensor:
        return values.to(device).expand(*shape, -1)

    if jitter is None:
        places = spread(torch.full((coarse,), 0.5))
        quantiles = spread((torch.arange(fine) + 0.5) / max(fine, 1))
    else:
        places = spread(jitter.uniform("jitter", (shape[1], coarse)))
        quantiles = spread(jitter.uniform("importance", (shape[1], fine)))
    if noise is None or not noise_std:
        return RayDraws(places, quantiles)
    first = spread(noise.normal("density_noise", (shape[1], coarse)) * noise_std)
    return RayDraws(places, quantiles, first, spread(noise.normal("density_noise_fine", (shape[1], fine)) * noise_std))


@dataclass(frozen=True)
class RayOutput(Record):
    """What rays see."""

    features: Float[Tensor, "N M C"]
    depth: Float[Tensor, "N M"]
    opacity: Float[Tensor, "N M"]
    nearest: Float[Tensor, "N M"]  # depth of the ray's first sample
    farthest: Float[Tensor, "N M"]  # and of its last


def render_rays(
    field: Field, content: Any, rays: Rays, ends: tuple[Tensor, Tensor], settings: RaySettings, draws: RayDraws,
    chunk: int | None = None,
) -> RayOutput:  # fmt: skip
    """What the rays see of the field.

    content (a tensor or Record) is for the field; row i is what the rays of item i see, or one row is seen by all.
    ends are the first and last depth of each ray, [N, M]. chunk rays are rendered at a time; None: all of them where a
    gradient is wanted or one operator sees whole rays, else as many as a cache holds. Depth and opacity have gradients,
    depths of samples have none.
    """
    n, m = rays.origins.shape[:2]
    if len(content) == 1 and n > 1:  # many views of one scene are many rays of one item
        one = [t.reshape(1, n * m) for t in ends]
        draws = draws.map(lambda t: t.reshape(1, n * m, -1))
        out = render_rays(field, content, rays.folded(), (one[0], one[1]), settings, draws, chunk)
        return out.map(lambda t: t.reshape(n, m, *t.shape[2:]))
    if chunk is None:
        whole = torch.is_grad_enabled() or _marching(field, content, rays, draws) is not None
        chunk = n * m if whole else max(AUTOMATIC_CHUNK // sum(settings.samples), 1)
    rows_at_once, rays_at_once = min(max(chunk // m, 1), n), min(chunk, m)
    blocks = []
    for first in range(0, n, rows_at_once):
        rows = slice(first, first + rows_at_once)
        mine = content if rows_at_once == n else content[rows]
        pieces = []
        for start in range(0, m, rays_at_once):
            cut = (rows, slice(start, start + rays_at_once))
            pieces.append(_render(
                field, mine, rays.map(lambda t, c=cut: t[c]), (ends[0][cut], ends[1][cut]), settings,
                draws.map(lambda t, c=cut: t[c]),
            ))  # fmt: skip
        blocks.append(_side_by_side(pieces))
    out = blocks[0] if len(blocks) == 1 else cat(blocks)
    if settings.depth_clamp == "legacy":
        return replace(out, depth=out.depth.clamp(out.nearest.min(), out.farthest.max()))
    return replace(out, depth=out.depth.clamp(out.nearest, out.farthest))


def _side_by_side(pieces: list[RayOutput]) -> RayOutput:
    if len(pieces) == 1:
        return pieces[0]
    names = [f.name for f in fields(RayOutput)]
    return RayOutput(**{name: torch.cat([getattr(piece, name) for piece in pieces], dim=1) for name in names})


def _render(
    field: Field, content: Any, rays: Rays, ends: tuple[Tensor, Tensor], settings: RaySettings, draws: RayDraws
) -> RayOutput:
    """One block. Colours are never sorted: only depths and densities are, and weights go back to where colours lie."""
    density = (settings.density_activation, settings.density_shift)
    marching = _marching(field, content, rays, draws)
    if marching is not None:
        return _march(marching, content, rays, ends, settings, draws)

    def ask(depths: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor]:
        raw, colours = field(content, rays.at(depths), rays.directions)
        return (raw if noise is None else raw + noise), colours

    depths = stratified(*ends, draws.coarse, settings.bins, settings.spacing)
    raw, colours = ask(depths, draws.coarse_noise)
    groups = [colours]
    if draws.fine.shape[-1]:
        weights = midpoint_weights(raw.detach(), depths, *density)
        more = importance(weights, depths, draws.fine, settings.importance)
        more_raw, more_colours = ask(more, draws.fine_noise)
        groups.append(more_colours)
        depths, order = torch.cat([depths, more], dim=-1).sort(dim=-1, stable=True)
        shares = to_samples(midpoint_weights(torch.cat([raw, more_raw], dim=-1).gather(-1, order), depths, *density))
        unsorted = torch.empty_like(shares).scatter(-1, order, shares)
        parts = unsorted.split([group.shape[-2] for group in groups], dim=-1)
    else:
        shares = to_samples(midpoint_weights(raw, depths, *density))
        parts = (shares,)
    features = composite(parts, groups, background=settings.behind)
    nearest, farthest = depths.aminmax(dim=-1)
    return RayOutput(features, expected_depth(shares, depths), shares.sum(dim=-1), nearest, farthest)


def _marching(field: Field, content: Any, rays: Rays, draws: RayDraws) -> MarchingField | None:
    """The field, if one operator sees whole rays here. It adds no noise to densities."""
    if draws.coarse_noise is not None or not isinstance(field, MarchingField):
        return None
    return field if field.can_march(content, rays.origins, rays.directions, draws.coarse) else None


def _march(
    field: MarchingField, content: Any, rays: Rays, ends: tuple[Tensor, Tensor], settings: RaySettings, draws: RayDraws
) -> RayOutput:
    """One block: densities where the first pass looks, then all samples, the first ones again, from near to far."""
    density = (settings.density_activation, settings.density_shift)
    depths = stratified(*ends, draws.coarse, settings.bins, settings.spacing)
    if draws.fine.shape[-1]:
        with torch.no_grad():
            weights = midpoint_weights(field.raw_density(content, rays.at(depths)), depths, *density)
        more = importance(weights, depths, draws.fine, settings.importance)
        depths = torch.cat([depths, more], dim=-1).sort(dim=-1).values
    total, moment, opacity = field.march(content, rays.origins, rays.directions, depths, *density)
    features = total + settings.behind * (1 - opacity[..., None])
    seen = opacity > 0
    depth = torch.where(seen, moment / torch.where(seen, opacity, 1.0), torch.inf)
    nearest, farthest = depths.aminmax(dim=-1)
    return RayOutput(features, depth, opacity, nearest, farthest)
