"""The nine recipes in docs/recipes: one loop carries all models, with the numbers their authors published."""

import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from training.build import ALLOWED

FOLDER = Path(__file__).parent.parent / "docs" / "recipes"
MODELS = ["stylegan2", "eg3d", "stylenerf", "3di2i", "gmnr", "pof3d", "pix2pix3d", "pigan", "sem2nerf"]
PHASE_KEYS = {"nets", "optimizer", "every", "shrink", "update_emas", "draw", "terms"}

# path in the recipe -> value in the model's sheet
PUBLISHED = {
    "stylegan2": {
        "loop.batch": 64, "loop.kimg": 25000, "optimizers.G.lr": 0.0025, "emas.G_ema.kimg": 20,
        "nets.D.mbstd_group_size": 8, "phases.Gmain.draw.mixing": 0.9, "phases.Greg.every": 4,
        "phases.Greg.shrink": 2,
        "phases.Greg.terms.path_length.weight": 2, "phases.Dreg.every": 16, "phases.Dreg.terms.r1.gamma": 1,
    },
    "eg3d": {
        "loop.batch": 32, "optimizers.G.lr": 0.0025, "optimizers.D.lr": 0.002, "emas.G_ema.kimg": 10,
        "emas.G_ema.rampup": 0.05, "phases.Gmain.draw.fade_kimg": 1000, "phases.Greg.draw.per": "batch",
        "critics.D.blur_sigma": 10, "critics.D.blur_fade_kimg": 200,
        "phases.Greg.terms.density_tv.weight": 0.25, "phases.Greg.terms.density_tv.std": 0.004,
        "phases.Dreg.terms.r1.gamma": 1, "nets.G.raw_resolution.value": 64, "rig.radius": 2.7,
    },
    "stylenerf": {
        "nets.G.growth.kimg": [500, 5000], "nets.G.samples": [14, 14], "nets.G.background_samples": 4,
        "nets.G.magnitude_beta": 0.999, "phases.Gmain.terms.nerf_path.side": 16,
        "phases.Gmain.terms.nerf_path.weight": 2, "phases.Greg.terms.path_length.decay": 0.01,
        "phases.Dreg.terms.r1.gamma": 0.5, "emas.G_ema.kimg": 20, "optimizers.D.lr": 0.0025,
    },
    "3di2i": {
        "loop.batch": 64, "optimizers.A.lr": 2e-4, "optimizers.A.betas": [0.5, 0.99],
        "phases.Amain.terms.relative.corners": 8, "nets.G.adaptor.out_channels": 64,
    },
    "gmnr": {
        "optimizers.G.lr": 0.002, "optimizers.G.betas": [0, 0.9], "optimizers.D.clip": 10, "emas.G_ema.per_step": 0.999,
        "emas.G_ema_slow.per_step": 0.9999, "phases.Dmain.terms.r1.gamma": 10, "phases.Gmain.draw.views": 4,
        "phases.Gmain.terms.view_consistency.ssim": 0.85, "nets.G.planes": 32, "rig.yaw_spread": 0.289,
    },
    "pof3d": {
        "phases.Dmain.terms.pose_regression.weight": 2, "phases.Gmain.terms.pose_agreement.weight": 1,
        "phases.Dmain.terms.fake_mirrored.weight": 1, "phases.Dreg.terms.r1.gamma": 1, "optimizers.D.lr": 0.002,
        "critics.D.blur_fade_kimg": 200, "nets.G.pose_lr_multiplier": 0.01,
    },
    "pix2pix3d": {
        "loop.batch": 4, "emas.G_ema.kimg": 1.25, "phases.Gmain.draw.probability": 0.5,
        "phases.Gmain.terms.adversarial_semantic.weight": 0.1, "phases.Gmain.terms.reconstruction.lpips": 1,
        "phases.Gmain.terms.cross_view.weight": 1e-4, "phases.D_semanticreg.terms.r1.gamma": 5,
        "nets.D_semantic.img_channels": 3 + 6, "nets.G.geometry_rows": 7, "optimizers.D_semantic.lr": 0.002,
    },
    "pigan": {
        "loop.batch": 56, "optimizers.G.lr": 6e-5, "optimizers.D.lr": 2e-4, "optimizers.G.clip": 10,
        "phases.Dmain.terms.r1.gamma": 0.2, "phases.Gmain.terms.pose_recovery.weight": 15,
        "phases.Gmain.terms.adversarial.least": 0.6, "nets.G.samples": [12, 12], "nets.G.ray_range": [0.88, 1.12],
        "variants.carla.loop.batch.values": [30, 14, 10], "variants.carla.optimizers.G.lr.values": [4e-5, 2e-5, 1e-5],
    },
    "sem2nerf": {
        "optimizers.E.lr": 1e-4, "optimizers.D.lr": 2e-5, "phases.Emain.terms.lpips.weight": 0.8,
        "phases.Emain.terms.code_norm.weight": 0.005, "phases.Emain.terms.adversarial.weight": 0.08,
        "phases.Emain.draw.random_pose": 0.2, "phases.Emain.draw.anneal": 0.0019, "nets.G.encoder.in_channels": 18,
        "nets.G.patch_resolution": 128, "nets.G.decoder.samples": [28, 0],
    },
}  # fmt: skip


def recipe(model: str) -> dict[str, Any]:
    loaded = OmegaConf.to_container(OmegaConf.load(FOLDER / f"{model}.yaml"), resolve=True)
    assert isinstance(loaded, dict)
    return loaded  # pyright: ignore[reportReturnType]


def nodes(node: yaml.Node):
    """Every mapping of a YAML document."""
    if isinstance(node, yaml.MappingNode):
        yield node
        for _, value in node.value:
            yield from nodes(value)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from nodes(item)


