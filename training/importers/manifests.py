"""Manifests: every key and shape of a published network, without values. Both ways into it are checked.

The importer must find a place of that shape for every tensor; and the networks of a model of that family, at the
paper's size, must be those that were published, under the importer's names.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dnnlib.errors import CheckpointError
from torch_utils.ops.upfirdn2d import setup_filter
from training.build import blaming, build_nets
from training.cli import compose
from training.importers import family_of
from training.importers.bounds import Verdict
from training.importers.nvlabs_pickle import PickledNetwork
from training.importers.replaying import structured
from training.importers.strict import FILTER, Description, misfits
from training.layers.conv import BINOMIAL

MODELS = Path(__file__).parents[2] / "configs" / "model"
MARK = "_manifest_"
NETS = ("G", "D")  # in the order of their classes
AS_PUBLISHED = "model.as_published=true"


def is_manifest(kind: str) -> bool:
    return MARK in kind


def check_manifest(kind: str, metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> list[Verdict]:
    """A verdict for every tensor that the manifest lists, and for every place of ours that nothing would fill.

    Raises CheckpointError where the family has no importer, ConfigError where its model cannot be composed.
    """
    arguments, verdicts = structured(metadata, "init_kwargs"), []
    classes = [name.strip().rpartition(".")[2] for name in metadata.get("class", "").split("+")]
    nets = [net for net in NETS if any(name.startswith(f"shape/{net}/") for name in tensors)]
    if len(classes) != len(nets) or "G" not in nets:
        raise CheckpointError(f"The manifest names {len(classes)} classes and lists {len(nets)} networks, G and D.")
    described = {}
    for net, class_name in zip(nets, classes, strict=True):
        state = _listed(tensors, f"shape/{net}/")
        with blaming(net):
            found = family_of(kind).describe(PickledNetwork(class_name, (), arguments[net], {}, state, ""))
        if found is None:
            raise CheckpointError(f"{net} is a {class_name}, which the importer does not know.")
        described[net] = found, {name: t for name, t in state.items() if name not in found.ignored}
    models = _composed(kind, described)
    for net, (found, state) in described.items():
        ways = {"importer": found.empty(f"nets.{net}"), "model": models[net]}
        wrong = {way: misfits(place, state, found.prefixes) for way, place in ways.items()}
        for name in dict.fromkeys([*state, *wrong["importer"], *wrong["model"]]):
            told = [f"{way}: {problems[name]}" for way, problems in wrong.items() if name in problems]
            note = "; ".join(told) or f"shape {list(state[name].shape)}"
            verdicts.append(Verdict(f"{net}/{name}", 0.0, 0.0, not told, note))
    return verdicts


def _listed(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Tensors of the listed shapes without memory; filters, whose values importers read, are StyleGAN2's."""
    shapes = {name[len(prefix) :]: tuple(t.tolist()) for name, t in tensors.items() if name.startswith(prefix)}
    small = setup_filter(BINOMIAL)
    return {
        name: small if name.endswith(FILTER) and shape == small.shape else torch.empty(shape, device="meta")
        for name, shape in shapes.items()
    }


def _composed(kind: str, described: Mapping[str, tuple[Description, Any]]) -> dict[str, nn.Module]:
    """The networks of the model that the manifest names, or else of the family's first preset, without memory."""
    family, _, preset = kind.partition(MARK)
    presets = sorted(path.stem for path in MODELS.glob(f"{family}_*.yaml"))
    named = f"{family}_{preset.rstrip('0123456789')}"
    model = named if named in presets else next(iter(presets), family)
    facts = described["G"][0].dataset
    words = [f"model={model}", f"resolution={facts['resolution']}"]
    config = compose.composed(words)
    if "as_published" in config.model:
        config = compose.composed([*words, AS_PUBLISHED])
    with torch.device("meta"):
        return build_nets(compose.resolved(config, {**facts, "num_classes": facts["label_dim"]}))
