"""The shapes of seeds: meshes and density volumes of any model that has a field. generate.py --shapes calls it."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from dnnlib.errors import ConfigError
from dnnlib.options import nearest
from torch_utils.mesh_files import write_glb, write_mrc, write_ply
from training.contracts import CameraRig
from training.rendering.mesh import Grid, PointField, coloured, density_grid, surface, surface_level

from .studio import Studio

MESHES = {"ply": write_ply, "glb": write_glb}
FORMATS = (*MESHES, "mrc")
FINEST = 1024  # nodes along a side: 4 GB


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """How shapes are made. Raises ConfigError for what cannot be."""

    resolution: int = 256  # nodes along a side of the cube
    formats: Sequence[str] = ("ply",)
    level: float | None = None  # density of the surface, 1 / scene unit; None: training/rendering/mesh.py's rule

    def __post_init__(self) -> None:
        if not self.formats:
            raise ConfigError(f"--shape-format= is empty: give some of {', '.join(FORMATS)}")
        for name in self.formats:
            if name not in FORMATS:
                raise ConfigError(f"--shape-format: there is no format {name}{nearest(name, FORMATS)}")
        if not 8 <= self.resolution <= FINEST:
            raise ConfigError(f"--shape-res={self.resolution} must be a whole number from 8 to {FINEST}")
        if self.level is not None and not 0 < self.level < math.inf:
            raise ConfigError(f"--shape-level={self.level} must be a density, a finite number above 0")


def read_shapes(wanted: bool, stills: bool, **given: Any) -> Shapes | None:
    """What the options of generate.py ask for; None if nothing. Raises ConfigError for what cannot be."""
    given = {name: value for name, value in given.items() if value is not None}
    if not wanted:
        if given:
            raise ConfigError("--shape-res, --shape-format and --shape-level belong to --shapes: add it")
        return None
    if not stills:
        raise ConfigError("--shapes go with stills, not with films: leave --render-program out")
    if "formats" in given:
        given["formats"] = [name.strip(" .").lower() for name in given["formats"].split(",") if name.strip()]
    return Shapes(**given)


def cube_side(G: Any, rig: CameraRig) -> float:
    """Side of the cube around the origin that is looked into: as large as the mean camera sees whole, face by face.

    What no camera saw in training was never told to be empty. Never larger than the box that a field fills, nor than
    reaches the camera.
    """
    tangent = 0.5 / rig.focal  # of half the angle of view
    half = rig.radius * (tangent / (1 - tangent) if tangent < 0.5 else 1)  # there the back face fills the picture
    return min(2 * half, getattr(getattr(G, "field", None), "box_side", math.inf))


def write_shapes(studio: Studio, seeds: Sequence[int], outdir: Path, shapes: Shapes) -> Iterator[str]:
    """seedNNNN.ply, .glb, .mrc of every seed, as they are asked for; gives what was made, in words.

    A seed without a surface is left out, in words too. Raises ConfigError if no seed has one, or the model no field.
    """
    if not hasattr(studio.G, "query"):
        raise ConfigError("this model has no field of densities, so it has no shape: leave --shapes out")
    return _written(studio, seeds, outdir, shapes)


def _written(studio: Studio, seeds: Sequence[int], outdir: Path, shapes: Shapes) -> Iterator[str]:
    side, lacking = cube_side(studio.G, studio.rig), []
    for number, seed in enumerate(seeds):
        scene = studio.G.scene(studio.codes(seed), studio.screen(seed).options)
        field = point_field(studio.G, scene)
        what = f"shape {number + 1} of {len(seeds)}"
        grid = density_grid(field, side, shapes.resolution, studio.device, what)
        if not np.isfinite(grid).all():
            raise ConfigError(f"the densities of seed {seed} are no finite numbers: has this network diverged?")
        path = outdir / f"seed{seed:04d}"
        if "mrc" in shapes.formats:
            write_mrc(grid, side, path.with_suffix(".mrc"))
            yield f"{path.name}: densities from {grid.min():.4g} to {grid.max():.4g}"
        wanted = [name for name in shapes.formats if name in MESHES]
        if wanted:
            try:
                level = level_of(grid, side, shapes.level, seed)
            except ConfigError as error:
                lacking.append(error)
                if len(lacking) == len(seeds):
                    raise
                yield f"{path.name}: no mesh, since {error}"
                continue
            mesh = surface(grid, side, level).largest()
            made = coloured(mesh, field, side, level, side / (shapes.resolution - 1), studio.device)
            for name in wanted:
                MESHES[name](made, path.with_suffix(f".{name}"))
            yield f"{path.name}: {len(made.vertices):,} vertices where the density is {level:.4g}"


def point_field(G: Any, scene: Any) -> PointField:
    """A scene of one item as the rendering library asks it."""

    def field(points: Tensor, directions: Tensor | None) -> tuple[Tensor, Tensor]:
        out = G.query(scene, points[None], None if directions is None else directions[None])
        return out.density[0], out.colour[0]

    return field


def level_of(grid: Grid, side: float, given: float | None, seed: int) -> float:
    """The given level, or the rule's. Raises ConfigError if it does not occur."""
    level = surface_level(grid, side) if given is None else given
    low, high = grid.min(), grid.max()
    if level is None:
        why = f"seed {seed} is so thin that no light from the front loses half of itself"
    elif not low < level <= high:
        why = f"seed {seed} has no surface where the density is {level:.4g}"
    else:
        return level
    raise ConfigError(f"{why}: its densities go from {low:.4g} to {high:.4g}, give --shape-level between them")
