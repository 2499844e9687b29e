"""From a resolved configuration to the objects of a run: nets, averages, optimisers, phases."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from dnnlib.errors import ConfigError
from torch_utils.ema import WeightAverage
from training.build import build, build_nets
from training.phases import Phase, PhaseRunner, part_of
from training.state import RunState
from training.step import Keeping
from training.transfer import start_from_weights


def build_run(config: Mapping[str, Any], device: torch.device, resume: str | None) -> tuple[RunState, list[Phase]]:
    """A run before its first batch, and its phases. resume: a snapshot whose weights it starts from."""
    torch.manual_seed(config["seed"])
    nets = {name: net.eval().to(device) for name, net in build_nets(config).items()}
    if config["nhwc"]:
        nets = {name: net.to(memory_format=torch.channels_last) for name, net in nets.items()}  # pyright: ignore
    averages = build_averages(config, nets)
    if resume:
        start_from_weights(nets, resume, averages, config)
    phases = build_phases(config, nets)
    for name in {name for phase in phases for name in phase.nets}:
        part_of(nets, name).train()
    optimizers, clips = build_optimizers(config, nets, phases)
    runner = PhaseRunner(
        nets, optimizers, seed=config["seed"], batch_gpu=config["batch_gpu"], clips=clips,
        max_bad_steps=config["max_bad_steps"],
    )  # fmt: skip
    kept = find_kept(phases)
    return RunState(nets=nets, averages=averages, optimizers=optimizers, runner=runner, kept=kept), phases


def build_averages(
    config: Mapping[str, Any], nets: Mapping[str, nn.Module]
) -> dict[str, tuple[str, WeightAverage, nn.Module]]:
    """Name -> (net it follows, rule, slow copy)."""
    averages = {}
    for name, entry in (config["emas"] or {}).items():
        if entry["net"] not in nets:
            raise ConfigError(f"emas.{name}.net names {entry['net']}, but there are only {', '.join(nets)}")
        rule = WeightAverage(**{key: value for key, value in entry.items() if key != "net"})
        averages[name] = (entry["net"], rule, copy.deepcopy(nets[entry["net"]]).eval().requires_grad_(False))
    return averages


def build_phases(config: Mapping[str, Any], nets: Mapping[str, nn.Module]) -> list[Phase]:
    """The phases in order, without those set to null, terms of weight 0, and phases that have no other terms.

    All share the critics, which are built once.
    """
    phases = []
    critics = {name: build(node, where=f"critics.{name}") for name, node in (config.get("critics") or {}).items()}
    for name, entry in config["phases"].items():
        if entry is None:
            continue
        nodes = {key: node for key, node in entry["terms"].items() if node and node.get("weight") != 0}
        if not nodes:
            continue
        where = f"phases.{name}"
        for net in entry["nets"]:
            if net.partition(".")[0] not in nets:
                raise ConfigError(f"{where}.nets names {net}, but there are only {', '.join(nets)}")
        if entry["optimizer"] not in config["optimizers"]:
            raise ConfigError(f"{where}.optimizer={entry['optimizer']} is none of {', '.join(config['optimizers'])}")
        terms = {key: build(node, where=f"{where}.terms.{key}") for key, node in nodes.items()}
        phases.append(
            Phase(
                name=name,
                nets=tuple(entry["nets"]),
                optimizer=entry["optimizer"],
                every=entry.get("every", 1),
                update_emas=entry.get("update_emas", False),
                terms=terms,
                shrink=entry.get("shrink", 1),
                critics=critics,
                draw=build(entry["draw"], where=f"{where}.draw") if entry.get("draw") else None,
            )
        )
    return phases


def find_kept(phases: list[Phase]) -> dict[str, Keeping]:
    """The terms, and parts of critics, that keep something: by phase and term, or critic and part."""
    kept = {}
    for phase in phases:
        owners = {f"{phase.name}.{name}": term for name, term in phase.terms.items()}
        for name, critic in phase.critics.items():
            owners |= {f"{name}.{key}": part for key, part in vars(critic).items()}
        kept |= {name: part for name, part in owners.items() if isinstance(part, Keeping)}
    return kept


def build_optimizers(
    config: Mapping[str, Any], nets: Mapping[str, nn.Module], phases: list[Phase]
) -> tuple[dict[str, torch.optim.Optimizer], dict[str, float | None]]:
    """Optimisers and their clipping norms, by name.

    An optimiser that also serves a phase run every k > 1 iterations makes k + 1 steps in k iterations: its learning
    rate and betas are corrected by c = k / (k + 1) (StyleGAN2, Karras et al. 2020, appendix B).
    """
    optimizers, clips = {}, {}
    for name, entry in config["optimizers"].items():
        entry = dict(entry)
        clips[name] = entry.pop("clip", None)
        lazy = entry.pop("lazy", True)
        parts = [part_of(nets, name) for name in entry.pop("nets")]
        parameters = [p for net in parts for p in net.parameters() if p.requires_grad]
        every = max((phase.every for phase in phases if phase.optimizer == name), default=1)
        if lazy and every > 1:
            correction = every / (every + 1)
            entry["lr"] *= correction
            entry["betas"] = [beta**correction for beta in entry["betas"]]
        if "betas" in entry:
            entry["betas"] = tuple(entry["betas"])
        optimizers[name] = build(entry, where=f"optimizers.{name}", params=parameters)
    return optimizers, clips
