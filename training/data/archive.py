"""A zip or a folder, read entry by entry.

Handles are opened once per process, so that forked workers do not share a file position. Names are relative paths with
'/'. Every failure is a DataError that names the archive and the entry.
"""

import os
import stat
import struct
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

from dnnlib.errors import DataError

MAX_ENTRY = 2**28  # bytes an entry may unpack to: no picture is larger, a decompression bomb is
BROKEN = (OSError, EOFError, ValueError, SyntaxError, RuntimeError, NotImplementedError, struct.error, zlib.error,
          zipfile.BadZipFile)  # fmt: skip  # what zipfile and PIL raise on damaged or hostile bytes


def open_archive(path: str | Path) -> "Archive":
    """The zip or folder at path ('~' is expanded)."""
    place = Path(path).expanduser()
    if place.is_dir():
        return Folder(place)
    if not place.exists():
        raise DataError(f"{place} does not exist: give a folder of images, a zip, or critters.")
    if not (place.is_file() and zipfile.is_zipfile(place)):
        raise DataError(f"{place} is no zip, or a zip that was cut short: copy or make it again.")
    return Zip(place)


class Archive:
    """Base of the two kinds. `names` are all files, sorted as strings."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.names = sorted(name for name in self._list() if not _is_litter(name))

    def read(self, name: str) -> bytes:
        """All bytes of an entry."""
        try:
            return self._read(name)
        except (KeyError, FileNotFoundError):
            raise DataError(f"{self.path}: there is no entry {name}.") from None
        except BROKEN as error:
            raise DataError(f"{self.path}: {name} cannot be read ({_first_line(error)}).") from error

    def ends(self, name: str, head: int = 64, tail: int = 12) -> tuple[bytes, bytes] | None:
        """The first and last bytes of an entry; None where that would cost as much as reading all of it."""
        try:
            return self._ends(name, head, tail)
        except BROKEN as error:
            raise DataError(f"{self.path}: {name} cannot be read ({_first_line(error)}).") from error

    def _list(self) -> list[str]:
        raise NotImplementedError

    def _read(self, name: str) -> bytes:
        raise NotImplementedError

    def _ends(self, name: str, head: int, tail: int) -> tuple[bytes, bytes] | None:
        raise NotImplementedError


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _is_litter(name: str) -> bool:
    """What macOS leaves in zips beside every picture."""
    return name.startswith("__MACOSX/") or name.rpartition("/")[2].startswith("._")


class Folder(Archive):
    def _list(self) -> list[str]:
        found = (os.path.join(base, file) for base, _, files in os.walk(self.path) for file in files)
        return [os.path.relpath(path, self.path).replace(os.sep, "/") for path in found]

    def _read(self, name: str) -> bytes:
        path = self.path / name
        if path.stat().st_size > MAX_ENTRY:
            raise ValueError(f"it is larger than {MAX_ENTRY >> 20} MiB")
        return path.read_bytes()

    def _ends(self, name: str, head: int, tail: int) -> tuple[bytes, bytes]:
        with open(self.path / name, "rb") as file:
            return _both_ends(file, 0, os.fstat(file.fileno()).st_size, head, tail)


def _both_ends(file: BinaryIO, start: int, size: int, head: int, tail: int) -> tuple[bytes, bytes]:
    file.seek(start)
    first = file.read(min(head, size))
    file.seek(start + max(size - tail, 0))
    return first, file.read(min(tail, size))


class Zip(Archive):
    def __init__(self, path: Path) -> None:
        self._handles: dict[int, zipfile.ZipFile] = {}
        super().__init__(path)

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_handles": {}}

    def _zip(self) -> zipfile.ZipFile:
        """This process's own handle."""
        process = os.getpid()
        if process not in self._handles:
            try:
                self._handles[process] = zipfile.ZipFile(self.path)
            except BROKEN as error:
                raise DataError(f"{self.path} is a damaged zip ({_first_line(error)}): make it again.") from error
        return self._handles[process]

    def _list(self) -> list[str]:
        names = []
        for entry in self._zip().infolist():
            if entry.is_dir():
                continue
            name = entry.filename
            if name.startswith("/") or ".." in name.split("/") or "\\" in name or name[1:2] == ":":
                raise DataError(f"{self.path}: entry {name!r} points outside the archive: do not use this file.")
            if stat.S_ISLNK(entry.external_attr >> 16):
                raise DataError(f"{self.path}: entry {name!r} is a symbolic link: store the file itself.")
            if entry.file_size > MAX_ENTRY:
                size = f"{entry.file_size >> 20} MiB, more than the {MAX_ENTRY >> 20} MiB that a picture may take"
                raise DataError(f"{self.path}: entry {name!r} unpacks to {size}.")
            names.append(name)
        return names

    def _read(self, name: str) -> bytes:
        with self._zip().open(name) as file:
            return file.read(MAX_ENTRY)

    def _ends(self, name: str, head: int, tail: int) -> tuple[bytes, bytes] | None:
        archive = self._zip()
        entry = archive.getinfo(name)
        file = archive.fp
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 or file is None:
            return None
        file.seek(entry.header_offset)
        header = file.read(30)  # ends with the lengths of name and extra field, which precede the data
        if header[:4] != b"PK\x03\x04":
            raise zipfile.BadZipFile("its local header is damaged")
        start = entry.header_offset + 30 + sum(struct.unpack("<HH", header[26:30]))
        return _both_ends(file, start, entry.file_size, head, tail)  # pyright: ignore[reportArgumentType]
