"""Class labels from folder names, in the order of torchvision's ImageFolder. The work of apps/dataset_labels.py."""

from dnnlib.errors import DataError

from . import pictures
from .archive import open_archive


def class_labels(source: str, min_size: int = 1) -> tuple[list[str], list[tuple[str, int]]]:
    """Names of the classes, and [path relative to source, class index] of every image below a class folder.

    Images with a side of fewer than min_size pixels are left out. Raises DataError.
    """
    archive = open_archive(source)
    images = [name for name in archive.names if pictures.is_picture(name) and "/" in name]
    classes = sorted({name.partition("/")[0] for name in images})
    if not classes:
        raise DataError(f"{archive.path} holds no folders of images: each class needs its own.")
    large = [name for name in images if min_size <= 1 or min(pictures.size(archive, name)) >= min_size]
    return classes, [(name, classes.index(name.partition("/")[0])) for name in large]
