"""Pickles in the layout of published files, written from the networks of parity fixtures, for tests."""

import json
import pickle
import sys
import types
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from apps.check_parity import read
from training.importers.replaying import group

PARITY = Path(__file__).parent.parent / "parity"
BUFFERS = ("resample_filter", "noise_const", "w_avg", "dataset_label_std")
SOURCE = "import os\nos.makedirs('MARK')\nclass Generator: pass\n"  # what a loader that runs it would do


class Module:
    """An object of a persistent class: what its constructor was told, and its __dict__."""

    def __init__(self, class_name: str, state: dict[str, Any], source: str = SOURCE) -> None:
        self.meta = {
            "type": "class", "version": 6, "module_src": source, "class_name": class_name, "state": state,
        }  # fmt: skip

    def __reduce__(self):
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (self.meta,)  # type: ignore[attr-defined]


def known_modules(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let the pickler write these names, of things that are not here."""
    for name in ("torch_utils.persistence._reconstruct_persistent_obj", *names):
        module, _, last = name.rpartition(".")
        made = sys.modules.get(module) or types.ModuleType(module)
        thing = type(last, (), {}) if last[:1].isupper() else types.FunctionType((lambda meta: meta).__code__, {})
        thing.__module__, thing.__name__, thing.__qualname__ = module, last, last
        monkeypatch.setitem(sys.modules, module, made)
        monkeypatch.setattr(made, last, thing, raising=False)


def network(
    class_name: str, state: dict[str, Tensor], kwargs: dict[str, Any], attributes: dict[str, Any] | None = None
) -> Module:
    """A network with these tensors, as the references' training loops would save it."""
    top: dict[str, Any] = {}
    for name, tensor in state.items():
        *path, last = name.split(".")
        place = top
        for part in path:
            place = place.setdefault(part, {})
        place[last] = tensor
    made = _module(class_name, top, {**(attributes or {}), "_init_args": (), "_init_kwargs": kwargs})
    made.meta["state"]["_buffers"]["passing"] = torch.zeros(3)  # no part of a state_dict()
    made.meta["state"]["_non_persistent_buffers_set"] = {"passing"}
    return made


def _module(class_name: str, tree: dict[str, Any], rest: dict[str, Any]) -> Module:
    tensors = {name: value for name, value in tree.items() if isinstance(value, Tensor)}
    inner = {name: _module("Layer", value, {}) for name, value in tree.items() if isinstance(value, dict)}
    buffers = {name: tensor for name, tensor in tensors.items() if name in BUFFERS}
    parameters = {name: nn.Parameter(t, requires_grad=False) for name, t in tensors.items() if name not in buffers}
    state = {
        "training": False, "_parameters": {**parameters, "absent": None}, "_buffers": buffers,
        "_non_persistent_buffers_set": set(), "_forward_hooks": OrderedDict(), "_modules": {**inner, "gone": None},
        "weight_gain": np.float64(0.25), "size": torch.Size([1, 2]), "device": torch.device("cpu"), **rest,
    }  # fmt: skip
    return Module(class_name, state)


def fixture(kind: str) -> tuple[dict[str, str], dict[str, Tensor], dict[str, Any]]:
    """Metadata, state and constructor's arguments of a parity fixture."""
    metadata, tensors = read(PARITY / f"{kind}.safetensors")
    return metadata, group(tensors, "state/"), json.loads(metadata["init_kwargs"])


def eg3d_file(path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int = 4, **attributes: Any) -> Path:
    """An EG3D snapshot with the networks of the fixtures."""
    known_modules(monkeypatch)
    _, G, told = fixture("eg3d_generator")
    _, D, told_D = fixture("eg3d_discriminator")
    held = {"rendering_kwargs": told["rendering_kwargs"], "neural_rendering_resolution": 16, **attributes}
    other = {**held, "neural_rendering_resolution": 8}
    average = {name: tensor + 0.01 if tensor.ndim else tensor for name, tensor in G.items() if "filter" not in name}
    average |= {name: tensor for name, tensor in G.items() if "filter" in name}
    G = {**G, "dataset_label_std": torch.ones(25)}
    data = {
        "training_set_kwargs": {"class_name": "training.dataset.ImageFolderDataset", "path": "x.zip"},
        "G": network("TriPlaneGenerator", G, told, other), "D": network("DualDiscriminator", D, told_D),
        "G_ema": network("TriPlaneGenerator", average, told, held), "augment_pipe": None,
    }  # fmt: skip
    path.write_bytes(pickle.dumps(data, protocol=protocol))
    return path


def stylegan2_file(path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int = 4) -> Path:
    """A StyleGAN2 snapshot; its convolutions' weights have their channels last in memory."""
    known_modules(monkeypatch)
    _, G, told = fixture("stylegan2_core_generator")
    _, D, told_D = fixture("stylegan2_core_discriminator")
    last = {name: t.to(memory_format=torch.channels_last) if t.ndim == 4 else t for name, t in G.items()}
    data = {
        "training_set_kwargs": None, "G": network("Generator", last, told),
        "D": network("Discriminator", D, told_D), "G_ema": network("Generator", last, told),
    }  # fmt: skip
    path.write_bytes(pickle.dumps(data, protocol=protocol))
    return path
