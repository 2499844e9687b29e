"""Replay of EG3D's training losses: each phase from the stored weights, with recorded draws."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dnnlib.errors import CheckpointError
from torch_utils.draws import Draws
from torch_utils.ema import commit_averages
from training.contracts import Batch, Condition
from training.generators.eg3d import TriplaneGenerator
from training.importers.eg3d_fixtures import GENERATOR_PREFIXES, camera_and_label, fixed_ray_draws, layer_noise
from training.importers.replaying import listed_gradients
from training.importers.strict import renamed
from training.losses.adversarial import DiscriminatorLogistic, GeneratorLogistic
from training.losses.critic import ImageCritic
from training.losses.density import DensityTV
from training.losses.draws import PoseSwap
from training.losses.r1 import R1Penalty
from training.phases import Phase, accumulate
from training.rendering.rays import image_rays
from training.step import Step, Term

Tensors = Mapping[str, Tensor]
PREFIXES = {f"G.{theirs}": f"G.{ours}" for theirs, ours in GENERATOR_PREFIXES.items()}
BOTH = {"Gboth": ("Gmain", "Greg"), "Dboth": ("Dmain", "Dreg")}


def replay_losses(
    call_args: Mapping[str, Any], tensors: Tensors, nets: Mapping[str, nn.Module], loss: Mapping[str, Any],
    rendering: Mapping[str, Any],
) -> dict[str, Tensor]:  # fmt: skip
    """loss: arguments of the reference's loss; rendering: its generator's rendering options."""
    for name, value in (("augment_pipe", call_args), ("style_mixing_prob", loss)):
        if value.get(name):
            raise CheckpointError(f"EG3D's losses with {name}={value[name]!r} cannot be replayed yet.")
    if loss.get("filter_mode", "antialiased") != "antialiased":
        raise CheckpointError(f"EG3D's losses with filter_mode={loss['filter_mode']!r} cannot be replayed yet.")
    if rendering.get("density_reg", 0) and rendering["reg_type"] != "l1":
        raise CheckpointError(f"EG3D's density regulariser {rendering['reg_type']!r} cannot be replayed yet.")
    G = nets["G"]
    assert isinstance(G, TriplaneGenerator)
    _schedule(G, loss)
    G.noise = layer_noise(call_args["noise_mode"], call_args)
    for net in nets.values():
        net.train(call_args["train"])
    kept = {name: _place(nets, name).clone() for name in call_args["restored_between_phases"]}
    made = {"out/neural_rendering_resolution": torch.tensor(G.options_at(call_args["cur_nimg"]).resolution)}
    for phase in call_args["phases"]:
        told = _Told()
        for part in _parts(phase, loss, rendering):
            step = _step(part, call_args, tensors, nets, loss, told)
            accumulate(_phase(part, loss, rendering, told), step, call_args["gain"])
        commit_averages(G)
        made |= _results(phase, told, nets[phase[0]], tensors, call_args["grad_norm"])
        for name, (after, place) in call_args.get("state_outputs", {}).items():
            if after == phase:
                made[f"out/{name}"] = _place(nets, place).clone()
        for name, tensor in kept.items():
            _place(nets, name).copy_(tensor)
        for net in nets.values():
            net.zero_grad()
    return {name: tensor.detach() for name, tensor in made.items()}


@dataclass
class _Told:
    """What a phase reports: statistics, and each term's values."""

    statistics: dict[str, Tensor] = field(default_factory=dict)
    terms: dict[str, Tensor] = field(default_factory=dict)

    def report(self, name: str, values: Tensor) -> None:
        self.statistics[name] = values.detach()


@dataclass
class _Noted:
    """A term that notes its values."""

    name: str
    term: Term
    told: _Told

    @property
    def group(self) -> str:
        return self.term.group

    @property
    def differentiates_images(self) -> bool:
        return getattr(self.term, "differentiates_images", False)

    def __call__(self, step: Step) -> Tensor:
        values = self.term(step)
        assert isinstance(values, Tensor)
        self.told.terms[self.name] = values.detach()
        return values


def _schedule(G: TriplaneGenerator, loss: Mapping[str, Any]) -> None:
    G.raw_resolution_initial = G.raw_resolution = loss["neural_rendering_resolution_initial"]
    if loss["neural_rendering_resolution_final"] is not None:
        G.raw_resolution = loss["neural_rendering_resolution_final"]
        G.raw_fade_kimg = loss["neural_rendering_resolution_fade_kimg"]


def _parts(phase: str, loss: Mapping[str, Any], rendering: Mapping[str, Any]) -> list[str]:
    """The phases of one draw that a reference's phase is made of; without a regulariser it has no phase."""
    off = {"Greg": not rendering.get("density_reg", 0), "Dreg": not loss["r1_gamma"]}
    return [part for part in BOTH.get(phase, (phase,)) if not off.get(part, False)]


