"""Writes zips (stored, not compressed, as the readers like them) and folders of images, whole or not at all.

No torch here. Equal content gives equal bytes: entries carry no time.
"""

import json
import os
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dnnlib.errors import DataError

from .labels import LABELS_FILE

EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip can hold


def image_name(index: int) -> str:
    """NVIDIA's name of the image at this index: 00012/img00012345.png."""
    digits = f"{index:08d}"
    return f"{digits[:5]}/img{digits}.png"


class Writer:
    """A data set that is being written."""

    def add(self, name: str, data: bytes) -> None:
        raise NotImplementedError

    def add_json(self, content: dict[str, Any]) -> None:
        """dataset.json."""
        self.add(LABELS_FILE, json.dumps(content).encode())


class _ZipWriter(Writer):
    def __init__(self, path: Path) -> None:
        self.zip = zipfile.ZipFile(path, "w", zipfile.ZIP_STORED)

    def add(self, name: str, data: bytes) -> None:
        entry = zipfile.ZipInfo(name, EPOCH)
        entry.external_attr = 0o644 << 16
        self.zip.writestr(entry, data)


class _FolderWriter(Writer):
    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()

    def add(self, name: str, data: bytes) -> None:
        place = self.path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)


@contextmanager
def writing(dest: str | Path) -> Iterator[Writer]:
    """A writer for a zip (dest ends in .zip) or a folder (new or empty), which appears when the block ends well.

    Until then its parts lie beside it in a hidden file or folder, which goes away if the block fails. Raises DataError.
    """
    place = Path(dest).expanduser()
    is_zip = place.suffix.lower() == ".zip"
    if not place.name:
        raise DataError(f"{str(dest)!r} names no place to write to: give a new folder or a .zip.")
    partial = place.with_name(f".{place.name}.{os.getpid()}.partial")
    try:
        if place.is_dir() and (is_zip or any(place.iterdir())):
            raise DataError(f"{place} is a folder that holds something: choose an empty or a new one, or a .zip.")
        place.parent.mkdir(parents=True, exist_ok=True)
        out = _ZipWriter(partial) if is_zip else _FolderWriter(partial)
        try:
            yield out
        finally:
            if isinstance(out, _ZipWriter):
                out.zip.close()
        if place.is_dir():
            place.rmdir()
        partial.replace(place)
    except OSError as error:
        raise DataError(f"{place} cannot be written: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if partial.exists():
            partial.unlink()
