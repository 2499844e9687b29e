"""From seeds and shots to files: stills, frames and films of any model. generate.py and the apps call it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from dnnlib.errors import ConfigError
from dnnlib.options import nearest, seeds_text
from dnnlib.progress import progress
from torch_utils.draws import Draws
from torch_utils.images import depth_limits, depth_picture, save_png, tile, to_uint8
from torch_utils.video import FilmWriter
from training.contracts import Camera, CameraRig, Codes, GeneratorOutput, RenderOptions, Shot
from training.rendering.surface import surface_normals, surface_points

MADE_OF = {"image": "image", "raw": "image_raw", "depth": "depth", "normals": "depth"}  # modality -> output field
Limits = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Studio:
    """A network, and how its seeds are shown."""

    G: Any  # contracts.Generator
    rig: CameraRig
    codes: Callable[[int], Codes]  # of a seed, a batch of one
    options: RenderOptions
    device: torch.device

    def screen(self, seed: int, modalities: Sequence[str] = ("image",)) -> "Screen":
        """Random noise, where it is asked for, follows from the seed too."""
        draws = Draws(seed=seed, phase="generate", device=self.device)
        return Screen(self.G, self.options.using(draws), modalities)


class Screen:
    """Renders the shots of one film, one at a time.

    Keeps the scene of the last shot, so that it is built once for all its cameras; and the depth range of the first,
    so that greys do not flicker.
    """

    def __init__(self, G: Any, options: RenderOptions, modalities: Sequence[str]) -> None:
        self.G, self.options, self.modalities = G, options, modalities
        self._scene: tuple[Any, Any] | None = None
        self._limits: Limits | None = None

    @torch.no_grad()
    def output(self, shot: Shot) -> GeneratorOutput:
        """The shot rendered; a model without camera shows its one view."""
        if not hasattr(self.G, "scene"):
            return self.G.synthesis(shot.codes, None, self.options)
        if self._scene is None or self._scene[0] != shot.scene:
            self._scene = shot.scene, self.G.scene(shot.codes, self.options)
        return self.G.render(self._scene[1], shot.camera, self.options)

    def pictures(self, shot: Shot) -> list[Float[Tensor, "1 3 _ _"]]:
        """The shot's modalities, each at its own size. Raises ConfigError if the model lacks one."""
        output = self.output(shot)
        if self._limits is None and output.depth is not None:
            self._limits = depth_limits(output.depth, output.opacity)
        return [picture(output, name, shot.camera, self._limits) for name in self.modalities]

    def frame(self, shot: Shot) -> UInt8[np.ndarray, "H W C"]:
        """The shot's modalities side by side, all as high as the first."""
        first, *others = self.pictures(shot)
        size = first.shape[2:]
        scaled = [torch.nn.functional.interpolate(other, size, mode="bilinear", antialias=True) for other in others]
        return to_uint8(torch.cat([first, *scaled], dim=3))[0]


def picture(
    output: GeneratorOutput, modality: str, camera: Camera, limits: Limits | None = None
) -> Float[Tensor, "N 3 _ _"]:
    """One modality as colours in [-1, 1], at its own size. Raises ConfigError for one that cannot be shown."""
    if modality not in MADE_OF:
        raise ConfigError(f"there is no modality {modality}{nearest(modality, MADE_OF)}")
    made = getattr(output, MADE_OF[modality])
    if made is None:
        raise ConfigError(f"this model gives no {MADE_OF[modality]}, so {modality} cannot be shown")
    if modality == "depth":
        made = depth_picture(made, output.opacity, limits)
    elif modality == "normals":
        if min(made.shape[2:]) < 3:  # central differences lose a pixel on each side
            raise ConfigError(f"normals need at least 3 rays a side, not {made.shape[3]}: give a larger --nrr")
        made = surface_normals(surface_points(camera, made))
        made = made if output.opacity is None else made.where(output.opacity[:, :, 1:-1, 1:-1] > 0.5, -1.0)
    return made.expand(-1, 3, -1, -1)


def frames(
    screens: Sequence[Screen], reels: Sequence[Iterable[Shot]], columns: int
) -> Iterator[UInt8[np.ndarray, "H W C"]]:
    """The frames of a film that shows reels of equal length at once, row by row in a grid."""
    for shots in zip(*reels, strict=True):
        yield tile(np.stack([screen.frame(shot) for screen, shot in zip(screens, shots, strict=True)]), columns)


def write_stills(studio: Studio, seeds: Sequence[int], outdir: Path, depth: bool = False) -> None:
    """seedNNNN.png from the rig's mean camera; with depth also seedNNNN_raw.png and seedNNNN_depth.png."""
    camera = studio.rig.mean.to(studio.device)
    names = {"": "image", "_raw": "raw", "_depth": "depth"} if depth else {"": "image"}
    for seed in progress(seeds, len(seeds), "pictures"):
        shown = studio.screen(seed, list(names.values())).pictures(Shot(codes=studio.codes(seed), camera=camera))
        for suffix, made in zip(names, shown, strict=True):
            save_png(to_uint8(made)[0], outdir / f"seed{seed:04d}{suffix}.png")


def cast(seeds: Sequence[int], grid: tuple[int, int] | None, together: bool) -> list[list[Sequence[int]]]:
    """Films -> places of their grid -> the seeds shown there, one after the other.

    With a grid all seeds share one film; without, they do so if they blend, and else have a film each.
    """
    columns, rows = grid or (1, 1)
    places = columns * rows if grid or together else len(seeds)
    if len(seeds) % places:
        raise ConfigError(
            f"--grid={columns}x{rows} shows {places} seeds at once, so the number of seeds must be a multiple of that, "
            f"not {len(seeds)}"
        )
    each = len(seeds) // places
    parts = [seeds[start : start + each] for start in range(0, len(seeds), each)]
    return [parts] if grid or together else [[part] for part in parts]


def write_films(
    studio: Studio, program: Any, name: str, seeds: Sequence[int], outdir: Path,
    grid: tuple[int, int] | None = None, video: bool = True, depth: bool = False,
) -> list[Path]:  # fmt: skip
    """Films of what the program of that name yields, each with a folder of its frames. Returns the films.

    A film of one seed is called seed_NNNNNN, others after the program and their seeds.
    """
    if not hasattr(studio.G, "scene") and not program.blends_seeds:
        raise ConfigError(f"this model makes flat images and has no camera, so {name} has nothing to move")
    modalities = [*program.modalities, *(["depth"] if depth and "depth" not in program.modalities else [])]
    films = []
    for parts in cast(seeds, grid, program.blends_seeds):
        shown = [seed for part in parts for seed in part]
        title = f"seed_{shown[0]:06d}" if len(shown) == 1 else f"{name}_{seeds_text(shown)[:100]}"
        screens = [studio.screen(part[0], modalities) for part in parts]
        codes = [[studio.codes(seed) for seed in part] for part in parts]
        reels = [[replace(shot, camera=shot.camera.to(studio.device)) for shot in program.shots(row, studio.rig)]
                 for row in codes]  # fmt: skip
        with FilmWriter(outdir / title, program.fps, video) as writer:
            for frame in progress(frames(screens, reels, grid[0] if grid else 1), len(reels[0]), title):
                writer.add(frame)
        films += [writer.film] if writer.film else []
    return films
