"""Networks on disk. A snapshot is one safetensors file: the weights, and as metadata the configuration to rebuild them.

Nothing in it is executable or believed: only networks and what they are made of are built, of the size that the weights
in the file have, and weights are loaded strictly. Published pickles are read as if they were snapshots.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from dnnlib.errors import CheckpointError, UserError
from dnnlib.hints import fits
from dnnlib.limits import check_numbers
from dnnlib.rundir import run_number
from torch_utils.checkpoint import write_whole
from torch_utils.ema import WeightAverage
from training.build import blaming, build_net, build_rig
from training.contracts import CameraRig, Generator
from training.importers.nvlabs_pickle import is_pickle
from training.importers.pretrained import published_file
from training.importers.published import read_published

FORMAT = "parallax-snapshot-1"
SNAPSHOTS = "snapshots"  # folder of a run
KIMG = re.compile(r"\d+(\.\d+)?")  # snapshots are called by thousands of images


@dataclass(frozen=True)
class OpenedNetwork:
    """A network ready to be used, usually a generator."""

    G: Any  # contracts.Generator: the averaged one, in eval mode, without gradients
    rig: CameraRig
    config: dict[str, Any]
    nimg: int  # training images it has seen


def save_snapshot(path: Path, nets: Mapping[str, nn.Module], config: Mapping[str, Any], nimg: int) -> None:
    """Write nets under their names. Raises CheckpointError if the file cannot be written whole."""
    tensors: dict[str, Tensor] = {}
    stored: set[int] = set()  # the format holds no memory twice, and nets may share theirs
    for name, net in nets.items():
        for key, value in net.state_dict().items():
            t = value.detach().cpu().contiguous()
            tensors[f"{name}/{key}"] = t.clone() if (memory := t.untyped_storage().data_ptr()) in stored else t
            stored.add(memory)
    metadata = {"format": FORMAT, "config": json.dumps(config), "nimg": str(nimg)}
    data = safetensors.torch.save(tensors, metadata)
    write_whole(data, path)


def read_snapshot(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any], int]:
    """State dictionaries by net, configuration, images seen (0 where a published pickle does not say).

    Raises CheckpointError for any other file.
    """
    try:
        if is_pickle(path):
            published = read_published(path)
            return {name: net.state_dict() for name, net in published.nets.items()}, published.config, 0
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a snapshot of ours, or it was cut short: {error}") from error
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} holds no configuration of ours, so its networks cannot be rebuilt: give a snapshot, or the pickle "
            "that was published."
        )
    states: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        net, _, key = name.partition("/")
        states.setdefault(net, {})[key] = tensor
    try:
        config = json.loads(metadata.get("config", ""), object_pairs_hook=_numbered)
        nimg = int(metadata.get("nimg", ""))
        _check_description(config)
    except (ValueError, RecursionError, UserError) as error:
        raise CheckpointError(f"{path} does not describe its networks as snapshots of ours do: {error}") from error
    return states, config, nimg


def _numbered(pairs: list[tuple[str, Any]]) -> dict[Any, Any]:
    """A mapping whose keys are numbers again, such as widths by resolution: JSON makes them text."""
    return {int(key) if key.isdecimal() else key: value for key, value in pairs}


def _check_description(config: Any) -> None:
    """Raises ValueError or ConfigError unless a snapshot's configuration has the form that opening it relies on."""
    if not isinstance(config, dict):
        raise ValueError("its configuration is no mapping")
    parts = {"emas": config.get("emas") or {}, **{key: config.get(key) for key in ("nets", "rig", "dataset")}}
    for key, node in parts.items():
        if not isinstance(node, dict):
            raise ValueError(f"{key} is no mapping")
    if not fits(parts["dataset"].get("label_dim"), int | None):
        raise ValueError("dataset.label_dim is no whole number")
    check_numbers(parts, "")
    averages_of("", config)


