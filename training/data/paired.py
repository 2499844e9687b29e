"""Images with a second zip or folder of maps: label maps, edge maps or depth, one for each image.

Paired by relative path without its ending. Where names differ, as in pix2pix3D's published pairs, the n-th image goes
with the n-th map in sorted order, with a warning, and the counts must agree. The maps' own dataset.json may say
{"kind": "labels" | "edges" | "depth", "classes": [names], "unit": scene units of one step of 16-bit depth}.
"""

import warnings
from dataclasses import replace
from reprlib import repr as short
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from dnnlib.errors import DataError
from dnnlib.hints import fits

from . import pictures
from .archive import Archive, open_archive
from .dataset import ImageCache, Sample
from .image_folder import ImageFolder
from .labels import LABELS_FILE, read_json

Kind = Literal["labels", "edges", "depth"]
LARGEST_UNIT = 1e6  # scene units of one step of depth: 65535 of them are far from infinity


class PairedFolder(ImageFolder):
    """An ImageFolder whose samples also have a label_map (kind labels or edges) or depth.

    Label maps are single-channel, a pixel is a class index below num_classes; None: the names in dataset.json, else the
    largest index found in any map plus one. Edge maps are grey, black lines on white. Maps follow the images' size
    without interpolation. Other arguments as for ImageFolder.
    """

    def __init__(
        self, path: str, maps: str, *, kind: Kind | None = None, num_classes: int | None = None, **settings: Any
    ) -> None:
        super().__init__(path, **settings)
        self.maps = open_archive(maps)
        about = read_json(self.maps.read(LABELS_FILE), self._map_where(LABELS_FILE)) if self._has_json() else {}
        self.kind = kind or about.get("kind", "labels")
        if self.kind not in ("labels", "edges", "depth"):
            raise DataError(f"{self.maps.path} holds maps of kind {self.kind!r}; known are labels, edges and depth.")
        partner = _paired(self.archive, self.maps)
        self._partners = [partner[name] for name in self.images]
        self._unit = about.get("unit", 1.0)
        if not (fits(self._unit, float) and 0 < self._unit <= LARGEST_UNIT):
            wanted = f"a number above 0 and at most {LARGEST_UNIT:g}"
            raise DataError(f'{self._map_where(LABELS_FILE)}: "unit" is {short(self._unit)}, and not {wanted}.')
        classes = about.get("classes", [])
        if not isinstance(classes, list):
            raise DataError(f'{self._map_where(LABELS_FILE)}: "classes" is {short(classes)}, and not a list of names.')
        side = self.resolution
        small = self.kind != "depth" and ImageCache.fits(len(self.images), (1, side, side))
        self._map_cache = ImageCache(len(self.images), (1, side, side)) if small else None
        self.num_classes = {"labels": num_classes or len(classes), "edges": 1, "depth": 0}[self.kind]
        if self.kind == "labels" and not self.num_classes:
            self.num_classes = 1 + max(int(self._map(row).max()) for row in range(len(self.images)))

    def sample(self, item: int) -> Sample:
        sample = super().sample(item)
        map_ = self._map(item % len(self.images))
        map_ = map_.flip(2) if item >= len(self.images) else map_
        return replace(sample, depth=map_) if self.kind == "depth" else replace(sample, label_map=map_)

    def check(self) -> None:
        super().check()
        pixels = 0
        for name in self._partners:
            width, height = pictures.size(self.maps, name)
            pixels += width * height
        if pixels <= pictures.FULLY_CHECKED:
            for row in range(len(self.images)):
                self._map(row)

    def _map(self, row: int) -> Tensor:
        """uint8 [1, R, R], or float32 [1, R, R] for depth."""
        cached = self._map_cache[row] if self._map_cache else None
        if cached is not None:
            return cached
        pixels = self._read_map(self._partners[row])
        if self.kind == "depth":
            return torch.from_numpy(pixels.astype(np.float32) * self._unit)[None]
        if self.kind == "labels" and self.num_classes and pixels.max() >= self.num_classes:
            where = self._map_where(self._partners[row])
            raise DataError(
                f"{where} holds label {pixels.max()}; with {self.num_classes} classes the last is one less."
            )
        map_ = torch.from_numpy(pixels.astype(np.uint8))[None]
        if self._map_cache:
            self._map_cache[row] = map_
        return map_

    def _read_map(self, name: str) -> np.ndarray:
        where = self._map_where(name)
        picture = pictures.decode(self.maps.read(name), where, deep=self.kind == "depth")
        if self.kind == "edges":
            picture = picture.convert("L")
        pixels = np.array(picture)
        if pixels.ndim != 2:
            raise DataError(f"{where} has colours; a map of {self.kind} must have one channel that holds the values.")
        side, (height, width) = self.resolution, pixels.shape
        if height != width or (height != side and not (self._resize or self.kind == "edges")):
            raise DataError(f"{where} is {width}x{height}, its image {side} px square: they must agree.")
        chosen = np.arange(side) * height // side
        return pixels[chosen[:, None], chosen]

    def _has_json(self) -> bool:
        return LABELS_FILE in self.maps.names

    def _map_where(self, name: str) -> str:
        return f"{self.maps.path}: {name}"


def _paired(images: Archive, maps: Archive) -> dict[str, str]:
    """The map's name for every image's name."""
    wanted, found = ([name for name in source.names if pictures.is_picture(name)] for source in (images, maps))
    by_stem = {name.rpartition(".")[0]: name for name in found}
    if all(name.rpartition(".")[0] in by_stem for name in wanted):
        return {name: by_stem[name.rpartition(".")[0]] for name in wanted}
    if len(wanted) != len(found):
        lonely = next(name for name in wanted if name.rpartition(".")[0] not in by_stem)
        raise DataError(
            f"{maps.path} has no map for {lonely} of {images.path}, and cannot be paired by order: it holds "
            f"{len(found)} maps for {len(wanted)} images."
        )
    warnings.warn(f"{maps.path} and {images.path} share no names; paired in sorted order.", stacklevel=3)
    return dict(zip(wanted, found, strict=True))
