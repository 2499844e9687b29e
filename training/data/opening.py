"""Opens the data set that `data=` and `labels=` name."""

import inspect
from typing import Any

from dnnlib.errors import ConfigError

from .critters import Critters
from .dataset import DataSet
from .image_folder import ImageFolder
from .paired import PairedFolder

CRITTERS = "critters"
CRITTERS_RESOLUTION = 64


def open_dataset(
    data: str, *, labels: str | None = None, resolution: int | None = None, cond: bool = False, mirror: bool = False,
    subset: int | None = None, check: bool = True, **settings: Any,
) -> DataSet:  # fmt: skip
    """The data set, checked.

    data: a zip, a folder, `critters`, or `critters:sphere` for cameras all around. labels: the zip or folder of maps;
    for critters `labels` or `edges`. settings: further arguments of Critters, ImageFolder or PairedFolder. Raises
    DataError, and ConfigError for settings that this kind of data set does not have.
    """
    settings = {**settings, "cond": cond, "mirror": mirror}
    name, _, poses = data.partition(":")
    if name == CRITTERS:
        settings |= {"resolution": resolution or CRITTERS_RESOLUTION}
        settings |= {key: value for key, value in (("poses", poses), ("maps", labels), ("size", subset)) if value}
        return _made(Critters, data, **settings)
    settings |= {"path": data, "resolution": resolution, "subset": subset}
    dataset = _made(PairedFolder, data, maps=labels, **settings) if labels else _made(ImageFolder, data, **settings)
    if check:
        dataset.check()
    return dataset


def _made(kind: type[DataSet], data: str, **settings: Any) -> DataSet:
    known = {name for base in kind.__mro__ if "__init__" in vars(base) for name in inspect.signature(base).parameters}
    unknown = sorted(settings.keys() - known)
    if unknown:
        choices = ", ".join(sorted(known - {"self", "args", "kwargs", "settings", "path", "maps"}))
        raise ConfigError(f"data={data} has no setting {unknown[0]}; it has {choices}.")
    return kind(**settings)
