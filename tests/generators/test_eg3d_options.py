"""Every option of EG3D's command line has a counterpart here, and reaches what it is for."""

from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dnnlib.errors import ConfigError
from training.build import build_nets
from training.cli.checks import check_parts
from training.cli.compose import composed, resolved
from training.discriminators.dual import DualDiscriminator, FadingDiscriminator, SingleDiscriminator
from training.phases import Phase
from training.setup import build_optimizers, build_phases

NEITHER = "does nothing there"
# EG3D's option: (what is typed here, where it arrives, what arrives), or why there is none
OPTIONS: dict[str, tuple[str, str, Any] | str] = {
    "outdir": ("outdir=out", "config.outdir", "out"),
    "cfg": "model=eg3d_ffhq, eg3d_afhq, eg3d_shapenet",
    "data": ("data=critters", "config.data", "critters"),
    "gpus": ("gpus=2", "config.gpus", 2),
    "batch": ("batch=64", "config.batch", 64),
    "gamma": ("gamma=3", "terms.Dreg.r1.gamma", 3),
    "cond": "cameras are told whatever cond says; cond=True tells class labels, too",
    "mirror": ("mirror=True", "config.mirror", True),
    "aug": ("aug=fixed", "critic.augment.target", None),
    "p": ("p=0.3", "critic.augment.p", 0.3),
    "target": "critic.augment.target, with aug=ada",
    "resume": "resume=",
    "freezed": ("freezed=2", "config.nets.D.freeze_layers", 2),
    "batch_gpu": ("batch_gpu=8", "config.batch_gpu", 8),
    "cbase": ("spec.channel_base=1024", "config.nets.D.channel_base", 1024),
    "cmax": ("spec.channel_max=32", "config.nets.G.backbone.channel_max", 32),
    "glr": ("spec.glr=0.5", "config.optimizers.G.lr", 0.5),
    "dlr": ("spec.dlr=0.25", "config.optimizers.D.lr", 0.25),
    "map_depth": ("spec.mapping_layers=3", "G.mapping_network.num_layers", 3),
    "mbstd_group": ("spec.mbstd_group=8", "D.b4.mbstd.group_size", 8),
    "desc": ("desc=try", "config.desc", "try"),
    "metrics": "metrics=fid50k_full",
    "kimg": ("kimg=9", "config.kimg", 9),
    "tick": ("tick=2", "config.tick", 2),
    "snap": ("snap=3", "config.snap", 3),
    "seed": ("seed=5", "config.seed", 5),
    "nobench": ("nobench=True", "config.nobench", True),
    "workers": ("workers=1", "config.workers", 1),
    "dry_run": ("dry_run=True", "config.dry_run", True),
    "neural_rendering_resolution_initial": ("model.raw_resolution=32", "G.raw_resolution_initial", 32),
    "neural_rendering_resolution_final": ("model.raw_resolution_final=48", "G.raw_resolution", 48),
    "neural_rendering_resolution_fade_kimg": ("model.raw_fade_kimg=7", "G.raw_fade_kimg", 7),
    "blur_fade_kimg": ("model.blur_fade_kimg=11", "critic.blur_fade_kimg", 11),
    "gen_pose_cond": ("model.pose_conditioning=True", "G.pose_conditioning", True),
    "c_scale": ("nets.G.camera_scale=0.5", "G.camera_scale", 0.5),
    "c_noise": NEITHER,
    "gpc_reg_prob": ("model.swap_probability=0.7", "phases.Greg.draw.probability", 0.7),
    "gpc_reg_fade_kimg": ("model.swap_fade_kimg=13", "phases.Dmain.draw.fade_kimg", 13),
    "disc_c_noise": ("nets.D.disc_c_noise=0.1", "D.disc_c_noise", 0.1),
    "sr_noise_mode": ("nets.G.upsampler.noise=random", "G.upsampler.block0.conv1.use_noise", True),
    "resume_blur": "model.resume_blur=True",
    "sr_num_fp16_res": ("model.half_res.upsampler=4", "G.upsampler.block1.half_dtype", torch.float16),
    "g_num_fp16_res": ("model.half_res.G=1", "G.backbone.b256.half_dtype", torch.float16),
    "d_num_fp16_res": ("model.half_res.D=2", "D.b64.half_dtype", torch.float16),
    "sr_first_cutoff": NEITHER,
    "sr_first_stopband": NEITHER,
    "style_mixing_prob": ("model.style_mixing=0.9", "phases.Greg.draw.mixing", 0.9),
    "sr_module": ("model.sr_module=2X", "G.upsampler.input_resolution", 64),
    "density_reg": ("phases.Greg.terms.density.weight=0.4", "terms.Greg.density.weight", 0.4),
    "density_reg_every": ("phases.Greg.every=8", "phases.Greg.every", 8),
    "density_reg_p_dist": ("phases.Greg.terms.density.std=0.01", "terms.Greg.density.std", 0.01),
    "reg_type": ("model.reg_type=monotonic-detach", "terms.Greg.monotonic.detach", True),
    "decoder_lr_mul": ("nets.G.field.lr_multiplier=0.2", "G.field.net.0.lr_multiplier", 0.2),
}


