"""Replay of EG3D's training losses: each phase from the stored weights, with recorded draws."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dnnlib.errors import CheckpointError
from torch_utils.draws import Draws, Per
from torch_utils.ema import commit_averages
from training.contracts import Batch, Camera, Condition, Inputs
from training.generators.eg3d import TriplaneGenerator
from training.importers.eg3d_fixtures import GENERATOR_PREFIXES, camera_and_label, fixed_ray_draws
from training.importers.replaying_losses import BOTH, Told, layer_noise, results
from training.importers.strict import renamed
from training.layers.labels import CAMERA_NUMBERS
from training.losses.adversarial import DiscriminatorLogistic, GeneratorLogistic
from training.losses.critic import ImageCritic
from training.losses.density import DensityTV, MonotonicDensity
from training.losses.draws import PoseSwap
from training.losses.r1 import R1Penalty
from training.phases import accumulate
from training.rendering.rays import image_rays
from training.step import Step, Term

Tensors = Mapping[str, Tensor]
PREFIXES = {f"G.{theirs}": f"G.{ours}" for theirs, ours in GENERATOR_PREFIXES.items()}
DEFAULTS: dict[str, Any] = {
    "r1_gamma": 10, "style_mixing_prob": 0, "blur_init_sigma": 0, "blur_fade_kimg": 0, "gpc_reg_prob": None,
    "gpc_reg_fade_kimg": 1000, "filter_mode": "antialiased", "neural_rendering_resolution_initial": 64,
    "neural_rendering_resolution_final": None, "neural_rendering_resolution_fade_kimg": 0,
}  # fmt: skip


def replay_losses(
    call_args: Mapping[str, Any], tensors: Tensors, nets: Mapping[str, nn.Module], loss: Mapping[str, Any],
    rendering: Mapping[str, Any],
) -> dict[str, Tensor]:  # fmt: skip
    """loss: arguments of the reference's loss; rendering: its generator's rendering options."""
    if call_args.get("augment_pipe"):
        raise CheckpointError("EG3D's losses with augmentation cannot be replayed: the file has no room for its draws.")
    G, loss = nets["G"], DEFAULTS | dict(loss)
    assert isinstance(G, TriplaneGenerator)
    _as_in_training(G, loss, call_args)
    for net in nets.values():
        net.train(call_args["train"])
    kept = {name: _place(nets, name).clone() for name in call_args["restored_between_phases"]}
    made = {"out/neural_rendering_resolution": torch.tensor(G.options_at(call_args["cur_nimg"]).resolution)}
    for phase in call_args["phases"]:
        told = Told()
        for part in _parts(phase, loss, rendering):
            step = _step(part, call_args, tensors, nets, loss, told)
            accumulate(told.phase(part, _terms(part, loss, rendering)), step, call_args["gain"])
        commit_averages(G)
        prefixes = GENERATOR_PREFIXES if phase[0] == "G" else {}
        made |= results(phase, told, nets[phase[0]], tensors, call_args["grad_norm"], prefixes)
        for name, (after, place) in call_args.get("state_outputs", {}).items():
            if after == phase:
                made[f"out/{name}"] = _place(nets, place).clone()
        for name, tensor in kept.items():
            _place(nets, name).copy_(tensor)
        for net in nets.values():
            net.zero_grad()
    return {name: tensor.detach() for name, tensor in made.items()}


def _as_in_training(G: TriplaneGenerator, loss: Mapping[str, Any], call_args: Mapping[str, Any]) -> None:
    """The schedule of the raw image's side, and all noise as the file has it."""
    G.raw_resolution_initial = G.raw_resolution = loss["neural_rendering_resolution_initial"]
    if loss["neural_rendering_resolution_final"] is not None:
        G.raw_resolution = loss["neural_rendering_resolution_final"]
        G.raw_fade_kimg = loss["neural_rendering_resolution_fade_kimg"]
    G.noise = layer_noise(call_args["noise_mode"], call_args)
    if G.upsampler is not None:
        G.upsampler.noise = layer_noise(G.upsampler.noise, call_args)
    if G.rays.density_noise and call_args["draws"].get("density_noise") != 0:
        raise CheckpointError("Noise on densities cannot be replayed: the file does not hold what was drawn.")
    G.rays = replace(G.rays, density_noise=0.0)


def _parts(phase: str, loss: Mapping[str, Any], rendering: Mapping[str, Any]) -> list[str]:
    """The phases of one draw that a reference's phase is made of; without a regulariser it has no phase."""
    off = {"Greg": not rendering.get("density_reg", 0), "Dreg": not loss["r1_gamma"]}
    return [part for part in BOTH.get(phase, (phase,)) if not off.get(part, False)]


def _terms(part: str, loss: Mapping[str, Any], rendering: Mapping[str, Any]) -> dict[str, Term]:
    if part == "Greg":
        return _regularisers(rendering)
    return {
        "Gmain": {"loss": GeneratorLogistic()}, "Dmain": {"logistic": DiscriminatorLogistic()},
        "Dreg": {"r1": R1Penalty(loss["r1_gamma"], by="seen")},
    }[part]  # fmt: skip


