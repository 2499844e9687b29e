"""Makes a uniform data set out of any images: crops, resizes, checks, writes. The work of apps/dataset_tool.py.

Options and results are those of the dataset tools of StyleGAN2-ada, EG3D and StyleNeRF. No torch here.
"""

from collections.abc import Callable, Iterable
from itertools import islice

import numpy as np
from PIL import Image

from dnnlib.errors import ConfigError, DataError
from dnnlib.limits import check_numbers

from .pictures import png
from .sources import Item, Source
from .writer import image_name, writing

Change = Callable[[np.ndarray], np.ndarray | None]  # None: skip this image
FILTERS = {"box": Image.Resampling.BOX, "lanczos": Image.Resampling.LANCZOS}
TRANSFORMS = ("center-crop", "center-crop-wide")


def transform(kind: str | None, width: int | None, height: int | None, resize_filter: str = "lanczos") -> Change:
    """What --transform, the wanted size and --resize-filter do to an image."""
    check_numbers({"width": width, "height": height}, "--resolution")
    if resize_filter not in FILTERS:
        raise ConfigError(f"--resize-filter={resize_filter} is unknown; there are box and lanczos.")
    resample = FILTERS[resize_filter]

    def resize(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        if (pixels.shape[1], pixels.shape[0]) == size:
            return pixels
        return np.array(Image.fromarray(pixels).resize(size, resample))

    if kind is None:
        return lambda pixels: _plain(pixels, width, height, resize)
    if kind not in TRANSFORMS:
        raise ConfigError(f"--transform={kind} is unknown; there are {' and '.join(TRANSFORMS)}.")
    if not width or not height:
        raise ConfigError(f"--transform={kind} needs the size to make: add --resolution=WxH.")
    if kind == "center-crop":
        return lambda pixels: resize(_centre_square(pixels), (width, height))
    return lambda pixels: _wide(pixels, width, height, resize)


def _centre_square(pixels: np.ndarray) -> np.ndarray:
    side = min(pixels.shape[:2])
    top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
    return pixels[top : top + side, left : left + side]


def _plain(pixels: np.ndarray, width: int | None, height: int | None, resize: Callable) -> np.ndarray:
    """To the wanted size; a landscape one stands in a black square (StyleNeRF's cars)."""
    out = resize(pixels, (width or pixels.shape[1], height or pixels.shape[0]))
    return _in_square(out) if width and height and width > height else out


def _wide(pixels: np.ndarray, width: int, height: int, resize: Callable) -> np.ndarray | None:
    """Full width, the middle rows, in a black square; None for an image that is too small.

    As in the references the rows kept are those that the image has once it is `width` wide, whatever height asks for:
    meant for images that are `width` wide already (LSUN cars), others are squeezed.
    """
    rows = round(width * pixels.shape[0] / pixels.shape[1])
    if pixels.shape[1] < width or rows < height:
        return None
    top, bottom = (pixels.shape[0] - rows) // 2, (pixels.shape[0] + rows) // 2
    return _in_square(resize(pixels[top:bottom], (width, height)))


def _in_square(pixels: np.ndarray) -> np.ndarray:
    height, width = pixels.shape[:2]
    canvas = np.zeros((width, width, *pixels.shape[2:]), dtype=np.uint8)
    top = (width - height) // 2
    canvas[top : top + height] = pixels
    return canvas


def pack(source: Source, dest: str, change: Change, most: int | None, show: Callable[..., Iterable[Item]]) -> int:
    """Write the changed images of a source and what is known about them; returns how many there are.

    show(items, total, unit) yields the items and tells how far it is. most: read no more images than that. The n-th
    image read is called image_name(n), so names have gaps where images were skipped. Raises DataError.
    """
    total = min(len(source), most or len(source))
    labels: list[tuple[str, object]] = []
    cameras: list[tuple[str, object]] = []
    shape: tuple[int, ...] | None = None
    with writing(dest) as out:
        for i, item in enumerate(show(islice(source, total), total, "images")):
            pixels = change(item.pixels)
            if pixels is None:
                continue
            _check(pixels, shape, item.where)
            shape, name = pixels.shape, image_name(i)
            out.add(name, png(pixels))
            labels.append((name, item.label))
            cameras.append((name, item.camera))
        if shape is None:
            raise DataError(f"all {total} images were skipped: they are smaller than the size asked for.")
        content: dict[str, object] = {"labels": _complete(labels)}
        if _complete(cameras):
            content["cameras"] = cameras
        out.add_json(content)
    return len(labels)


def _complete(pairs: list[tuple[str, object]]) -> list[tuple[str, object]] | None:
    return pairs if all(value is not None for _, value in pairs) else None


def _check(pixels: np.ndarray, shape: tuple[int, ...] | None, where: str) -> None:
    height, width = pixels.shape[:2]
    size = f"{width}x{height}"
    if width != height:
        raise DataError(f"{where} is {size}, not square: add --transform=center-crop --resolution=WxH.")
    if width & (width - 1):
        raise DataError(f"{where} is {size}, no power of two: add --resolution=WxH.")
    if shape is not None and pixels.shape != shape:
        raise DataError(
            f"{where} is {size} with {pixels[0, 0].size} channels, the images before it {shape[1]}x{shape[0]} with "
            f"{(*shape, 1)[2]}: add --resolution=WxH, or convert all to one kind."
        )