def _phase(part: str, loss: Mapping[str, Any], rendering: Mapping[str, Any], told: _Told) -> Phase:
    terms: dict[str, Term] = {
        "Gmain": {"loss": GeneratorLogistic()},
        "Greg": {"density": DensityTV(rendering.get("density_reg", 0), rendering.get("density_reg_p_dist", 0))},
        "Dmain": {"logistic": DiscriminatorLogistic()},
        "Dreg": {"reg": R1Penalty(loss["r1_gamma"], by="seen")},
    }[part]
    noted = {name: _Noted(name, term, told) for name, term in terms.items()}
    return Phase(name=part, nets=(part[0],), optimizer=part[0], terms=noted)


@dataclass(frozen=True)
class _Labels:
    """The cameras of the fakes, as a pool to draw from."""

    c: Tensor

    def __len__(self) -> int:
        return len(self.c)

    def conditions(self, items: Tensor) -> Condition:
        camera, label = camera_and_label(self.c[items])
        return Condition(camera=camera, label=label)


def _step(
    part: str, call_args: Mapping[str, Any], tensors: Tensors, nets: Mapping[str, Any], loss: Mapping[str, Any],
    told: _Told,
) -> Step:  # fmt: skip
    nimg, said, pool = call_args["cur_nimg"], call_args["draws"], _Labels(tensors["in/gen_c"])
    camera, label = camera_and_label(tensors["in/real_c"])
    batch = Batch(image=_reals(call_args["real_image"], tensors), condition=Condition(camera=camera, label=label))
    regularises = part == "Greg"
    rays = image_rays(camera, nets["G"].options_at(nimg).resolution)
    fixed = fixed_ray_draws(said, rays, nets["G"].rays)
    recorded = {
        "item": torch.arange(len(pool)), "z": tensors["in/z"], "fake/jitter": fixed.coarse,
        "fake/importance": fixed.fine, "density.points": tensors[f"in/{said['density_points']}"],
        "density.shift": tensors[f"in/{said['density_perturbation']}"],
        "swap": tensors[f"in/{said['conditioning_swap_reg' if regularises else 'conditioning_swap']}"],
    }  # fmt: skip
    draws = Draws(0, nimg=nimg, items=range(len(pool)), batch=len(pool), recorded=recorded)
    gpc = loss["gpc_reg_prob"] if nets["G"].pose_conditioning else None
    draw = PoseSwap(nets["G"].z_dim, gpc, loss["gpc_reg_fade_kimg"], per="batch" if regularises else "item")
    critic = ImageCritic(
        "D", raw="image_raw" in nets["D"].sees, blur_sigma=loss["blur_init_sigma"],
        blur_fade_kimg=loss["blur_fade_kimg"],
    )  # fmt: skip
    return Step(
        nets=nets, batch=batch, inputs=draw(replace(batch, pool=pool), draws, nimg, nets), draws=draws,
        nimg=nimg, critics={"D": critic}, update_emas=part == "Dmain", report=told.report,
    )  # fmt: skip


def _reals(said: Mapping[str, Any], tensors: Tensors) -> Tensor:
    small, size = tensors[f"in/{said['tensor']}"], (said["size"], said["size"])
    low, high = said["clamp"]
    return F.interpolate(small, size=size, mode=said["mode"], align_corners=said["align_corners"]).clamp(low, high)


def _place(nets: Mapping[str, nn.Module], theirs: str) -> Tensor:
    """The buffer of the reference's name G.backbone.mapping.w_avg ..."""
    net, _, name = renamed(theirs, PREFIXES).partition(".")
    return nets[net].get_buffer(name)


def _results(phase: str, told: _Told, net: nn.Module, tensors: Tensors, norm: bool) -> dict[str, Tensor]:
    """Statistics under the reference's names, and gradients."""
    made = {}
    for side in ("fake", "real"):
        score = told.statistics.get(f"score/{side}")
        if score is not None:
            made |= {f"Loss/scores/{side}": score, f"Loss/signs/{side}": score.sign()}
    terms = told.terms
    if "loss" in terms:
        made["Loss/G/loss"] = terms["loss"]
    if "logistic" in terms:
        made["Loss/D/loss"] = terms["logistic"]
    if "reg" in terms:
        made |= {"Loss/D/reg": terms["reg"], "Loss/r1_penalty": told.statistics["r1"]}
    if norm:
        grads = [p.grad.norm() for p in net.parameters() if p.grad is not None]
        made["grad_norm"] = torch.stack(grads).norm() if grads else torch.zeros(())
    out = {f"out/{phase}/{name}": tensor for name, tensor in made.items()}
    return out | listed_gradients(None, net, tensors, f"grad/{phase}/", GENERATOR_PREFIXES if phase[0] == "G" else {})