def objects(model: str) -> list[tuple[str, list[str], bool]]:
    """Each object of a recipe: its `_target_`, its arguments that exist, whether the class does."""
    text = (FOLDER / f"{model}.yaml").read_text()
    lines = text.splitlines()
    root = yaml.compose(text)
    assert root is not None
    found = []
    for node in nodes(root):
        keys = {key.value: (key, value) for key, value in node.value}
        if "_target_" in keys:
            to_come = "# to come" in lines[keys["_target_"][0].start_mark.line]
            here = [name for name, (key, _) in keys.items() if "# to come" not in lines[key.start_mark.line]]
            found.append((keys["_target_"][1].value, [name for name in here if name != "_target_"], not to_come))
    return found


def test_the_folder_holds_one_recipe_for_each_model():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(MODELS)


@pytest.mark.parametrize("model", MODELS)
def test_every_name_in_a_recipe_refers_to_something(model: str):
    r = recipe(model)
    assert r["name"] == model
    for name, phase in r["phases"].items():
        assert set(phase) <= PHASE_KEYS, name
        assert {net.partition(".")[0] for net in phase["nets"]} <= set(r["nets"]), name
        assert set(phase["nets"]) <= set(r["optimizers"][phase["optimizer"]]["nets"]), name
        assert phase["every"] >= 1, name
        assert phase["terms"], name
        judged = {term.get("critic", "D") for term in phase["terms"].values() if "adversarial" in term["_target_"]}
        assert judged <= set(r.get("critics", {})), name
    assert {critic["net"] for critic in r.get("critics", {}).values()} <= set(r["nets"])
    assert {average["net"] for average in r["emas"].values()} <= set(r["nets"])
    assert all(("kimg" in average) != ("per_step" in average) for average in r["emas"].values())


@pytest.mark.parametrize("model", MODELS)
def test_every_trained_net_moves_by_exactly_one_optimizer(model: str):
    r = recipe(model)
    owned = [net for optimizer in r["optimizers"].values() for net in optimizer["nets"]]
    trained = {net for phase in r["phases"].values() for net in phase["nets"]}
    assert sorted(owned) == sorted(trained)
    assert {phase["optimizer"] for phase in r["phases"].values()} == set(r["optimizers"])


@pytest.mark.parametrize("model", MODELS)
def test_a_term_says_which_pass_it_shares(model: str):
    terms = [term for phase in recipe(model)["phases"].values() for term in phase["terms"].values()]
    assert all(isinstance(term["group"], str) for term in terms)


@pytest.mark.parametrize("model", MODELS)
def test_objects_live_with_the_plug_ins_and_take_these_arguments(model: str):
    for target, arguments, exists in objects(model):
        assert target.startswith((*ALLOWED, "training.optimizers.")), target  # the latter: change C20
        if not exists:
            continue
        module, _, name = target.rpartition(".")
        family = getattr(importlib.import_module(module), name).__mro__[:-1]
        accepted = {argument for cls in family for argument in inspect.signature(cls).parameters}
        ours = {"nets", "lazy", "clip"} if "betas" in arguments else set()  # read by the loop before it builds
        pending = {"truncation"} if name == "CameraRig" else set()  # docs/recipes/README.md, change C12
        assert set(arguments) <= accepted | ours | pending, target


@pytest.mark.parametrize("model", MODELS)
def test_recipes_state_the_published_numbers(model: str):
    r = OmegaConf.create(recipe(model))
    stated = {path: OmegaConf.select(r, path) for path in PUBLISHED[model]}
    assert {path: list(v) if OmegaConf.is_list(v) else v for path, v in stated.items()} == PUBLISHED[model]


@pytest.mark.parametrize(("model", "steps", "batch"), [
    ("3di2i", 10010, 64), ("gmnr", 6001, 64), ("sem2nerf", 800000, 8), ("pigan", 200000, 56),
])  # fmt: skip
def test_runs_counted_in_steps_are_as_long_in_images(model: str, steps: int, batch: int):
    assert recipe(model)["loop"]["kimg"] * 1000 == pytest.approx(steps * batch)


@pytest.mark.parametrize(("model", "optimizer", "lr", "every"), [
    ("eg3d", "G", 0.0020, 4), ("eg3d", "D", 0.001882, 16), ("pof3d", "D", 0.001882, 16), ("gmnr", "D", 0.002, 1),
    ("pigan", "D", 0.0002, 1), ("3di2i", "A", 0.0002, 1), ("pix2pix3d", "D_semantic", 0.001882, 16),
])  # fmt: skip
def test_lazy_phases_give_the_published_learning_rate(model: str, optimizer: str, lr: float, every: int):
    r = recipe(model)
    longest = max(phase["every"] for phase in r["phases"].values() if phase["optimizer"] == optimizer)
    correction = longest / (longest + 1) if longest > 1 else 1.0
    assert longest == every
    assert r["optimizers"][optimizer]["lr"] * correction == pytest.approx(lr, rel=1e-3)


def test_carla_changes_batch_and_learning_rates_at_the_same_images():
    carla = recipe("pigan")["variants"]["carla"]
    steps, batches = [0, 10_000, 55_000], carla["loop"]["batch"]["values"]
    second = steps[1] * batches[0]
    third = second + (steps[2] - steps[1]) * batches[1]
    schedules = [
        carla["loop"]["batch"],
        carla["nets"]["G"]["resolution"],
        *(o["lr"] for o in carla["optimizers"].values()),
    ]
    assert all(schedule["at_kimg"] == [0, second / 1000, third / 1000] for schedule in schedules)


def test_three_updates_of_the_average_are_one_with_the_cubed_decay():
    assert recipe("pof3d")["nets"]["G"]["w_avg_beta"] == pytest.approx(0.998**3, abs=1e-8)
