"""Zips and folders of images with an optional dataset.json, as StyleGAN2-ada and EG3D write them.

Images are sorted by relative path. Class labels become one-hot vectors of the largest index plus one; 25-number labels
are cameras. mirror doubles the list: the second half shows image, label map and camera flipped left to right.
"""

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from dnnlib.errors import DataError
from training.contracts import Condition
from training.rendering.cameras import Camera

from . import labels, pictures
from .archive import open_archive
from .dataset import DataSet, ImageCache, Sample


class ImageFolder(DataSet):
    """The data set.

    resolution: resize on load; None: as stored, and all images must have one size. cond: read labels. cameras: None
    takes them from a "cameras" table or from labels of 25 numbers; True insists on them; False ignores them. subset:
    use that many images, drawn with subset_seed. cache keeps decoded images; None: when all fit into 1 GiB.
    Raises DataError.
    """

    def __init__(
        self, path: str, *, resolution: int | None = None, cond: bool = False, cameras: bool | None = None,
        mirror: bool = False, subset: int | None = None, subset_seed: int = 0, cache: bool | None = None,
    ) -> None:  # fmt: skip
        self.archive = open_archive(path)
        self.name = self.archive.path.stem
        self.images = [name for name in self.archive.names if pictures.is_picture(name)]
        if not self.images:
            raise DataError(f"{self.archive.path} holds no images: is it the right folder or zip?")
        self._mirror, self._resize = mirror, resolution is not None
        first = pictures.decode(self.archive.read(self.images[0]), self._where(self.images[0]))
        self.num_channels = 1 if first.mode in pictures.GREY else 3
        self.resolution = resolution or self._side(*first.size, self.images[0])
        known = labels.read_known(self.archive, self.images, cond, cameras)
        self.has_cameras = known.cameras is not None
        if known.classes is not None:
            self.label_dim = int(known.classes.max()) + 1
        elif known.vectors is not None:
            self.label_dim = known.vectors.shape[1]
        self._choose(known, subset, subset_seed)
        shape = (self.num_channels, self.resolution, self.resolution)
        wanted = ImageCache.fits(len(self.images), shape) if cache is None else cache
        self._cache = ImageCache(len(self.images), shape) if wanted else None

    def __len__(self) -> int:
        return len(self.images) * (2 if self._mirror else 1)

    def sample(self, item: int) -> Sample:
        image = self._image(item % len(self.images))
        return Sample(image=image.flip(2) if self._is_flipped(item) else image)

    def conditions(self, items: Int[Tensor, "N"]) -> Condition:
        rows, flipped = items % len(self.images), items >= len(self.images)
        camera = None if self._cameras is None else Camera.from_label(self._cameras[rows])
        if camera is not None and flipped.any():
            mirrored, where = camera.mirrored(), flipped[:, None, None]
            camera = Camera(
                torch.where(where, mirrored.cam2world, camera.cam2world),
                torch.where(where, mirrored.intrinsics, camera.intrinsics),
            )
        if self._classes is not None:
            label = torch.nn.functional.one_hot(self._classes[rows], self.label_dim).float()
        else:
            label = None if self._vectors is None else self._vectors[rows]
        return Condition(camera=camera, label=label)

    def check(self) -> None:
        """Look at the header (and the end, where that is cheap) of every image; decode all if they are few."""
        total = 0
        for name in self.images:
            width, height = pictures.size(self.archive, name)
            if not self._resize and (width, height) != (self.resolution, self.resolution):
                raise DataError(
                    f"{self._where(name)} is {width}x{height}, {self.images[0]} is {self.resolution} px square: set "
                    f"resolution={self.resolution} to resize on load, or pack the set with apps/dataset_tool.py."
                )
            self._side(width, height, name)
            total += width * height
        if total <= pictures.FULLY_CHECKED:
            for row in range(len(self.images)):
                self._image(row)

    def _image(self, row: int) -> UInt8[Tensor, "C H W"]:
        cached = self._cache[row] if self._cache else None
        if cached is not None:
            return cached
        name = self.images[row]
        picture = pictures.decode(self.archive.read(name), self._where(name))
        if self.num_channels == 1 and picture.mode not in pictures.GREY:
            raise DataError(f"{self._where(name)} has colours, {self.images[0]} is grey: convert one of them.")
        picture = picture.convert("L" if self.num_channels == 1 else "RGB")
        if self._resize:
            picture = pictures.resized(picture, self.resolution, self.resolution)
        if picture.size != (self.resolution, self.resolution):
            raise DataError(f"{self._where(name)} is {picture.width}x{picture.height}, not {self.resolution} square.")
        pixels = np.array(picture, dtype=np.uint8).reshape(self.resolution, self.resolution, -1)
        image = torch.from_numpy(pixels).movedim(2, 0).contiguous()
        if self._cache:
            self._cache[row] = image
        return image

    def _side(self, width: int, height: int, name: str) -> int:
        if width != height:
            raise DataError(
                f"{self._where(name)} is {width}x{height}, not square: pack the set with apps/dataset_tool.py "
                "--transform=center-crop."
            )
        return width

    def _where(self, name: str) -> str:
        return f"{self.archive.path}: {name}"

    def _is_flipped(self, item: int) -> bool:
        if not 0 <= item < len(self):
            raise IndexError(f"item {item} of {len(self)}")
        return item >= len(self.images)

    def _choose(self, known: labels.Known, subset: int | None, seed: int) -> None:
        """Keep `subset` images, in order, and what is known about them. The same ones as StyleGAN2-ada keeps."""
        rows = np.arange(len(self.images))
        if subset is not None and subset < len(rows):
            np.random.RandomState(seed % 2**31).shuffle(rows)
            rows = np.sort(rows[:subset])

        def kept(values: np.ndarray | None) -> Tensor | None:
            return None if values is None else torch.from_numpy(values[rows])

        self.images = [self.images[row] for row in rows]
        self._cameras, self._classes, self._vectors = kept(known.cameras), kept(known.classes), kept(known.vectors)
