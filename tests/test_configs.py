"""What stands in configs/: everything composes, and the presets are the numbers of the papers."""

import itertools
from functools import cache
from typing import Any

import pytest
import torch

from training.build import build_nets, build_rig
from training.cli.checks import check_parts, check_sizes
from training.cli.compose import composed, resolved
from training.cli.dry_run import traced
from training.cli.formulas import FORMULAS
from training.cli.keys import CONFIGS, GROUPS, HINTS, groups, top_level_keys
from training.cli.overrides import NVIDIA
from training.data.critters import Critters
from training.setup import build_phases

MODELS, SPECS = groups()["model"], groups()["spec"]
PARAMETERS = {  # of the published networks
    ("eg3d_ffhq", 512): (30_662_136, 31_359_744),
    ("eg3d_ffhq", 256): (29_587_512, 31_241_216),
    ("eg3d_shapenet", 128): (29_587_512, 30_766_592),
}


@cache
def config_of(*words: str, resolution: int = 32, label_dim: int = 0) -> dict[str, Any]:
    facts = {"resolution": resolution, "num_channels": 3, "num_classes": 0, "label_dim": label_dim}
    return resolved(composed(words), facts)


@pytest.mark.parametrize(("model", "spec"), itertools.product(MODELS, SPECS))
def test_every_model_composes_with_every_spec_and_its_sizes_fit(model: str, spec: str):
    config = config_of(f"model={model}", f"spec={spec}", resolution=64)
    assert (config["choices"]["model"], config["spec"]["name"]) == (model, spec)
    check_sizes(config)
    if spec in ("tiny", "cifar", "eg3d"):  # those that differ in more than numbers
        check_parts(config)


def test_the_default_is_eg3d_tiny_on_critters():
    config = config_of()
    chosen = {key: config["choices"][key] for key in ("model", "spec", "dataset", "rig", "phases")}
    assert chosen == {"model": "eg3d", "spec": "tiny", "dataset": "critters", "rig": "face", "phases": "gan"}
    assert (config["batch"], config["dataset"]["resolution"], config["dataset"]["size"]) == (16, 32, 10_000)
    assert config["nets"]["G"]["raw_resolution"] == 16
    assert config["nets"]["G"]["rays"]["samples"] == [8, 8]
    assert config["spec"]["channel_max"] == 64


# --- specs: columns of the table of StyleGAN2-ada's presets ---

ADA = {  # batch, images a GPU, learning rate, gamma, ema kimg, ramp-up, kimg, channel base, mapping layers, mbstd group
    "stylegan2": (32, 4, 0.002, 10, 10, None, 25000, 32768, 8, 4),
    "paper256": (64, 8, 0.0025, 1, 20, None, 25000, 16384, 8, 8),
    "paper512": (64, 8, 0.0025, 0.5, 20, None, 25000, 32768, 8, 8),
    "paper1024": (32, 4, 0.002, 2, 10, None, 25000, 32768, 8, 4),
    "cifar": (64, 32, 0.0025, 0.01, 500, 0.05, 100000, 32768, 2, 32),
    "nerf32": (64, 8, 0.0025, 0.003, 20, None, 25000, 16384, 8, 8),
}


@pytest.mark.parametrize("spec", ADA)
def test_specs_are_those_of_the_papers(spec: str):
    config = config_of("model=stylegan2", f"spec={spec}")
    optimizers, average = config["optimizers"], config["emas"]["G_ema"]
    G, D = config["nets"]["G"], config["nets"]["D"]
    assert optimizers["G"]["lr"] == optimizers["D"]["lr"]
    found = (
        config["batch"], config["batch_gpu"], optimizers["G"]["lr"], config["phases"]["Dreg"]["terms"]["r1"]["gamma"],
        average["kimg"], average["rampup"], config["kimg"], G["synthesis"]["channel_base"], G["mapping"]["num_layers"],
        D["mbstd_group_size"],
    )  # fmt: skip
    assert found == ADA[spec]
    assert G["synthesis"]["channel_max"] == D["channel_max"] == 512
    assert D["architecture"] == ("orig" if spec == "cifar" else "resnet")
    assert (config["tick"], config["snap"]) == (4, 50)


@pytest.mark.parametrize(
    ("resolution", "gpus", "batch", "group", "base", "lr"),
    [
        (256, 1, 16, 4, 16384, 0.0025),
        (256, 8, 64, 4, 16384, 0.0025),
        (512, 1, 8, 4, 32768, 0.0025),
        (1024, 1, 4, 4, 32768, 0.002),
        (1024, 8, 32, 4, 32768, 0.002),
        (1024, 16, 64, 4, 32768, 0.002),
        (2048, 1, 2, 2, 32768, 0.002),
        (32, 1, 32, 4, 16384, 0.0025),
    ],
)
def test_auto_follows_from_resolution_and_gpus(resolution, gpus, batch, group, base, lr):
    config = config_of("model=stylegan2", "spec=auto", f"gpus={gpus}", resolution=resolution)
    assert config["batch"] == batch
    assert config["batch_gpu"] == batch // gpus
    assert config["gamma"] == pytest.approx(0.0002 * resolution**2 / batch)
    assert config["emas"]["G_ema"]["kimg"] == pytest.approx(batch * 10 / 32)
    assert config["nets"]["D"]["mbstd_group_size"] == group
    assert config["nets"]["D"]["channel_base"] == base
    assert config["optimizers"]["G"]["lr"] == lr


