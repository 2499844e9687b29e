"""Building runs our own classes and nothing else, and names every mistake by its place."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from dnnlib.errors import ConfigError
from training.build import build, build_nets, build_rig, find_class
from training.losses.draws import PoseSwap
from training.rendering.cameras import CameraRig

RIG = {"_target_": "training.rendering.cameras.CameraRig", "radius": 2.7, "focal": 4.26, "pivot": [0, 0, 0.2]}
R1 = {"_target_": "training.losses.r1.R1Penalty", "gamma": 1}


def linear(**more):
    return {"_target_": "training.layers.linear.FullyConnected", "in_features": 3, "out_features": 2, **more}


def test_a_node_becomes_its_class_with_lists_as_tuples():
    rig = build_rig({"rig": RIG})
    assert rig == CameraRig(radius=2.7, focal=4.26, pivot=(0, 0, 0.2))
    assert hash(rig) == hash(CameraRig(radius=2.7, focal=4.26, pivot=(0, 0, 0.2)))


def test_nodes_inside_nodes_are_built():
    layers = "training.layers"
    mapping = {"_target_": f"{layers}.mapping.MappingNetwork", "z_dim": 4, "c_dim": 0, "w_dim": 8, "num_ws": None}
    synthesis = {"_target_": f"{layers}.synthesis.SynthesisNetwork", "w_dim": 8, "img_resolution": 8, "img_channels": 3}
    node = {"_target_": "training.generators.stylegan2.StyleGAN2Generator", "mapping": mapping}
    net = build({**node, "synthesis": {**synthesis, "channel_base": 64}}, where="nets.G")
    assert (net.z_dim, net.img_resolution) == (4, 8)


def test_text_is_taken_as_it_is():
    critic = build({"_target_": "training.losses.critic.ImageCritic", "net": "${oc.env:HOME}"}, where="critics.D")
    assert critic.net == "${oc.env:HOME}"


def test_extra_arguments_arrive_as_the_very_objects():
    weight = nn.Parameter(torch.zeros(2))
    node = {"_target_": "torch.optim.Adam", "lr": 0.002, "betas": [0.0, 0.99], "eps": 1e-8}
    optimizer = build(node, where="optimizers.G", params=[weight])
    assert optimizer.param_groups[0]["params"][0] is weight
    assert optimizer.param_groups[0]["betas"] == (0.0, 0.99)


@pytest.mark.parametrize(
    "target",
    [
        "os.system", "builtins.eval", "subprocess.Popen", "posix.system", "torch.load", "torch.hub.load",
        "training.snapshot.open_network", "training.cli.main", "run_train.train", "tests.toy.Toy",
        "training.losses.r1.torch.hub.load", "training.losses.r1.R1Penalty.__init__", "training.losses.critic.blur",
        "training.losses.r1.dataclass", "training.data.opening.open_dataset", "training.build.build", "torch.optim",
        "torch.optim.adam._fused_adam", "torch.optim.__loader__", "metrics.probe.Path",
        "training.losses.__spec__.loader", "training.losses..r1.R1Penalty", "", "R1Penalty", None, 3, ["os.system"],
    ],
)  # fmt: skip
def test_foreign_targets_are_refused(target):
    with pytest.raises(ConfigError, match="_target_="):
        build({"_target_": target, "command": "exit 1"}, where="nets.G")


def test_a_refused_target_deep_inside_runs_nothing(tmp_path: Path):
    flag = tmp_path / "ran"
    evil = {"_target_": "pathlib.Path.touch", "self": str(flag)}
    for node in ({**RIG, "pivot": evil}, {**RIG, "pivot": [0, evil]}, {**RIG, "pivot": {"a": {"b": [evil]}}}):
        with pytest.raises(ConfigError, match=r"rig\.pivot.*_target_=pathlib"):
            build(node, where="rig")
    assert not flag.exists()


def test_foreign_modules_are_not_even_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "evil_module_of_test_build.py").write_text("raise SystemExit(7)")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match="is not allowed"):
        build({"_target_": "evil_module_of_test_build.Net"}, where="nets.G")
    assert "evil_module_of_test_build" not in sys.modules


@pytest.mark.parametrize("key", ["_args_", "_partial_", "_convert_", "_recursive_", "__class__"])
def test_keys_with_underscores_are_no_arguments(key: str):
    with pytest.raises(ConfigError, match=f"rig.{key}: CameraRig takes no such argument"):
        build({**RIG, key: [1]}, where="rig")


def test_mistakes_name_path_class_and_the_nearest_argument():
    with pytest.raises(ConfigError, match=r"^rig\.radios: CameraRig takes no such argument; did you mean radius"):
        build({**RIG, "radios": 1}, where="rig")
    with pytest.raises(ConfigError, match=r"^rig lacks radius, focal, which CameraRig needs"):
        build({"_target_": RIG["_target_"]}, where="rig")
    with pytest.raises(ConfigError, match=r"^rig\.radius=far: CameraRig expects a number\.$"):
        build({**RIG, "radius": "far"}, where="rig")
    with pytest.raises(ConfigError, match=r"^rig\.kind=box: CameraRig expects gaussian, uniform or sphere\.$"):
        build({**RIG, "kind": "box"}, where="rig")
    with pytest.raises(ConfigError, match=r"there is no module training\.losses\.r2"):
        build({"_target_": "training.losses.r2.R1Penalty"}, where="terms.r1")
    with pytest.raises(ConfigError, match=r"has no class R1Penalti; did you mean R1Penalty"):
        build({"_target_": "training.losses.r1.R1Penalti"}, where="terms.r1")
    with pytest.raises(ConfigError, match=r"^phases\.Greg\.draw names nothing to build"):
        build({"z_dim": 3}, where="phases.Greg.draw")


def test_a_class_that_refuses_its_arguments_is_named():
    node = {"_target_": "training.layers.synthesis.SynthesisNetwork", "w_dim": 8, "img_channels": 3}
    with pytest.raises(ConfigError, match=r"^nets\.G\.s: SynthesisNetwork cannot be built: img_resolution=24 is not"):
        build({**node, "img_resolution": 24}, where="nets.G.s")


@pytest.mark.parametrize(
    ("node", "told"),
    [
        (linear(in_features=0), r"^nets\.G: FullyConnected cannot be built: one of its sizes comes out as 0\.$"),
        (linear(in_features=-3), r"^nets\.G: FullyConnected cannot be built: "),
        ({"_target_": "training.rendering.hierarchical.RaySettings", "near": 3, "far": 2}, r"^nets\.G: near=3"),
        ({"_target_": "training.layers.synthesis.SynthesisNetwork", "w_dim": 8, "img_resolution": 8, "img_channels": 3,
          "channels": {8: 4}}, r"^nets\.G: SynthesisNetwork cannot be built: there is no 4"),
    ],
)  # fmt: skip
def test_whatever_a_constructor_raises_is_one_sentence_that_names_the_node(node: dict, told: str):
    with pytest.raises(ConfigError, match=told) as caught:
        build(node, where="nets.G")
    assert "\n" not in str(caught.value)


def test_networks_are_made_of_networks_alone():
    for target in ("training.losses.r1.R1Penalty", "training.data.critters.Critters", "torch.optim.Adam"):
        assert find_class(target, "phases.x")
        with pytest.raises(ConfigError, match=r"nets\.G\._target_=.* is not allowed: .*training\.generators"):
            build_nets({"nets": {"G": {"_target_": target}}})
        with pytest.raises(ConfigError, match="is not allowed"):
            build_rig({"rig": {"_target_": target}})
    with pytest.raises(ConfigError, match="rig is not a distribution of cameras but a FullyConnected"):
        build_rig({"rig": linear()})


def test_arguments_of_a_base_class_count():
    node = {
        "_target_": "training.discriminators.stylegan2.StyleGAN2Discriminator",
        "img_resolution": 8, "channel_base": 64, "channel_max": 8,
    }  # fmt: skip
    assert build_nets({"nets": {"D": node}})["D"].img_resolution == 8
    with pytest.raises(ConfigError, match=r"nets\.D\.channel_bas: .*did you mean channel_base"):
        build_nets({"nets": {"D": {**node, "channel_bas": 4}}})


def test_types_of_arguments_are_those_of_the_signature():
    draw = {"_target_": "training.losses.draws.PoseSwap", "z_dim": 4}
    assert build({**draw, "probability": None}, where="draw") == PoseSwap(z_dim=4, probability=None)
    fade = build({**draw, "fade_kimg": 10}, where="draw").fade_kimg
    assert (fade, type(fade)) == (10, float)  # whole numbers are numbers
    assert [type(x) for x in build({**RIG, "pivot": [0, 1, 2]}, where="rig").pivot] == [float] * 3
    for wrong in ({"z_dim": 4.5}, {"z_dim": True}, {"z_dim": None}, {"probability": "often"}, {"per": "iteration"}):
        with pytest.raises(ConfigError, match="PoseSwap expects"):
            build({**draw, **wrong}, where="draw")


def test_a_net_must_be_a_network():
    with pytest.raises(ConfigError, match=r"nets\.G is not a network but a CameraRig"):
        build_nets({"nets": {"G": RIG}})
    assert list(build_nets({"nets": {"B": linear(), "A": linear(), "C": None}})) == ["B", "A"]
