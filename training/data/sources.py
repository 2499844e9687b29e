"""Where apps/dataset_tool.py takes images from: folders, zips, CIFAR-10, MNIST, LMDB. No torch here."""

import gzip
import io
import pickle
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dnnlib.errors import DataError

from . import pictures
from .archive import BROKEN, Archive, open_archive
from .labels import LABELS_FILE, pairs, read_json


@dataclass(frozen=True)
class Item:
    """One image of a source: uint8 [H, W] or [H, W, 3], what it is called, and what is known about it."""

    pixels: np.ndarray
    where: str
    label: Any = None
    camera: Any = None


class Source:
    """Images in order."""

    def __len__(self) -> int:
        raise NotImplementedError

    def __iter__(self) -> Iterator[Item]:
        raise NotImplementedError


def open_source(path: str) -> Source:
    """The source at path, by its name as in StyleGAN2-ada's tool. Raises DataError."""
    place = Path(path).expanduser()
    if not place.exists():
        raise DataError(f"{place} does not exist: --source is a folder, a zip, a CIFAR-10 or an MNIST archive.")
    if place.is_dir():
        return _Lmdb(place) if place.name.rstrip("/").endswith("_lmdb") else _Files(open_archive(place))
    try:
        if place.name == "cifar-10-python.tar.gz":
            return _Arrays(*_cifar(place), where=str(place))
        if place.name == "train-images-idx3-ubyte.gz":
            return _Arrays(*_mnist(place), where=str(place))
    except (*BROKEN, tarfile.TarError, pickle.UnpicklingError, KeyError) as error:
        raise DataError(f"{place} is damaged or no such archive ({error}).") from error
    if place.suffix.lower() == ".zip":
        return _Files(open_archive(place))
    raise DataError(
        f"{place} is of no known kind: --source is a folder, a .zip, cifar-10-python.tar.gz or "
        "train-images-idx3-ubyte.gz."
    )


def plain_pixels(data: bytes, where: str) -> np.ndarray:
    """A decoded picture as grey or RGB pixels; transparency is dropped."""
    picture = pictures.decode(data, where)
    return np.array(picture.convert("L" if picture.mode in (*pictures.GREY, "LA") else "RGB"))


class _Files(Source):
    """A folder or zip, with its dataset.json."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._names = [name for name in archive.names if pictures.is_picture(name)]
        if not self._names:
            raise DataError(f"{archive.path} holds no images.")
        where = f"{archive.path}: {LABELS_FILE}"
        content = read_json(archive.read(LABELS_FILE), where) if LABELS_FILE in archive.names else {}
        self._labels, self._cameras = pairs(content, "labels", where), pairs(content, "cameras", where)

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[Item]:
        for name in self._names:
            where = f"{self._archive.path}: {name}"
            pixels = plain_pixels(self._archive.read(name), where)
            yield Item(pixels, where, self._labels.get(name), self._cameras.get(name))


class _Arrays(Source):
    """Images that are in memory at once."""

    def __init__(self, images: np.ndarray, labels: Sequence[int], where: str) -> None:
        self._images, self._labels, self._where = images, labels, where

    def __len__(self) -> int:
        return len(self._images)

    def __iter__(self) -> Iterator[Item]:
        for i, (pixels, label) in enumerate(zip(self._images, self._labels, strict=True)):
            yield Item(pixels, f"{self._where}: image {i}", int(label))


class _ArraysOnly(pickle.Unpickler):
    """Reads numpy arrays and plain values; runs nothing else that a pickle may ask for."""

    def find_class(self, module: str, name: str) -> Any:
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return np.empty(0).__reduce__()[0]
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no CIFAR-10 file needs")


def _cifar(path: Path) -> tuple[np.ndarray, list[int]]:
    """The 50,000 training images, [N, 32, 32, 3], and their classes."""
    images, labels = [], []
    with tarfile.open(path) as archive:
        for batch in range(1, 6):
            file = archive.extractfile(f"cifar-10-batches-py/data_batch_{batch}")
            if file is None:
                raise ValueError(f"data_batch_{batch} is no file")
            content = _ArraysOnly(io.BytesIO(file.read()), encoding="latin1").load()
            if not _is_batch(content):
                raise ValueError(f"data_batch_{batch} does not hold images with a class number each")
            images.append(content["data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
            labels += content["labels"]
    return np.concatenate(images), labels


def _is_batch(content: Any) -> bool:
    """Whether a pickle holds what one of CIFAR-10 does: uint8 [N, 3072] and N class numbers."""
    if not (isinstance(content, dict) and {"data", "labels"} <= content.keys()):
        return False
    data, labels = content["data"], content["labels"]
    if not (isinstance(data, np.ndarray) and isinstance(labels, list) and all(type(kind) is int for kind in labels)):
        return False
    return data.dtype == np.uint8 and data.shape == (len(labels), 3072)


def _mnist(path: Path) -> tuple[np.ndarray, list[int]]:
    """The images padded from 28 to 32 pixels, [N, 32, 32], and their digits."""
    beside = path.with_name("train-labels-idx1-ubyte.gz")
    with gzip.open(path) as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)
    with gzip.open(beside) as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    if len(labels) != len(images):
        raise ValueError(f"{len(images)} images, but {len(labels)} labels in {beside.name}")
    return np.pad(images, [(0, 0), (2, 2), (2, 2)]), labels.tolist()


class _Lmdb(Source):
    """A folder written by LMDB whose values are picture files (LSUN)."""

    def __init__(self, path: Path) -> None:
        try:
            import lmdb  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise DataError(f"{path} is an LMDB folder: reading it needs a package, pip install lmdb.") from None
        self._path = path
        self._environment = lmdb.open(str(path), readonly=True, lock=False)

    def __len__(self) -> int:
        return self._environment.stat()["entries"]

    def __iter__(self) -> Iterator[Item]:
        with self._environment.begin() as reading:
            for key, value in reading.cursor():
                where = f"{self._path}: {key.decode(errors='replace')}"
                yield Item(plain_pixels(bytes(value), where), where)
