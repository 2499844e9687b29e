"""A published pickle as a snapshot of ours: networks loaded strictly, and the configuration to rebuild them."""

import importlib
import pkgutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

import training.importers
from dnnlib.errors import CheckpointError, UserError
from training.build import blaming
from training.importers.nvlabs_pickle import PickledNetwork, read_networks
from training.importers.rigs import named_rig
from training.importers.strict import Description

AVERAGE = "G_ema"  # of G, in every such file
AVERAGE_RULE = {"net": "G", "kimg": 10}  # StyleGAN2's and EG3D's for a batch of 32; the files do not say


@dataclass(frozen=True)
class Published:
    """What a published file holds, in our terms."""

    nets: Mapping[str, nn.Module]  # G, D, G_ema: those that it has
    config: dict[str, Any]  # what a snapshot's metadata hold
    classes: Mapping[str, str]  # the reference's, by network
    quirks: tuple[str, ...]

    def config_of(self, nets: Collection[str]) -> dict[str, Any]:
        """The configuration of a snapshot that holds these networks alone."""
        emas = {name: rule for name, rule in self.config["emas"].items() if name in nets}
        wanted = {*nets, *(rule["net"] for rule in emas.values())}
        nodes = {name: node for name, node in self.config["nets"].items() if name in wanted}
        return {**self.config, "nets": nodes, "emas": emas}


def read_published(path: Path) -> Published:
    """Raises CheckpointError, in a sentence, for a file that is damaged, hostile or of a model we do not have."""
    pickled = read_networks(path)
    classes = {name: net.class_name for name, net in pickled.items()}
    nets: dict[str, nn.Module] = {}
    try:
        found = {name: _described(name, net) for name, net in pickled.items()}
        for name in classes:
            nets[name] = found[name].load(pickled.pop(name).state, name)  # one after the other makes room
    except (UserError, RecursionError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    shown = found.get(AVERAGE) or found.get("G") or found["D"]
    config = _configuration(found, shown)
    return Published(nets, config, classes, shown.quirks)


def _configuration(found: Mapping[str, Description], shown: Description) -> dict[str, Any]:
    """The averaged generator describes both: what is rendered with may have changed since G was made."""
    nets = {"G": shown.node} if "G" in found or AVERAGE in found else {}
    nets |= {"D": found["D"].node} if "D" in found else {}
    labels = shown.dataset["label_dim"]
    return {
        "nets": nets,
        "emas": {AVERAGE: AVERAGE_RULE} if AVERAGE in found else {},
        "rig": shown.rig or named_rig("face"),
        "dataset": {**shown.dataset, "num_classes": labels},
        "labels": None, "cond": labels > 0, "mirror": False, "subset": None,
    }  # fmt: skip


def _described(name: str, net: PickledNetwork) -> Description:
    """Asks one family after the other."""
    with blaming(name):
        for family in families():
            found = family.describe(net)
            if found is not None:
                return found
    raise CheckpointError(f"{name} is a {net.class_name}, which is no network of the supported models")


def families() -> list[ModuleType]:
    """The modules of this package that describe pickled networks."""
    path = training.importers.__path__
    modules = [importlib.import_module(f"training.importers.{found.name}") for found in pkgutil.iter_modules(path)]
    return [module for module in modules if hasattr(module, "describe")]
