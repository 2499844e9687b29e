"""Picture files: which names are pictures, their size from the header, decoding, resizing, PNG bytes.

No torch here, so that the tools that pack data sets start fast.
"""

import io
import struct
import warnings
from functools import cache
from pathlib import PurePosixPath

import numpy as np
from PIL import Image, UnidentifiedImageError

from dnnlib.errors import DataError

from .archive import BROKEN, Archive

MAX_PIXELS = 2**26  # a picture that claims more is taken for a decompression bomb
FULLY_CHECKED = 2**25  # a set whose pictures have no more pixels together is decoded before training
COLOUR = ("P", "RGB", "RGBA", "LA", "PA", "CMYK", "YCbCr")
GREY = ("1", "L")
DEEP = ("I;16", "I;16B", "I")  # 16-bit grey


@cache
def extensions() -> frozenset[str]:
    """File name endings of the formats that PIL reads, as StyleGAN2-ada decides what an image is."""
    Image.init()
    return frozenset(ending for ending, kind in Image.EXTENSION.items() if kind in Image.OPEN)


def is_picture(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in extensions()


def size(archive: Archive, name: str) -> tuple[int, int]:
    """Width and height, from a few bytes where the file is a PNG (whose end is looked at too)."""
    where = f"{archive.path}: {name}"
    ends = archive.ends(name)
    data = b"" if ends else archive.read(name)
    head, tail = ends or (data[:64], data[-12:])
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        if len(head) < 33 or head[12:16] != b"IHDR" or b"IEND" not in tail:
            raise DataError(f"{where} is a truncated or damaged PNG: copy or make it again.")
        width, height = struct.unpack(">II", head[16:24])
    else:
        width, height = _open(data or archive.read(name), where).size
    return _checked_size(width, height, where)


def decode(data: bytes, where: str, deep: bool = False) -> Image.Image:
    """The picture in these bytes, wholly decoded. `where` names file and entry in errors; deep: 16-bit grey only."""
    image = _open(data, where)
    _checked_size(*image.size, where)
    try:
        image.load()
    except BROKEN as error:
        raise DataError(f"{where} is a truncated or damaged picture ({error}): copy or make it again.") from error
    if image.mode not in (DEEP if deep else COLOUR + GREY):
        raise DataError(f"{where} has pixels of kind {image.mode}; it must be {'16-bit grey' if deep else '8-bit'}.")
    return image


def _open(data: bytes, where: str) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own bound is tighter
            return Image.open(io.BytesIO(data))
    except UnidentifiedImageError:
        raise DataError(f"{where} is no picture, or its header is damaged.") from None
    except (*BROKEN, Image.DecompressionBombError) as error:
        raise DataError(f"{where} cannot be read ({error}).") from error


def _checked_size(width: int, height: int, where: str) -> tuple[int, int]:
    if width * height > MAX_PIXELS:
        raise DataError(f"{where} claims {width}x{height} pixels, more than the {MAX_PIXELS} that are decoded.")
    if width < 1 or height < 1:
        raise DataError(f"{where} claims {width}x{height} pixels.")
    return width, height


def resized(image: Image.Image, width: int, height: int) -> Image.Image:
    """Averaged over areas when it gets smaller in both directions, Lanczos otherwise."""
    if image.size == (width, height):
        return image
    smaller = width <= image.width and height <= image.height
    return image.resize((width, height), Image.Resampling.BOX if smaller else Image.Resampling.LANCZOS)


def png(pixels: np.ndarray) -> bytes:
    """An uncompressed PNG of uint8 [H, W] or [H, W, 3], or uint16 [H, W] pixels."""
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, format="PNG", compress_level=0)
    return data.getvalue()
