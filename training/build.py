"""From a node of the configuration to the object it names: the only place where a configuration becomes objects.

A node is a mapping with `_target_` (a class of ours, or an optimiser of torch) and its arguments: plain values or nodes
again. Lists arrive as tuples. A configuration may come out of somebody's snapshot, so a target must be a class that is
defined inside the packages listed here: building never runs foreign code. Mistakes are named by their place.
The loop, snapshots and importers build through it.
"""

import contextlib
import importlib
import inspect
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from torch import nn

from dnnlib.errors import ConfigError, UserError
from dnnlib.hints import fits, in_words, parameters, shaped
from dnnlib.limits import check_numbers
from dnnlib.options import nearest
from training.contracts import CameraRig
from training.data.dataset import DataSet
from training.data.opening import open_dataset

ALLOWED = (
    "training.generators.", "training.discriminators.", "training.encoders.", "training.losses.", "training.layers.",
    "training.rendering.", "training.augment.", "training.data.", "training.programs.", "training.schedules.",
    "training.optimizers.", "metrics.", "torch.optim.",
)  # fmt: skip
NETWORKS = (  # what networks are made of: all that somebody's snapshot may name
    "training.generators.", "training.discriminators.", "training.encoders.", "training.layers.", "training.rendering.",
    "training.schedules.", "metrics.probe.",
)  # fmt: skip
REFUSALS = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RuntimeError)
DATA_FACTS = ("resolution", "num_channels", "num_classes", "label_dim")  # what opened data say about themselves


def build(node: Any, *, where: str, allowed: tuple[str, ...] = ALLOWED, **extra: Any) -> Any:
    """The object of a resolved node; `where` is its path, extra are arguments that a configuration cannot hold.

    allowed: the packages that classes may come from.

    Raises ConfigError naming the path, the class and the reason: a target that is not allowed or does not exist, an
    argument that is unknown, missing, of the wrong type or refused by the class.
    """
    if not isinstance(node, Mapping) or "_target_" not in node:
        raise ConfigError(f"{where} names nothing to build: it needs a _target_, the full name of a class.")
    return _made(node, where, extra, allowed)


def build_nets(config: Mapping[str, Any]) -> dict[str, nn.Module]:
    """The networks of a resolved configuration, by name, in its order. Raises ConfigError if a node is no network."""
    return {name: build_net(node, f"nets.{name}") for name, node in config["nets"].items() if node is not None}


def build_net(node: Any, where: str) -> nn.Module:
    """One network, of networks' classes alone."""
    net = build(node, where=where, allowed=NETWORKS)
    if not isinstance(net, nn.Module):
        raise ConfigError(f"{where} is not a network but a {type(net).__name__}.")
    return net


def build_rig(config: Mapping[str, Any]) -> CameraRig:
    """The pose distribution of a resolved configuration."""
    rig = build(config["rig"], where="rig", allowed=NETWORKS)
    if not isinstance(rig, CameraRig):
        raise ConfigError(f"rig is not a distribution of cameras but a {type(rig).__name__}.")
    return rig


def build_dataset(config: Mapping[str, Any]) -> DataSet:
    """Open the data: the keys `data labels cond mirror subset`, and the settings of the node `dataset`.

    What was filled in there from the data themselves is no setting. Raises DataError or ConfigError.
    """
    lacking = [key for key in ("data", "labels", "cond", "mirror", "subset", "dataset") if key not in config]
    if lacking:
        raise ConfigError(f"this configuration does not say which data it needs: it has no {', '.join(lacking)}.")
    settings = {key: value for key, value in config["dataset"].items() if key not in DATA_FACTS}
    check_numbers({"subset": config["subset"], "dataset": config["dataset"]}, "")
    keys = {key: config[key] for key in ("labels", "cond", "mirror", "subset")}
    return open_dataset(config["data"], resolution=config["dataset"].get("resolution"), **keys, **settings)


@contextlib.contextmanager
def blaming(where: str) -> Iterator[None]:
    """What goes wrong inside is a mistake in the node `where`: it becomes a ConfigError that names it."""
    try:
        yield
    except ZeroDivisionError as error:
        raise ConfigError(f"{where} cannot be built: one of its sizes comes out as 0.") from error
    except REFUSALS as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        reason = f"there is no {reason}" if isinstance(error, KeyError) else reason
        raise ConfigError(f"{where} cannot be built: {reason}") from error


def find_class(target: Any, where: str, allowed: tuple[str, ...] = ALLOWED) -> type:
    """The class that a _target_ names. Raises ConfigError unless it is defined inside the allowed packages."""
    what = f"{where}._target_={target}"
    parts = target.split(".") if isinstance(target, str) else []
    if len(parts) < 2 or not all(part.isidentifier() and not part.startswith("_") for part in parts):
        raise ConfigError(f"{what} is not the full name of a class, such as training.losses.r1.R1Penalty.")
    if not target.startswith(allowed):
        raise ConfigError(f"{what} is not allowed: classes are only taken from {', '.join(p[:-1] for p in allowed)}.")
    module_name, _, name = target.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # something that our own module needs
        raise ConfigError(f"{what} does not exist: there is no module {error.name}.") from error
    found = getattr(module, name, None)
    if not (inspect.isclass(found) and f"{found.__module__}.".startswith(allowed)):
        own = [key for key, value in vars(module).items() if inspect.isclass(value) and value.__module__ == module_name]
        raise ConfigError(f"{what} does not exist: {module_name} has no class {name}{nearest(name, own)}.")
    return found


def _made(node: Any, where: str, extra: Mapping[str, Any], allowed: tuple[str, ...]) -> Any:
    """The node with all that it names built, innermost first."""
    if isinstance(node, (list, tuple)):
        return tuple(_made(value, f"{where}.{i}", {}, allowed) for i, value in enumerate(node))
    if not isinstance(node, Mapping):
        return node
    cls = find_class(node["_target_"], where, allowed) if "_target_" in node else None
    arguments = {key: value for key, value in node.items() if key != "_target_"}
    takes = {} if cls is None else check_arguments(cls, arguments, extra, where)
    values = {key: _made(value, f"{where}.{key}", {}, allowed) for key, value in arguments.items()}
    if cls is None:
        return values
    values = {key: shaped(value, takes[key].annotation) for key, value in values.items()}
    try:
        with blaming(f"{where}: {cls.__name__}"):
            return cls(**values, **extra)
    except UserError as error:
        raise error if str(error).startswith(where) else type(error)(f"{where}: {error}") from error


def check_arguments(
    cls: type, arguments: Mapping[str, Any], extra: Collection[str], where: str
) -> dict[str, inspect.Parameter]:
    """What the class takes. Raises ConfigError for an argument that is unknown, missing or of another type.

    extra: names of arguments that are given in another way.
    """
    takes = parameters(cls)
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