# --- EG3D ---

RENDERING = {  # resolution, samples, near, far, box side, background, radius, pivot
    "eg3d_ffhq": (512, [48, 48], 2.25, 3.3, 1, "black", 2.7, [0, 0, 0.2]),
    "eg3d_afhq": (512, [48, 48], 2.25, 3.3, 1, "black", 2.7, [0, 0, -0.06]),
    "eg3d_shapenet": (128, [64, 64], 0.1, 2.6, 1.6, "white", 1.7, [0, 0, 0]),
}
TRAINING = {  # gamma, swap probability (None: G is told no camera), raw resolution at the start and in the end
    "eg3d_ffhq": (1, 0.5, 64, 64),
    "eg3d_afhq": (5, 0.8, 64, 128),
    "eg3d_shapenet": (0.3, None, 64, 64),
}


@pytest.mark.parametrize("model", RENDERING)
def test_eg3d_renders_as_published(model: str):
    config = config_of(f"model={model}", resolution=RENDERING[model][0])
    G, rig = config["nets"]["G"], config["rig"]
    rays = G["rays"]
    found = (rays["samples"], rays["near"], rays["far"], G["field"]["box_side"], rays["background"])
    assert (*found, rig["radius"], rig["pivot"]) == RENDERING[model][1:]
    assert (G["backbone"]["img_resolution"], G["backbone"]["img_channels"], G["field"]["hidden"]) == (256, 96, 64)
    assert (G["mapping"]["z_dim"], G["mapping"]["w_dim"], G["mapping"]["c_dim"]) == (512, 512, 25)


@pytest.mark.parametrize("model", TRAINING)
def test_eg3d_trains_as_published(model: str):
    config = config_of(f"model={model}", resolution=RENDERING[model][0])
    G, phases = config["nets"]["G"], config["phases"]
    draw, density = phases["Gmain"]["draw"], phases["Greg"]["terms"]["density"]
    found = (config["gamma"], draw["probability"], G["raw_resolution_initial"], G["raw_resolution"])
    assert found == TRAINING[model]
    assert G["pose_conditioning"] is (draw["probability"] is not None)
    assert (draw["fade_kimg"], G["raw_fade_kimg"]) == (1000, 1000)
    assert (density["weight"], density["std"]) == (0.25, 0.004)
    assert [(name, phase["every"]) for name, phase in phases.items()] == [
        ("Gmain", 1), ("Greg", 4), ("Dmain", 1), ("Dreg", 16),
    ]  # fmt: skip
    assert [name for name, phase in phases.items() if phase.get("update_emas")] == ["Dmain"]
    assert (phases["Greg"]["draw"]["per"], draw.get("per", "item")) == ("batch", "item")
    assert {**phases["Greg"]["draw"], "per": None} == {**draw, "per": None} == {**phases["Dmain"]["draw"], "per": None}
    lr = {name: (o["lr"], o["betas"], o["eps"], o["lazy"]) for name, o in config["optimizers"].items()}
    assert lr == {"G": (0.0025, [0, 0.99], 1e-8, True), "D": (0.002, [0, 0.99], 1e-8, True)}
    assert config["emas"]["G_ema"] == {"net": "G", "kimg": 10, "rampup": 0.05}
    assert (config["batch"], config["batch_gpu"], config["kimg"]) == (32, 4, 25000)
    assert (config["spec"]["mapping_layers"], config["nets"]["D"]["mbstd_group_size"]) == (2, 4)
    critic = config["critics"]["D"]
    assert (critic["raw"], critic["blur_sigma"], critic["blur_fade_kimg"]) == (True, 10, 200)


@pytest.mark.parametrize(
    ("resolution", "start", "widths"), [(512, 128, [256, 128]), (256, 128, [128, 64]), (128, 64, [128, 64])]
)
def test_eg3d_chooses_its_super_resolution_by_size(resolution: int, start: int, widths: list[int]):
    upsampler = config_of("model=eg3d", "spec=eg3d", resolution=resolution)["nets"]["G"]["upsampler"]
    assert (upsampler["input_resolution"], upsampler["widths"]) == (start, widths)


@pytest.mark.parametrize("resolution", [32, 64, 1024])
def test_eg3d_has_sizes_for_any_resolution(resolution: int):
    for spec in ("tiny", "eg3d"):
        config = config_of("model=eg3d", f"spec={spec}", resolution=resolution)
        with torch.device("meta"):
            assert build_nets(config)["G"].img_resolution == resolution
        assert config["nets"]["G"]["raw_resolution"] <= resolution // 2


