"""What must hold before anything is written: facts about a resolved configuration, its data and this machine.

Each mistake is one ConfigError or DataError that says key, value, why it cannot be, and what can.
"""

import contextlib
import io
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from dnnlib.errors import ConfigError, DataError
from dnnlib.hints import fits, in_words
from dnnlib.limits import check_numbers
from dnnlib.options import nearest
from torch_utils.devices import choose_device
from torch_utils.distributed import started_elsewhere
from torch_utils.ops import native
from training.build import blaming, build, build_nets, build_rig, check_arguments
from training.cli.keys import HINTS, default_of
from training.contracts import Generator
from training.data.dataset import DataSet
from training.layers.conv import has_bfloat16
from training.phases import Phase, part_of
from training.setup import build_averages, build_optimizers, build_phases
from training.transfer import start_from_weights

NOT_YET: dict[str, tuple[tuple[Any, ...], str]] = {  # key -> (values that work, what is missing)
    "init": (({}, None), "weights for single networks are not built yet; resume= starts all of them"),
}


def check_line(config: Mapping[str, Any]) -> None:
    """Top-level keys by themselves: types, ranges, what is not built yet."""
    for key, hint in HINTS.items():
        if not fits(config[key], hint):
            raise ConfigError(f"{key}={config[key]}: expected {in_words(hint)}.")
    check_numbers(config, "")
    for key, kind in (("p", "fixed"), ("target", "ada")):
        if config["aug"] != kind and str(config[key]) != default_of(key):
            raise ConfigError(f"{key}={config[key]} does nothing with aug={config['aug']}: it belongs to aug={kind}.")
    for key, (working, missing) in NOT_YET.items():
        if config[key] not in working:
            allowed = " or ".join(f"{key}={value}" for value in working if value not in (None, {}, []))
            raise ConfigError(f"{key}={config[key]}: {missing}; {f'use {allowed}' if allowed else f'leave {key} out'}.")


def check_device(config: Mapping[str, Any]) -> None:
    """The device is there, as often as asked."""
    device, gpus = choose_device(config["device"]), config["gpus"]
    if device.type == "cuda" and config["deterministic"] and config["aug"] != "noaug":
        raise ConfigError(
            "deterministic=True: torch has no deterministic resampling on a GPU, which augmentation needs."
        )
    halves = {"fp16": device.type != "cpu", "bf16": device.type != "cpu" or has_bfloat16()}
    if not halves.get(config["precision"], True):
        raise ConfigError(
            f"precision={config['precision']} is nothing that this CPU is fast in: use "
            f"{'precision=bf16 or ' if halves['bf16'] else ''}precision=fp32."
        )
    if device.type == "cuda" and gpus > 1 and not started_elsewhere():
        if device.index is not None:
            raise ConfigError(f"device={device} is one GPU, and gpus={gpus} asks for more: write device=cuda.")
        if (there := torch.cuda.device_count()) < gpus:
            raise ConfigError(f"gpus={gpus}, but this machine has {there}: give gpus={there} or fewer.")
    native.choose(config["ops"], device)


def check_sizes(config: Mapping[str, Any]) -> None:
    """There is something to train; batch, micro-batch and resolution fit one another."""
    if round(config["kimg"] * 1000) < 1:
        raise ConfigError(f"kimg={config['kimg']} is less than one image: it counts thousands.")
    batch, batch_gpu, gpus = config["batch"], config["batch_gpu"], config["gpus"]
    if batch % (batch_gpu * gpus):
        raise ConfigError(
            f"batch={batch} cannot be dealt in parts of batch_gpu={batch_gpu} to gpus={gpus}: it must be a multiple of "
            f"{batch_gpu * gpus}."
        )
    for name, phase in config["phases"].items():
        if (
            phase
            and any(t and t.get("weight") != 0 for t in (phase["terms"] or {}).values())
            and (shrink := phase.get("shrink", 1)) > batch // gpus
        ):
            raise ConfigError(f"phases.{name}.shrink={shrink} leaves nothing of the {batch // gpus} images of a GPU.")
    group = (config.get("spec") or {}).get("mbstd_group")
    if group and batch_gpu % group:
        raise ConfigError(
            f"batch_gpu={batch_gpu} is not a multiple of spec.mbstd_group={group}, the images that minibatch standard "
            f"deviation compares: choose another batch_gpu, or spec.mbstd_group={batch_gpu}."
        )
    resolution = config["dataset"]["resolution"]
    if resolution < 8 or resolution & (resolution - 1):
        below = 2 ** max(resolution.bit_length() - 1, 3)
        above = below if resolution < 8 else below * 2
        raise ConfigError(
            f"images of {resolution} px cannot be trained on: networks double from 4 px. Nearest that work: "
            f"{' or '.join(str(r) for r in dict.fromkeys((below, above)))}; apps/dataset_tool.py resizes a data set."
        )


