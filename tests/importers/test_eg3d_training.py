"""Replay of EG3D's losses with other options than those of the public fixture: what must follow from them."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from apps.check_parity import read
from dnnlib.errors import CheckpointError
from training.importers import replay

FILE = Path(__file__).parent.parent / "parity" / "eg3d_losses.safetensors"
GREG = "grad/Greg/decoder.net.2.weight"


@cache
def fixture() -> tuple[dict[str, str], dict[str, Tensor]]:
    return read(FILE)


def replayed(
    *phases: str, loss: Any = None, rendering: Any = None, draws: Any = None, **changed: Tensor
) -> dict[str, Tensor]:
    """The fixture's replay with changed options of the loss and the renderer, draws and tensors."""
    metadata, tensors = fixture()
    init, call = json.loads(metadata["init_kwargs"]), json.loads(metadata["call_args"])
    init["loss"] |= loss or {}
    init["G"]["rendering_kwargs"] |= rendering or {}
    call |= {"phases": phases, "draws": call["draws"] | (draws or {})}
    told = metadata | {"init_kwargs": json.dumps(init), "call_args": json.dumps(call)}
    return replay("eg3d_losses", told, tensors | changed)


def scores(made: dict[str, Tensor], side: str, phase: str = "Dmain") -> Tensor:
    return made[f"out/{phase}/Loss/scores/{side}"]


def test_monotonic_regularisers_add_what_does_not_depend_on_the_weight_of_the_other():
    texel = 1 / 256
    added = {}
    for kind in ("monotonic-fixed", "monotonic-detach"):
        for weight in (0.25, 2.0):
            both = replayed("Greg", rendering={"reg_type": kind, "density_reg": weight})
            alone = replayed("Greg", rendering={"density_reg": weight, "density_reg_p_dist": texel})
            added[kind, weight] = both[GREG] - alone[GREG]
        assert added[kind, 2.0].abs().max() > 1e-4
        torch.testing.assert_close(added[kind, 0.25], added[kind, 2.0], atol=1e-6, rtol=1e-4)
    assert not torch.allclose(added["monotonic-fixed", 2.0], added["monotonic-detach", 2.0], atol=1e-5)


@pytest.mark.parametrize("kind", ["l1-alt", "total-variation"])
def test_regularisers_that_do_nothing_there_do_nothing_here(kind: str):
    made = replayed("Greg", rendering={"reg_type": kind})
    assert made["out/Greg/grad_norm"] == 0
    assert not made[GREG].any()


def test_both_at_once_is_the_sum():
    parts = [name for name in fixture()[1] if name.startswith("grad/Greg/")]
    listed = {name.replace("Greg", "Gboth"): torch.zeros(()) for name in parts}
    made = replayed("Gboth", "Gmain", "Greg", **listed)
    for name in parts:
        expected = made[name.replace("Greg", "Gmain")] + made[name]
        torch.testing.assert_close(made[name.replace("Greg", "Gboth")], expected, atol=1e-6, rtol=1e-4)


def test_another_way_to_resize_reals_changes_what_is_said_of_them_alone():
    usual = replayed("Dmain")
    seen = [scores(usual, "real")]
    for mode in ("none", 0.3, "classic"):
        made = replayed("Dmain", loss={"filter_mode": mode})
        assert torch.equal(scores(made, "fake"), scores(usual, "fake"))
        seen.append(scores(made, "real"))
    assert all((a - b).abs().max() > 1e-5 for i, a in enumerate(seen) for b in seen[:i])


def test_no_swap_probability_means_no_camera():
    blind = replayed("Gmain", rendering={"c_gen_conditioning_zero": True})
    untold = replayed("Gmain", loss={"gpc_reg_prob": None})
    assert torch.equal(scores(blind, "fake", "Gmain"), scores(untold, "fake", "Gmain"))
    assert not torch.equal(scores(untold, "fake", "Gmain"), scores(replayed("Gmain"), "fake", "Gmain"))


def test_style_mixing_takes_a_second_latent_under_the_camera_that_is_rendered():
    z = fixture()[1]["in/z"]
    mix = {"style_mixing_cutoff": 3, "style_mixing_uniform": 0.5, "style_mixing_z": "z_mix"}
    never, always = torch.ones(len(z), 1) - 1e-6, torch.zeros(len(z), 1)

    def said(swap: Tensor, probability: float, other: Tensor) -> Tensor:
        made = replayed(
            "Gmain", loss={"style_mixing_prob": probability}, draws=mix, **{"in/swap_u": swap, "in/z_mix": other}
        )
        return scores(made, "fake", "Gmain")

    for swap, same in ((never, True), (always, False)):  # swapped, the first codes know another camera
        plain = said(swap, 0.0, z)
        assert torch.equal(said(swap, 0.4, -z), plain)  # 0.5 is above 0.4
        assert torch.allclose(said(swap, 0.9, z), plain, atol=1e-6) is same
        assert not torch.allclose(said(swap, 0.9, -z), plain, atol=1e-6)


def test_nothing_is_drawn_that_the_file_does_not_hold():
    with pytest.raises(CheckpointError, match="draws mixing, which the file does not hold"):
        replayed("Gmain", loss={"style_mixing_prob": 0.9})
    with pytest.raises(CheckpointError, match="Noise on densities"):
        replayed("Gmain", rendering={"density_noise": 1}, draws={"density_noise": 1})
    with pytest.raises(CheckpointError, match="Random noise"):
        replayed("Gmain", rendering={"superresolution_noise_mode": "random"}, draws={"layer_noise": 1})