def _regularisers(rendering: Mapping[str, Any]) -> dict[str, Term]:
    """Those of a reg_type. What the command line also takes, l1-alt and total-variation, does nothing there."""
    kind, weight, texel = rendering["reg_type"], rendering["density_reg"], rendering["box_warp"] / 256
    if kind == "l1":
        return {"density": DensityTV(weight, rendering["density_reg_p_dist"])}
    if kind in ("monotonic-detach", "monotonic-fixed"):
        monotonic = MonotonicDensity(distance=texel, detach=kind == "monotonic-detach")
        return {"monotonic": monotonic, "density": DensityTV(weight, texel)}
    return {}


@dataclass(frozen=True)
class _Labels:
    """The cameras of the fakes, as a pool to draw from."""

    c: Tensor

    def __len__(self) -> int:
        return len(self.c)

    def conditions(self, items: Tensor) -> Condition:
        camera, label = camera_and_label(self.c[items])
        return Condition(camera=camera, label=label)


@dataclass(frozen=True)
class _Recorded(Draws):
    """Draws of which none is made up."""

    def _draw(self, name: str, per: Per, make: Any) -> Tensor:
        if self.scope + name not in self.recorded:
            raise CheckpointError(f"The loss draws {self.scope}{name}, which the file does not hold.")
        return super()._draw(name, per, make)


def _step(
    part: str, call_args: Mapping[str, Any], tensors: Tensors, nets: Mapping[str, Any], loss: Mapping[str, Any],
    told: Told,
) -> Step:  # fmt: skip
    nimg, G, D, pool = call_args["cur_nimg"], nets["G"], nets["D"], _Labels(tensors["in/gen_c"])
    camera, label = camera_and_label(tensors["in/real_c"])
    batch = Batch(image=_reals(call_args["real_image"], tensors), condition=Condition(camera=camera, label=label))
    recorded = _recorded(call_args["draws"], tensors, part == "Greg")
    fixed = fixed_ray_draws(call_args["draws"], image_rays(camera, G.options_at(nimg).resolution), G.rays)
    recorded |= {"fake/jitter": fixed.coarse, "fake/importance": fixed.fine}
    draws = _Recorded(0, nimg=nimg, items=range(len(pool)), batch=len(pool), recorded=recorded)
    draw = PoseSwap(
        G.z_dim, loss["gpc_reg_prob"], loss["gpc_reg_fade_kimg"], per="batch" if part == "Greg" else "item",
        mixing=loss["style_mixing_prob"],
    )  # fmt: skip
    critic = ImageCritic(
        "D", raw="image_raw" in D.sees, blur_sigma=loss["blur_init_sigma"], blur_fade_kimg=loss["blur_fade_kimg"],
        raw_filter=loss["filter_mode"],
    )  # fmt: skip
    return Step(
        nets=nets, batch=batch, inputs=_shown(draw(replace(batch, pool=pool), draws, nimg, nets)), draws=draws,
        nimg=nimg, critics={"D": critic}, update_emas=part == "Dmain", report=told.report,
    )  # fmt: skip


def _shown(inputs: Inputs) -> Inputs:
    """A camera of zeros for a generator that is told none."""
    if inputs.condition.camera is not None or inputs.z is None:
        return inputs
    nothing = Camera.from_label(inputs.z.new_zeros(len(inputs.z), CAMERA_NUMBERS))
    return replace(inputs, condition=replace(inputs.condition, camera=nothing))


def _recorded(said: Mapping[str, Any], tensors: Tensors, regularises: bool) -> dict[str, Tensor]:
    """What the file says was drawn, by our names; noise on D's condition is as absent as all other noise."""
    names = {
        "density.points": "density_points", "monotonic.points": "density_points_monotonic",
        "density.shift": "density_perturbation", "mixing": "style_mixing_uniform", "mixing.z": "style_mixing_z",
        "swap": "conditioning_swap_reg" if regularises else "conditioning_swap",
    }  # fmt: skip
    z = tensors["in/z"]
    none = z.new_zeros(tensors["in/gen_c"].shape)
    made = {"item": torch.arange(len(z)), "z": z, "fake/disc_c_noise": none, "real/disc_c_noise": none}
    for ours, theirs in names.items():
        if said.get(theirs) is not None:
            value = said[theirs]
            made[ours] = tensors[f"in/{value}"] if isinstance(value, str) else torch.tensor(float(value))
    if "style_mixing_cutoff" in said:
        made["mixing.first"] = torch.tensor(said["style_mixing_cutoff"] - 1)  # counted from the second
    return made


def _reals(said: Mapping[str, Any], tensors: Tensors) -> Tensor:
    small, size = tensors[f"in/{said['tensor']}"], (said["size"], said["size"])
    low, high = said["clamp"]
    return F.interpolate(small, size=size, mode=said["mode"], align_corners=said["align_corners"]).clamp(low, high)


def _place(nets: Mapping[str, nn.Module], theirs: str) -> Tensor:
    """The buffer of the reference's name G.backbone.mapping.w_avg ..."""
    net, _, name = renamed(theirs, PREFIXES).partition(".")
    return nets[net].get_buffer(name)
