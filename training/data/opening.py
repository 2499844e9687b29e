"""Opens the data set that `data=` and `labels=` name."""

from typing import Any

from dnnlib.errors import ConfigError
from dnnlib.hints import fits, in_words, parameters

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
    DataError, and ConfigError for settings that this kind of data set does not have or that are of another type.
    """
    settings = {**settings, "cond": cond, "mirror": mirror}
    if is_critters(data):
        poses = data.partition(":")[2]
        settings |= {"resolution": resolution or CRITTERS_RESOLUTION}
        settings |= {key: value for key, value in (("poses", poses), ("maps", labels), ("size", subset)) if value}
        return _made(Critters, data, **settings)
    settings |= {"path": data, "resolution": resolution, "subset": subset}
    dataset = _made(PairedFolder, data, maps=labels, **settings) if labels else _made(ImageFolder, data, **settings)
    if check:
        dataset.check()
    return dataset


def is_critters(data: str) -> bool:
    """Whether `data=` names the critters; all else is a path."""
    return data.partition(":")[0] == CRITTERS


def _made(kind: type[DataSet], data: str, /, **settings: Any) -> DataSet:
    takes = parameters(kind)
    for key, value in sorted(settings.items()):
        if key not in takes:
            choices = ", ".join(sorted(takes.keys() - {"path", "maps"}))
            raise ConfigError(f"data={data} has no setting {key}; it has {choices}.")
        if not fits(value, takes[key].annotation):
            raise ConfigError(f"data={data} wants {in_words(takes[key].annotation)} for {key}, not {value}.")
    return kind(**settings)