@cache
def config_of(*words: str, resolution: int = 128) -> dict[str, Any]:
    facts = {"resolution": resolution, "num_channels": 3, "num_classes": 0, "label_dim": 0}
    return resolved(composed(words), facts)


@cache
def nets_of(*words: str, resolution: int = 128) -> dict[str, Any]:
    with torch.device("meta"):
        return build_nets(config_of(*words, resolution=resolution))


def phases_of(*words: str) -> dict[str, Phase]:
    nets = {"G": torch.nn.Identity(), "D": torch.nn.Identity()}  # only their names matter
    return {phase.name: phase for phase in build_phases(config_of(*words), nets)}


def count(net: torch.nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@cache
def changed() -> SimpleNamespace:
    """A run with every option that has a counterpart changed."""
    words = [entry[0] for entry in OPTIONS.values() if not isinstance(entry, str)]
    words = ["model=eg3d_ffhq", "precision=fp16", *words]
    phases = phases_of(*words)
    terms = {name: phase.terms for name, phase in phases.items()}
    critic = phases["Gmain"].critics["D"]
    return SimpleNamespace(config=config_of(*words), phases=phases, terms=terms, critic=critic, **nets_of(*words))


def arrived(at: Any, path: str) -> Any:
    for part in path.split("."):
        at = at[part] if isinstance(at, dict) else at[int(part)] if part.isdigit() else getattr(at, part)
    return at


@pytest.mark.parametrize("option", [name for name, entry in OPTIONS.items() if not isinstance(entry, str)])
def test_an_option_arrives(option: str):
    _, path, expected = OPTIONS[option]
    if option == "decoder_lr_mul":
        default = nets_of("model=eg3d_ffhq")["G"].field.net[0]
        assert changed().G.field.net[0].weight_gain == pytest.approx(expected * default.weight_gain)
    else:
        assert arrived(changed(), path) == expected


@pytest.mark.parametrize("option", [name for name, entry in OPTIONS.items() if not isinstance(entry, str)])
def test_it_was_something_else_before(option: str):
    path = OPTIONS[option][1]
    if path.startswith("config.") and option not in ("data", "outdir"):
        assert arrived(config_of("model=eg3d_ffhq"), path.removeprefix("config.")) != OPTIONS[option][2]


def test_half_precision_is_clamped_and_full_precision_is_not():
    half, full = changed(), nets_of("model=eg3d_ffhq")
    for net, plain in ((half.G.backbone, full["G"].backbone), (half.G.upsampler, full["G"].upsampler)):
        name = "b256" if net is half.G.backbone else "block0"
        assert net.get_submodule(name).conv1.conv_clamp == 256
        assert plain.get_submodule(name).conv1.conv_clamp is None
    assert (half.D.b128.conv0.conv_clamp, full["D"].b128.conv0.conv_clamp) == (256, None)
    assert half.G.backbone.get_submodule("b128").half_dtype is None
    assert nets_of("model=eg3d_ffhq", "precision=fp16")["G"].backbone.b256.conv1.conv_clamp is None  # as published
    assert nets_of("model=eg3d_ffhq", "precision=fp16", "fp32=True")["D"].b128.half_dtype is None
    assert nets_of("model=eg3d_ffhq", "precision=bf16")["D"].b128.half_dtype == torch.bfloat16


def test_density_regularisers_by_their_names():
    steps = {"l1": 0.004, "monotonic-fixed": 1.6 / 256, "monotonic-detach": 1.6 / 256}
    for name, near in steps.items():
        terms: dict[str, Any] = dict(phases_of("model=eg3d_shapenet", f"model.reg_type={name}")["Greg"].terms)
        assert terms["density"].std == pytest.approx(near)
        assert list(terms) == (["density"] if name == "l1" else ["monotonic", "density"])
        if name != "l1":
            assert (terms["monotonic"].weight, terms["monotonic"].detach) == (10, name == "monotonic-detach")
            assert terms["monotonic"].distance == pytest.approx(near)
    with pytest.raises(ConfigError, match="total-variation"):
        config_of("model=eg3d", "model.reg_type=total-variation")


def test_without_a_density_regulariser_the_learning_rate_is_not_corrected():
    words = ("model=eg3d_ffhq", "phases.Greg.terms.density.weight=0")
    config, nets = config_of(*words), nets_of(*words)
    phases = build_phases(config, nets)
    assert [phase.name for phase in phases] == ["Gmain", "Dmain", "Dreg"]
    lr = {name: made.param_groups[0]["lr"] for name, made in build_optimizers(config, nets, phases)[0].items()}
    assert lr == {"G": 0.0025, "D": pytest.approx(0.002 * 16 / 17)}


@pytest.mark.parametrize(
    ("name", "kind", "raw"),
    [("Dual", DualDiscriminator, True), ("Single", SingleDiscriminator, False), ("Fading", FadingDiscriminator, True)],
)
def test_discriminators_by_their_names(name: str, kind: type, raw: bool):
    words = ("model=eg3d", f"model.discriminator={name}")
    D, critic = nets_of(*words)["D"], phases_of(*words)["Gmain"].critics["D"]
    assert type(D) is kind
    assert critic.raw is raw  # pyright: ignore
    assert ("image_raw" in D.sees) is raw
    check_parts(config_of(*words))


@pytest.mark.parametrize(
    ("name", "resolution", "start", "widths", "doubles"),
    [
        ("8XDC", 512, 128, (256, 128), True), ("8X", 512, 128, (128, 64), True), ("4X", 256, 128, (128, 64), False),
        ("2X", 128, 64, (128, 64), False),
    ],
)  # fmt: skip
def test_super_resolution_by_its_name(name: str, resolution: int, start: int, widths: tuple, doubles: bool):
    net = nets_of("model=eg3d", f"model.sr_module={name}", resolution=resolution)["G"].upsampler
    assert net.input_resolution == start
    assert (net.block0.conv1.weight.shape[0], net.block1.conv1.weight.shape[0]) == widths
    assert (net.block0.up, net.block1.up) == (2 if doubles else 1, 2)
    with pytest.raises(ConfigError, match="doubled"):
        nets_of("model=eg3d", f"model.sr_module={name}", resolution=32)


def test_a_start_from_weights_keeps_blur_and_fade_if_asked():
    settled, kept = (config_of("model=eg3d_ffhq", "resume=w", *more) for more in ((), ("model.resume_blur=True",)))
    for config, blurred, fade in ((settled, 0, 0), (kept, 200, 1000)):
        assert config["critics"]["D"]["blur_fade_kimg"] == blurred
        assert config["phases"]["Greg"]["draw"]["fade_kimg"] == fade


def test_the_defects_of_published_weights_come_together():
    fixed, published = nets_of("model=eg3d_ffhq")["G"], nets_of("model=eg3d_shapenet", "model.as_published=True")["G"]
    found = [
        (G.field.axes, G.rays.bins, G.rays.importance, G.rays.depth_clamp, G.rays.misses) for G in (fixed, published)
    ]
    assert found == [("fixed", "cells", "full", "ray", "empty"), ("legacy", "nodes", *["legacy"] * 3)]
    assert (fixed.upsampler.raw_in_place, published.upsampler.raw_in_place) == (False, True)
    large = nets_of("model=eg3d_ffhq", "model.as_published=True", resolution=512)["G"]
    assert not large.upsampler.raw_in_place  # there the first block doubles


SIZES = {  # parameters of the published networks: G, its backbone with the mapping, super-resolution, field; D
    ("eg3d_ffhq", 512): (30_662_136, 29_008_301, 1_649_578, 4_257, 31_359_744),
    ("eg3d_ffhq_128", 512): (30_662_136, 29_008_301, 1_649_578, 4_257, 31_359_744),
    ("eg3d_afhq", 512): (30_662_136, 29_008_301, 1_649_578, 4_257, 31_359_744),
    ("eg3d_ffhq_rebalanced", 256): (29_587_512, 29_008_301, 574_954, 4_257, 31_241_216),
    ("eg3d_shapenet", 128): (29_587_512, 29_008_301, 574_954, 4_257, 30_766_592),
}


@pytest.mark.parametrize(("model", "resolution"), SIZES)
def test_presets_are_as_large_as_published(model: str, resolution: int):
    nets = nets_of(f"model={model}", "model.as_published=True", resolution=resolution)
    G = nets["G"]
    backbone = count(G.backbone) + count(G.mapping_network)
    found = (count(G), backbone, count(G.upsampler), count(G.field), count(nets["D"]))
    assert found == SIZES[model, resolution]
    assert count(G.mapping_network) == 800_768


def test_presets_of_later_stages():
    second, even = (config_of(f"model=eg3d_ffhq_{name}", resolution=512) for name in ("128", "rebalanced"))
    cats = config_of("model=eg3d_afhq", resolution=512)
    assert (second["kimg"], second["nets"]["G"]["raw_resolution"], second["rig"]["pivot"]) == (2000, 128, [0, 0, 0.2])
    assert (even["kimg"], even["phases"]["Gmain"]["draw"]["probability"]) == (25000, 0.8)
    assert (cats["aug"], cats["critics"]["D"]["augment"]["target"]) == ("ada", 0.6)
    cars = config_of("model=eg3d_shapenet")["rig"]
    assert (cars["focal"], cars["radius"]) == (1.0254, 1.7)  # the lens of the data: whole cars in the picture
