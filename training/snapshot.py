"""Networks on disk. A snapshot is one safetensors file: the weights, and as metadata the configuration to rebuild them.

Nothing in it is executable: build() makes only classes of this project, and weights are loaded strictly.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor, nn

from dnnlib.errors import CheckpointError
from torch_utils.checkpoint import write_whole
from training.build import build
from training.contracts import CameraRig

FORMAT = "parallax-snapshot-1"
SNAPSHOTS = "snapshots"  # folder of a run


@dataclass(frozen=True)
class OpenedNetwork:
    """A generator ready to render."""

    G: Any  # contracts.Generator: the averaged one, in eval mode, without gradients
    rig: CameraRig
    config: dict[str, Any]
    nimg: int  # training images it has seen


def save_snapshot(path: Path, nets: Mapping[str, nn.Module], config: Mapping[str, Any], nimg: int) -> None:
    """Write nets under their names. Raises CheckpointError if the file cannot be written whole."""
    tensors = {
        f"{name}/{key}": t.detach().cpu().contiguous()
        for name, net in nets.items()
        for key, t in net.state_dict().items()
    }
    metadata = {"format": FORMAT, "config": json.dumps(config), "nimg": str(nimg)}
    data = safetensors.torch.save(tensors, metadata)
    write_whole(data, path)


def read_snapshot(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any], int]:
    """State dictionaries by net, configuration, images seen. Raises CheckpointError for any other file."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a snapshot of ours, or it was cut short: {error}") from error
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} holds no configuration of ours, so its networks cannot be rebuilt. "
            "Published files are converted by apps/import_checkpoint.py."
        )
    states: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        net, _, key = name.partition("/")
        states.setdefault(net, {})[key] = tensor
    return states, json.loads(metadata["config"]), int(metadata["nimg"])


def load_strictly(net: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Load every tensor into its place. Raises CheckpointError naming what is missing, unknown or of another shape."""
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
    net.load_state_dict(dict(state))


def find_snapshot(path: str | Path) -> Path:
    """A snapshot file itself, or the newest one of a run folder, or of the newest run in a folder of runs."""
    path = Path(path).expanduser()
    if path.is_file():
        return path
    if not path.exists():
        raise CheckpointError(f"there is no file or folder {path.absolute()}")
    found = sorted([*path.glob(f"{SNAPSHOTS}/*.safetensors"), *path.glob("*.safetensors")])
    found = found or sorted(path.glob(f"[0-9]*-*/{SNAPSHOTS}/*.safetensors"))
    if not found:
        raise CheckpointError(f"{path.absolute()} holds no snapshot yet (looked for {SNAPSHOTS}/*.safetensors)")
    return found[-1]


def open_network(path: str | Path, device: str = "cpu", net: str = "G") -> OpenedNetwork:
    """The generator of a snapshot file or run folder: its slowest-moving average where one is kept.

    Raises CheckpointError if the file is absent, damaged or of another model.
    """
    file = find_snapshot(path)
    states, config, nimg = read_snapshot(file)
    averages = [name for name, average in (config.get("emas") or {}).items() if average["net"] == net]
    weights = next((name for name in [*averages, net] if name in states), None)
    if weights is None or net not in config.get("nets", {}):
        raise CheckpointError(f"{file} holds no network {net}: it has {', '.join(sorted(states))}")
    G = build(config["nets"][net], where=f"nets.{net}")
    load_strictly(G, states[weights], f"{file}: {weights}")
    G = G.eval().requires_grad_(False).to(device)
    rig = build(config["rig"], where="rig")
    return OpenedNetwork(G, rig, config, nimg)
