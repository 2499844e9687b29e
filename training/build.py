"""From a node of the configuration to the object it names: the only place where a configuration becomes objects.

A node is a mapping with `_target_` (a class of ours, or an optimiser of torch) and its arguments: plain values or nodes
again. Lists arrive as tuples. A configuration may come out of somebody's snapshot, so a target must be a class that is
defined inside the packages listed here: building never runs foreign code. Mistakes are named by their place.
The loop, snapshots and importers build through it.
"""

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from dnnlib.errors import ConfigError
from dnnlib.hints import fits, in_words, shaped
from dnnlib.options import nearest
from training.contracts import CameraRig
from training.data.dataset import DataSet
from training.data.opening import open_dataset

ALLOWED = (
    "training.generators.", "training.discriminators.", "training.encoders.", "training.losses.", "training.layers.",
    "training.rendering.", "training.augment.", "training.data.", "training.programs.", "training.schedules.",
    "training.optimizers.", "metrics.", "torch.optim.",
)  # fmt: skip
DATA_FACTS = ("resolution", "num_channels", "num_classes", "label_dim")  # what opened data say about themselves


def build(node: Mapping[str, Any], *, where: str, **extra: Any) -> Any:
    """The object of a resolved node; `where` is its path, extra are arguments that a configuration cannot hold.

    Raises ConfigError naming the path, the class and the reason: a target that is not allowed or does not exist, an
    argument that is unknown, missing, of the wrong type or refused by the class.
    """
    if not isinstance(node, Mapping) or "_target_" not in node:
        raise ConfigError(f"{where} names nothing to build: it needs a _target_, the full name of a class.")
    return _made(node, where, extra)


def build_nets(config: Mapping[str, Any]) -> dict[str, nn.Module]:
    """The networks of a resolved configuration, by name, in its order. Raises ConfigError if a node is no network."""
    nets = {name: build(node, where=f"nets.{name}") for name, node in config["nets"].items() if node is not None}
    for name, net in nets.items():
        if not isinstance(net, nn.Module):
            raise ConfigError(f"nets.{name} is not a network but a {type(net).__name__}.")
    return nets


def build_rig(config: Mapping[str, Any]) -> CameraRig:
    """The pose distribution of a resolved configuration."""
    return build(config["rig"], where="rig")


def build_dataset(config: Mapping[str, Any]) -> DataSet:
    """Open the data: the keys `data labels cond mirror subset`, and the settings of the node `dataset`.

    What was filled in there from the data themselves is no setting. Raises DataError or ConfigError.
    """
    settings = {key: value for key, value in config["dataset"].items() if key not in DATA_FACTS}
    keys = {key: config[key] for key in ("labels", "cond", "mirror", "subset")}
    return open_dataset(config["data"], resolution=config["dataset"].get("resolution"), **keys, **settings)


def find_class(target: Any, where: str) -> type:
    """The class that a _target_ names. Raises ConfigError unless it is defined inside the allowed packages."""
    what = f"{where}._target_={target}"
    parts = target.split(".") if isinstance(target, str) else []
    if len(parts) < 2 or not all(part.isidentifier() and not part.startswith("_") for part in parts):
        raise ConfigError(f"{what} is not the full name of a class, such as training.losses.r1.R1Penalty.")
    if not target.startswith(ALLOWED):
        raise ConfigError(f"{what} is not allowed: classes are only taken from {', '.join(p[:-1] for p in ALLOWED)}.")
    module_name, _, name = target.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # something that our own module needs
        raise ConfigError(f"{what} does not exist: there is no module {error.name}.") from error
    found = getattr(module, name, None)
    if not (inspect.isclass(found) and f"{found.__module__}.".startswith(ALLOWED)):
        own = [key for key, value in vars(module).items() if inspect.isclass(value) and value.__module__ == module_name]
        raise ConfigError(f"{what} does not exist: {module_name} has no class {name}{nearest(name, own)}.")
    return found


def _made(node: Any, where: str, extra: Mapping[str, Any]) -> Any:
    """The node with all that it names built, innermost first."""
    if isinstance(node, (list, tuple)):
        return tuple(_made(value, f"{where}.{i}", {}) for i, value in enumerate(node))
    if not isinstance(node, Mapping):
        return node
    cls = find_class(node["_target_"], where) if "_target_" in node else None
    arguments = {key: value for key, value in node.items() if key != "_target_"}
    takes = {} if cls is None else _checked(cls, arguments, extra, where)
    values = {key: _made(value, f"{where}.{key}", {}) for key, value in arguments.items()}
    if cls is None:
        return values
    values = {key: shaped(value, takes[key].annotation) for key, value in values.items()}
    try:
        return cls(**values, **extra)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {cls.__name__} cannot be built: {str(error).splitlines()[0]}") from error


def _parameters(cls: type) -> dict[str, inspect.Parameter]:
    """What a class takes by name. Where a constructor hands **rest on to its base, the base's arguments count too."""
    takes: dict[str, inspect.Parameter] = {}
    for base in cls.__mro__:
        if "__init__" not in vars(base) or base is object:
            continue
        own = inspect.signature(base.__init__).parameters
        named = {name: p for name, p in own.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        takes = {**named, **takes}
        if not any(p.kind is p.VAR_KEYWORD for p in own.values()):
            break
    takes.pop("self", None)
    return takes


def _checked(
    cls: type, arguments: Mapping[str, Any], extra: Mapping[str, Any], where: str
) -> dict[str, inspect.Parameter]:
    """What the class takes. Raises ConfigError for an argument that is unknown, missing or of another type."""
    takes = _parameters(cls)
    for key, value in arguments.items():
        if key not in takes:
            raise ConfigError(f"{where}.{key}: {cls.__name__} takes no such argument{nearest(key, takes)}.")
        if not fits(value, takes[key].annotation):
            raise ConfigError(f"{where}.{key}={value}: {cls.__name__} expects {in_words(takes[key].annotation)}.")
    needs = [p.name for p in inspect.signature(cls).parameters.values() if p.default is p.empty and p.name in takes]
    missing = [name for name in needs if name not in arguments and name not in extra]
    if missing:
        raise ConfigError(f"{where} lacks {', '.join(missing)}, which {cls.__name__} needs.")
    return takes