def averages_of(net: str, config: Mapping[str, Any]) -> list[str]:
    """The averages that follow a network, the slowest first: the one that keeps most of itself in a late step."""
    late, batch = 10**12, config.get("batch", 1)
    kept = {}
    for name, entry in (config.get("emas") or {}).items():
        with blaming(f"emas.{name}"):
            rule = WeightAverage(**{key: value for key, value in entry.items() if key != "net"})
            kept.setdefault(entry["net"], []).append((rule.beta(late, batch, late), name))
    return [name for _, name in sorted(kept.get(net, []), key=lambda pair: -pair[0])]


def _rebuilt(node: Any, state: Mapping[str, Tensor], where: str) -> nn.Module:
    """The network of a node with these weights. It takes no memory before it is known to have their shapes."""
    with torch.device("meta"):
        _check_shapes(build_net(node, where), state, where)
    net = build_net(node, where)
    net.load_state_dict(dict(state))
    return net


def load_strictly(net: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Load every tensor into its place. Raises CheckpointError naming what is missing, unknown or of another shape."""
    _check_shapes(net, state, where)
    net.load_state_dict(dict(state))


def _check_shapes(net: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    places = net.state_dict()
    problems = [f"{k} is missing" for k in places.keys() - state.keys()]
    problems += [f"{k} is unknown" for k in state.keys() - places.keys()]
    problems += [
        f"{k} is {list(state[k].shape)} instead of {list(places[k].shape)}"
        for k in places.keys() & state.keys()
        if places[k].shape != state[k].shape
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise CheckpointError(f"{where} belongs to another network: {'; '.join(sorted(problems)[:3])}{more}")


def find_snapshot(path: str | Path, config: Mapping[str, Any] | None = None) -> Path:
    """A snapshot or published file itself, or the newest one of a run folder, or of the newest run in a folder of runs.

    What is neither file nor folder may be the name or address of a published file, which is downloaded once. config: of
    the run that asks, whose model's own names come first, and which may be offline.
    """
    said, path = str(path), Path(path).expanduser()
    if said in ("", "."):
        raise CheckpointError("an empty path names no network")
    try:
        if path.is_file():
            return path
    except OSError as error:
        raise CheckpointError(f"{said[:40]}... cannot be a path: {error.strerror}") from error
    if not path.exists():
        if published := published_file(said, config):
            return published
        raise CheckpointError(f"there is no file or folder {path.absolute()}, and no published file of that name")
    found = [*path.glob(f"{SNAPSHOTS}/[!.]*.safetensors"), *path.glob("[!.]*.safetensors")]
    found = found or [*path.glob(f"[0-9]*-*/{SNAPSHOTS}/[!.]*.safetensors")]
    if not found:
        raise CheckpointError(f"{path.absolute()} holds no snapshot yet (looked for {SNAPSHOTS}/*.safetensors)")
    return max(found, key=_age)


def _age(file: Path) -> tuple[int, float, str]:
    """What grows with time: the run's number, then the thousands of images in the file's name."""
    return run_number(file.parent.parent), float(file.stem) if KIMG.fullmatch(file.stem) else -1.0, str(file)


def open_network(path: str | Path, device: str = "cpu", net: str = "G") -> OpenedNetwork:
    """A network of a snapshot file or run folder: its slowest-moving average where one is kept.

    Raises CheckpointError if the file is absent, damaged or of another model.
    """
    file = find_snapshot(path)
    states, config, nimg = read_snapshot(file)
    weights = next((name for name in [*averages_of(net, config), net] if name in states), None)
    if weights is None or net not in config["nets"]:
        raise CheckpointError(f"{file} holds no network {net}: it has {', '.join(sorted(states))}")
    try:
        G, rig = _rebuilt(config["nets"][net], states[weights], f"nets.{net}"), build_rig(config)
    except (UserError, RecursionError) as error:
        raise CheckpointError(f"{file}: {error}") from error
    return OpenedNetwork(G.eval().requires_grad_(False).to(device), rig, config, nimg)


def open_generator(path: str | Path, device: str = "cpu") -> OpenedNetwork:
    """open_network() for those who want pictures. Also raises CheckpointError if its G makes none."""
    opened = open_network(path, device)
    if not isinstance(opened.G, Generator):
        kind = type(opened.G).__name__
        raise CheckpointError(f"{path} makes no pictures: its network G is a {kind}, so give a snapshot of a generator")
    return opened
