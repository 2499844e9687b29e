"""What must hold before anything is written: facts about a resolved configuration, its data and this machine.

Each mistake is one ConfigError or DataError that says key, value, why it cannot be, and what can.
"""

import contextlib
import io
import os
import warnings
from collections.abc import Mapping
from typing import Any

import torch

from dnnlib.errors import ConfigError, DataError
from dnnlib.hints import fits, in_words
from torch_utils.devices import choose_device
from training.build import build, build_nets, build_rig
from training.cli.keys import HINTS
from training.data.dataset import DataSet
from training.setup import build_phases
from training.transfer import start_from_weights

POSITIVE = ("batch", "batch_gpu", "gpus", "kimg", "tick", "snap", "imgsnap", "save_every", "max_bad_steps", "subset")
AT_LEAST_ZERO = ("workers", "gamma", "seed", "freezed", "target", "p")
NOT_YET: dict[str, tuple[tuple[Any, ...], str]] = {  # key -> (values that work, what is missing)
    "aug": (("noaug",), "augmentation is not built yet"),
    "target": ((0.6,), "augmentation is not built yet"),
    "augpipe": (("bgc",), "augmentation is not built yet"),
    "p": ((0.2,), "augmentation is not built yet"),
    "init": (({}, None), "weights for single networks are not built yet; resume= starts all of them"),
    "gpus": ((1,), "training on several GPUs is not built yet"),
    "precision": (("fp32",), "half precision is not built yet"),
    "nhwc": ((False,), "the choice of memory layout is not built yet"),
    "ops": (("auto", "torch"), "compiled operators are not built yet"),
}


def check_line(config: Mapping[str, Any]) -> None:
    """Top-level keys by themselves: types, ranges, what is not built yet."""
    for key, hint in HINTS.items():
        if not fits(config[key], hint):
            raise ConfigError(f"{key}={config[key]}: expected {in_words(hint)}.")
    for key in POSITIVE:
        if config[key] is not None and config[key] <= 0:
            raise ConfigError(f"{key}={config[key]} must be above 0.")
    for key in AT_LEAST_ZERO:
        if config[key] < 0:
            raise ConfigError(f"{key}={config[key]} must not be negative.")
    for key, (working, missing) in NOT_YET.items():
        if config[key] not in working:
            allowed = " or ".join(f"{key}={value}" for value in working if value not in (None, {}, []))
            raise ConfigError(f"{key}={config[key]}: {missing}; {f'use {allowed}' if allowed else f'leave {key} out'}.")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("this is one of several processes (WORLD_SIZE is set): training on several is not built yet.")


def check_sizes(config: Mapping[str, Any]) -> None:
    """Batch, micro-batch and resolution fit one another."""
    batch, batch_gpu, gpus = config["batch"], config["batch_gpu"], config["gpus"]
    if batch % (batch_gpu * gpus):
        raise ConfigError(
            f"batch={batch} cannot be dealt in parts of batch_gpu={batch_gpu} to gpus={gpus}: it must be a multiple of "
            f"{batch_gpu * gpus}."
        )
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
    if (config.get("model") or {}).get("needs_cameras") and not dataset.has_cameras:
        raise DataError(
            f"model={config['choices']['model']} needs a camera for every image, and {config['data']} has none: its "
            'dataset.json must hold 25 numbers an image under "labels" or "cameras".'
        )


def check_parts(config: Mapping[str, Any]) -> None:
    """Build all parts once, without memory for weights: every _target_ and argument is right, resume= fits."""
    with torch.device("meta"):
        nets = build_nets(config)
    build_rig(config)
    build_phases(config, nets)
    if config.get("samples"):
        shown = build(config["samples"], where="samples").net
        if shown not in nets and shown not in (config["emas"] or {}):
            raise ConfigError(
                f"samples.net={shown} is neither a network nor an average of one: give {', '.join(nets)}."
            )
    if config["resume"]:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):
            start_from_weights(nets, config["resume"])


def check(config: Mapping[str, Any], dataset: DataSet) -> None:
    """All of the above. Raises UserError."""
    check_line(config)
    choose_device(config["device"])
    check_data(config, dataset)
    check_sizes(config)
    check_parts(config)