def check_data(config: Mapping[str, Any], dataset: DataSet) -> None:
    """The data have what the configuration wants of them."""
    if config["cond"] and not dataset.label_dim:
        raise DataError(f"cond=True, but {config['data']} has no class labels in its dataset.json.")
    model = config.get("model") or {}
    if model.get("needs_colours") and dataset.num_channels != 3:
        raise DataError(
            f"model={config['choices']['model']} makes pictures in colours, and those of {config['data']} are grey: "
            "convert them to RGB, or train model=stylegan2, which takes them as they are."
        )
    if model.get("needs_cameras") and not dataset.has_cameras:
        raise DataError(
            f"model={config['choices']['model']} needs a camera for every image, and {config['data']} has none: its "
            'dataset.json must hold 25 numbers an image under "labels" or "cameras". model=stylegan2 needs none.'
        )


def check_parts(config: Mapping[str, Any]) -> None:
    """Build all parts once, without memory for weights: every _target_ and argument is right, resume= fits."""
    for key in ("nets", "optimizers", "phases"):
        if not config[key]:
            raise ConfigError(f"{key}={config[key] or 'null'}: there is nothing to train without {key}.")
    with torch.device("meta"):
        nets = build_nets(config)
    build_rig(config)
    phases = checked_phases(config, nets)
    averages = {}
    for name, entry in (config["emas"] or {}).items():
        with blaming(f"emas.{name}"):
            averages |= build_averages({"emas": {name: entry}}, nets)
    if config.get("samples"):
        check_samples(config["samples"], nets, {name: followed for name, (followed, _, _) in averages.items()})
    if config["resume"]:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):
            start_from_weights(nets, config["resume"], averages, config)
    nets = with_small_weights(nets)
    for name, entry in config["optimizers"].items():
        with blaming(f"optimizers.{name}"):
            made = build_optimizers({"optimizers": {name: entry}}, nets, phases)[0][name]
        if not isinstance(made, torch.optim.Optimizer):
            raise ConfigError(f"optimizers.{name} is no optimiser but a {type(made).__name__}.")


def checked_phases(config: Mapping[str, Any], nets: Mapping[str, nn.Module]) -> list[Phase]:
    """The phases, each of which finds the nets and critics that it names."""
    with blaming("phases"):
        for name, entry in config["phases"].items():
            if entry is not None:
                check_arguments(Phase, entry, ("name", "critics"), f"phases.{name}")
        phases = build_phases(config, nets)
    for phase in phases:
        if not phase.nets:
            raise ConfigError(f"phases.{phase.name}.nets=[] trains nothing: phases.{phase.name}=null drops the phase.")
        for name in phase.nets:
            with blaming(f"phases.{phase.name}.nets"):
                part_of(nets, name)
        named = [(f"critics.{name}", critic) for name, critic in phase.critics.items()]
        named += [(f"phases.{phase.name}.terms.{name}", term) for name, term in phase.terms.items()]
        for where, part in named:
            for key, known in (("critic", phase.critics), ("net", nets)):
                if (asked := getattr(part, key, None)) is not None and asked not in known:
                    raise ConfigError(f"{where}.{key}={asked}: there is no such {key}{nearest(asked, known)}")
    return phases


def check_samples(node: Mapping[str, Any], nets: Mapping[str, nn.Module], follows: Mapping[str, str]) -> None:
    """The pictures of progress are made by a net, or an average, that makes pictures."""
    with blaming("samples"):
        shown = build(node, where="samples").net
    if shown not in nets and shown not in follows:
        raise ConfigError(f"samples.net={shown} is neither a network nor an average of one: give {', '.join(nets)}.")
    if not isinstance(nets[follows.get(shown, shown)], Generator):
        raise ConfigError(f"samples.net={shown} makes no pictures: give a generator, or samples=null for none.")


def with_small_weights(nets: Mapping[str, nn.Module]) -> Mapping[str, nn.Module]:
    """The same nets with a single number, on the CPU, for every weight: enough for optimisers to be made."""
    for module in (module for net in nets.values() for module in net.modules()):
        for name, weight in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(torch.zeros(()), weight.requires_grad))
    return nets


def check(config: Mapping[str, Any], dataset: DataSet) -> None:
    """All of the above. Raises UserError."""
    check_line(config)
    check_device(config)
    check_data(config, dataset)
    check_sizes(config)
    check_parts(config)
