"""Replay of StyleGAN2's training losses: each phase from the stored weights, with recorded draws."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dnnlib.errors import CheckpointError
from torch_utils.draws import Draws
from torch_utils.ema import commit_averages
from training.contracts import Batch, Condition
from training.generators.stylegan2 import StyleGAN2Generator
from training.importers.replaying_losses import BOTH, Told, layer_noise, results
from training.importers.strict import renamed
from training.losses.adversarial import DiscriminatorLogistic, GeneratorLogistic
from training.losses.critic import ImageCritic
from training.losses.draws import LatentAndLabel
from training.losses.path_length import PathLength
from training.losses.r1 import R1Penalty
from training.phases import accumulate
from training.step import Step, Term

Tensors = Mapping[str, Tensor]
MEAN_LENGTH = "pl_mean"


def replay_losses(
    call_args: Mapping[str, Any], tensors: Tensors, nets: Mapping[str, Any], loss: Mapping[str, Any],
    prefixes: Mapping[str, str],
) -> dict[str, Tensor]:  # fmt: skip
    """loss: arguments of the reference's loss. prefixes: its generator's names -> ours."""
    if call_args.get("augment_pipe"):
        raise CheckpointError("StyleGAN2's losses with augmentation cannot be replayed: it is drawn at random.")
    G, state = nets["G"], _State(nets, loss, prefixes)
    assert isinstance(G, StyleGAN2Generator)
    G.noise = layer_noise(call_args["noise_mode"], call_args)
    for net in nets.values():
        net.train(call_args["train"])
    for name, tensor in call_args.get("initial", {}).items():
        state.put(name, tensors[f"in/{tensor}"])
    kept = {name: state.get(name) for name in call_args["restored_between_phases"]}
    made = {}
    for phase in call_args["phases"]:
        told = Told()
        for part in BOTH.get(phase, (phase,)):
            terms = _terms(part, loss, state.path_length)
            if terms:
                step = _step(part, call_args, tensors, nets, loss, told)
                accumulate(told.phase(part, terms), step, call_args["gain"])
        commit_averages(G)
        state.path_length.end_iteration(1, 1, lambda t: t)
        made |= results(
            phase, told, nets[phase[0]], tensors, call_args["grad_norm"], prefixes if phase[0] == "G" else {}
        )
        for name, (after, place) in call_args.get("state_outputs", {}).items():
            if after == phase:
                made[f"out/{name}"] = state.get(place)
        for name, tensor in kept.items():
            state.put(name, tensor)
        for net in nets.values():
            net.zero_grad()
    return {name: tensor.detach() for name, tensor in made.items()}


class _State:
    """What phases change, by the reference's names: G.mapping.w_avg ..., and the mean path length."""

    def __init__(self, nets: Mapping[str, Any], loss: Mapping[str, Any], prefixes: Mapping[str, str]) -> None:
        self._nets, self._prefixes = nets, prefixes
        self.path_length = PathLength(weight=loss.get("pl_weight", 0), decay=loss.get("pl_decay", 0.01))

    def _place(self, theirs: str) -> Tensor:
        net, _, name = theirs.partition(".")
        return self._nets[net].get_buffer(renamed(name, self._prefixes if net == "G" else {}))

    def get(self, name: str) -> Tensor:
        return (self.path_length.mean if name == MEAN_LENGTH else self._place(name)).clone()

    def put(self, name: str, value: Tensor) -> None:
        if name == MEAN_LENGTH:
            self.path_length.mean = value.clone()
        else:
            self._place(name).copy_(value)


def _terms(part: str, loss: Mapping[str, Any], path_length: PathLength) -> dict[str, Term]:
    """The terms of a phase; none where the reference has no such phase."""
    if (part == "Greg" and not path_length.weight) or (part == "Dreg" and not loss.get("r1_gamma", 10)):
        return {}
    terms: dict[str, dict[str, Term]] = {
        "Gmain": {"loss": GeneratorLogistic()},
        "Greg": {"path_length": path_length},
        "Dmain": {"logistic": DiscriminatorLogistic()},
        "Dreg": {"r1": R1Penalty(loss.get("r1_gamma", 10))},
    }
    return terms[part]


def _step(
    part: str, call_args: Mapping[str, Any], tensors: Tensors, nets: Mapping[str, Any], loss: Mapping[str, Any],
    told: Told,
) -> Step:  # fmt: skip
    count, said, nimg = len(tensors["in/z"]), call_args["draws"], call_args["cur_nimg"]
    count //= loss.get("pl_batch_shrink", 2) if part == "Greg" else 1
    rows = lambda name: tensors[f"in/{name}"][:count]  # noqa: E731
    mixes = loss.get("style_mixing_prob", 0) > 0
    recorded = {"z": rows("z")}
    if mixes:
        recorded |= {
            "mixing": torch.tensor(said["style_mixing_uniform"]),
            "mixing.first": torch.tensor(said["style_mixing_cutoff"] - 1),
            "mixing.z": rows(said["style_mixing_z"]),
        }
    if part == "Greg":
        recorded["path_length"] = rows(said["path_length_noise"])
    draws = Draws(0, nimg=nimg, items=range(count), batch=count, recorded=recorded)
    label, real_label = tensors.get("in/gen_c"), tensors.get("in/real_c")
    fakes = Batch(image=tensors["in/real"][:count], condition=Condition(label=None if label is None else label[:count]))
    inputs = LatentAndLabel(nets["G"].z_dim, loss.get("style_mixing_prob", 0))(fakes, draws, nimg, nets)
    critic = ImageCritic(
        "D", blur_sigma=loss.get("blur_init_sigma", 0), blur_fade_kimg=loss.get("blur_fade_kimg", 0)
    )  # fmt: skip
    return Step(
        nets=nets, batch=Batch(image=tensors["in/real"], condition=Condition(label=real_label)), inputs=inputs,
        draws=draws, nimg=nimg, critics={"D": critic}, update_emas=part == "Dmain", report=told.report,
    )  # fmt: skip