@pytest.mark.parametrize(("model", "resolution"), PARAMETERS)
def test_networks_have_as_many_parameters_as_the_published_ones(model: str, resolution: int):
    with torch.device("meta"):
        # the published super-resolution owns noise that it never uses: four numbers
        nets = build_nets(config_of(f"model={model}", "+nets.G.upsampler.use_noise=true", resolution=resolution))
    counts = tuple(sum(p.numel() for p in nets[name].parameters()) for name in ("G", "D"))
    assert counts == PARAMETERS[model, resolution]


def test_a_start_from_weights_has_no_blur_no_fade_and_no_ramp_up():
    config = config_of("model=eg3d_ffhq", "resume=weights", resolution=512)
    assert config["critics"]["D"]["blur_fade_kimg"] == 0
    assert config["phases"]["Gmain"]["draw"]["fade_kimg"] == 0
    assert config["emas"]["G_ema"]["rampup"] is None
    assert config["phases"]["Gmain"]["draw"]["probability"] == 0.5


def test_the_blur_fades_with_the_batch():
    assert config_of("model=eg3d_ffhq", "batch=4", resolution=512)["critics"]["D"]["blur_fade_kimg"] == 25


def test_a_spec_on_the_line_beats_the_models_own():
    assert config_of("model=eg3d_ffhq", resolution=512)["spec"]["name"] == "eg3d"
    config = config_of("model=eg3d_afhq", "spec=tiny")
    assert (config["spec"]["name"], config["batch"]) == ("tiny", 16)
    assert config["gamma"] == pytest.approx(4 * 0.0002 * 32**2 / 16)
    assert config_of("model=eg3d_afhq", "spec.gamma=3", resolution=512)["gamma"] == 3
    assert config_of("model=eg3d_afhq", "gamma=2", resolution=512)["gamma"] == 2


def test_class_labels_widen_both_networks():
    for model in ("eg3d", "stylegan2"):
        plain, told = config_of(f"model={model}"), config_of(f"model={model}", label_dim=3)
        assert told["nets"]["G"]["mapping"]["c_dim"] == plain["nets"]["G"]["mapping"]["c_dim"] + 3
        assert told["nets"]["D"]["label_dim"] == 3


# --- all parts work ---


@pytest.mark.parametrize(("model", "label_dim"), [*((model, 0) for model in MODELS), ("eg3d", 3), ("stylegan2", 3)])
def test_every_phase_of_every_model_runs_and_costs_something(model: str, label_dim: int):
    config = config_of(f"model={model}", "spec=tiny", "batch=4", "spec.path_length=2", label_dim=label_dim)
    trace = traced(config, Critters(resolution=32, size=4, cond=label_dim > 0))
    assert [phase.name for phase in trace.phases] == [name for name, node in config["phases"].items() if node]
    for phase in trace.phases:
        assert trace.costs[phase.name].flops > 1e6
        assert trace.costs[phase.name].saved > 1e4
    costs = {name: cost.flops for name, cost in trace.costs.items()}
    assert costs["Dreg"] > costs["Dmain"] / 4  # a second derivative through D


@pytest.mark.parametrize("rig", groups()["rig"])
def test_every_rig_is_a_distribution_of_cameras(rig: str):
    built = build_rig(config_of(f"rig={rig}"))
    position = built.mean.position[0]
    assert position.norm().item() == pytest.approx(built.radius, rel=1e-5)
    assert position[2] > 0  # the mean camera is in front


def test_every_key_is_explained_and_has_a_type():
    explained = [key.name for key in top_level_keys()]
    assert set(explained) == {*HINTS, "metrics", "init"}
    config = config_of()
    nodes = {"samples", "critics", "optimizers", "emas", "nets", "choices", *GROUPS} - {"experiment"}
    assert set(config) == {*explained, *nodes}


def test_every_file_says_what_it_is():
    for file in CONFIGS.rglob("*.yaml"):
        lines = [line for line in file.read_text().splitlines() if line != "# @package _global_"]
        assert lines[0].startswith("# "), file


def test_phases_can_be_left_out():
    config = config_of("model=eg3d", "phases.Greg=null")
    with torch.device("meta"):
        assert [phase.name for phase in build_phases(config, build_nets(config))] == ["Gmain", "Dmain", "Dreg"]


def test_a_micro_batch_divides_the_share_of_a_gpu():
    micro_batch = FORMULAS["micro_batch"]
    for batch, gpus, most in itertools.product(range(1, 70), (1, 2, 3, 8), (1, 4, 8, 32)):
        size = micro_batch(batch, gpus, most)
        share = max(batch // gpus, 1)
        assert share % size == 0
        assert size <= most
        assert all(share % larger for larger in range(size + 1, most + 1))


def test_formulas_of_sizes_are_those_of_stylegan2_and_eg3d():
    rows = FORMULAS["style_rows"]
    assert [rows(r) for r in (4, 8, 256, 1024)] == [2, 4, 14, 18]


def test_every_formula_is_used():
    text = "".join(file.read_text() for file in CONFIGS.rglob("*.yaml"))
    assert [name for name in FORMULAS if f"${{{name}:" not in text] == []


def test_every_option_of_the_stylegan_family_that_is_respelt_exists_here():
    config = config_of("model=eg3d")
    for key in NVIDIA.values():
        node = config
        for part in key.split("."):
            assert part in node, key
            node = node[part]
