"""Snapshots hold what is needed to rebuild a network, and nothing else is believed."""

import json
import resource
from pathlib import Path

import pytest
import torch

from dnnlib.errors import CheckpointError
from tests.tiny import TINY
from training.build import build_nets
from training.cli.main import prepared
from training.contracts import Condition
from training.setup import build_run
from training.snapshot import averages_of, find_snapshot, open_generator, open_network, read_snapshot, save_snapshot
from training.transfer import start_from_weights


@pytest.fixture(scope="module")
def config() -> dict:
    return prepared(TINY)[0]


@pytest.fixture
def file(config: dict, tmp_path: Path) -> Path:
    torch.manual_seed(1)
    nets = build_nets(config)
    torch.manual_seed(2)
    path = tmp_path / "000012.safetensors"
    save_snapshot(path, {**nets, "G_ema": build_nets(config)["G"]}, config, nimg=12_345)
    return path


def test_the_averaged_generator_is_opened_ready_to_render(file: Path, config: dict):
    opened = open_network(file)
    torch.manual_seed(2)
    expected = build_nets(config)["G"].eval()
    camera = opened.rig.at(0.2)
    z = torch.randn(1, 8)
    pictures = []
    for G in (opened.G, expected):
        codes = G.mapping(z, Condition(camera=camera))
        pictures.append(G.synthesis(codes, camera, G.options_at(0).still()).image)
    assert torch.equal(*pictures)
    assert not any(p.requires_grad for p in opened.G.parameters())
    assert not opened.G.training
    assert opened.nimg == 12_345


def test_a_network_that_is_no_generator_is_opened_by_its_name(tmp_path: Path):
    probe = prepared(["experiment=probe", "nets.P.channels=[4,4,4,4,4]"])[0]
    save_snapshot(tmp_path / "p.safetensors", build_nets(probe), probe, nimg=0)
    assert type(open_network(tmp_path / "p.safetensors", net="P").G).__name__ == "Probe"
    with pytest.raises(CheckpointError, match="holds no network G: it has P"):
        open_generator(tmp_path / "p.safetensors")


def test_a_g_that_is_no_generator_is_told_before_it_is_used(config: dict, file: Path, tmp_path: Path):
    nodes, nets = config["nets"], build_nets(config)
    save_snapshot(tmp_path / "d.safetensors", {"G": nets["D"]}, {**config, "nets": {"G": nodes["D"]}}, nimg=0)
    with pytest.raises(CheckpointError, match=r"d\.safetensors makes no pictures: its network G is a DualDisc"):
        open_generator(tmp_path / "d.safetensors")
    assert open_generator(file).nimg == 12_345


def test_a_run_folder_means_its_newest_snapshot(file: Path):
    folder = file.parent / "snapshots"
    folder.mkdir()
    for name in ("000001.safetensors", "000020.safetensors", "000003.safetensors"):
        (folder / name).write_bytes(file.read_bytes())
    assert find_snapshot(file.parent).name == "000020.safetensors"


def test_a_path_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(CheckpointError, match="nowhere"):
        open_network(tmp_path / "nowhere")


def test_a_folder_without_snapshots_says_so(tmp_path: Path):
    with pytest.raises(CheckpointError, match="no snapshot yet"):
        open_network(tmp_path)


@pytest.mark.parametrize("keep", [0, 7, 5000, -10])
def test_a_file_cut_short_is_refused(file: Path, keep: int):
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="cut short"):
        open_network(file)


def test_another_model_s_weights_are_refused(file: Path, config: dict, tmp_path: Path):
    other = prepared(["model=stylegan2", "resolution=16", "spec.channel_max=8"])[0]
    mixed = {**config, "nets": {**config["nets"], "G": other["nets"]["G"]}}
    save_snapshot(tmp_path / "mixed.safetensors", build_nets(config), mixed, nimg=0)
    with pytest.raises(CheckpointError, match="belongs to another network"):
        open_network(tmp_path / "mixed.safetensors")


def test_a_strange_safetensors_file_is_refused(tmp_path: Path):
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(2)}, tmp_path / "strange.safetensors")
    with pytest.raises(CheckpointError, match="holds no configuration of ours"):
        open_network(tmp_path / "strange.safetensors")


def test_a_configuration_that_names_foreign_code_is_refused(file: Path, config: dict, tmp_path: Path):
    evil = {**config, "nets": {**config["nets"], "G": {"_target_": "os.system", "command": f"touch {tmp_path}/ran"}}}
    save_snapshot(tmp_path / "evil.safetensors", build_nets(config), evil, nimg=0)
    with pytest.raises(CheckpointError, match=r"evil\.safetensors: nets\.G\._target_=os\.system is not allowed"):
        open_network(tmp_path / "evil.safetensors")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "target",
    ["training.data.image_folder.ImageFolder", "training.losses.r1.R1Penalty", "training.programs.samples.SampleGrid",
     "torch.optim.Adam", "metrics.turning.Turning", "training.phases.Phase"],
)  # fmt: skip
def test_a_snapshot_may_name_networks_only(target: str, config: dict, tmp_path: Path):
    path = tmp_path / "wide.safetensors"
    inside = {**config["nets"]["G"], "field": {"_target_": target}}
    for changed in ({"nets": {"G": {"_target_": target}}}, {"nets": {"G": inside}}, {"rig": {"_target_": target}}):
        save_snapshot(path, {"G": build_nets(config)["G"]}, {**config, **changed}, nimg=0)
        with pytest.raises(CheckpointError, match="is not allowed"):
            open_network(path)


def described(path: Path, config: dict, text: str | None = None, nimg: str = "0") -> Path:
    """A snapshot of a good network with this description."""
    from safetensors.torch import save_file

    state = {f"G/{key}": value for key, value in build_nets(config)["G"].state_dict().items()}
    metadata = {"format": "parallax-snapshot-1", "nimg": nimg} | ({} if text is None else {"config": text})
    save_file(state, path, metadata)
    return path


@pytest.mark.parametrize(
    "text", [None, "", "{", "[]", "3", "null", "{}", "[" * 100_000, '{"nets": {"G": 3}}', "nets: {}"]
)
def test_a_damaged_description_is_told(text: str | None, config: dict, tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"x\.safetensors does not describe its networks"):
        open_network(described(tmp_path / "x.safetensors", config, text))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"nets": None}, "nets is no mapping"),
        ({"nets": {}}, "holds no network G"),
        ({"nets": {"G": 3}}, r"nets\.G names nothing to build"),
        ({"rig": None}, "rig is no mapping"),
        ({"rig": {}}, "rig names nothing to build"),
        ({"emas": [1]}, "emas is no mapping"),
        ({"emas": {"G_ema": 3}}, r"emas\.G_ema cannot be built"),
        ({"emas": {"G_ema": {"net": "G"}}}, r"emas\.G_ema cannot be built: a weight average needs"),
        ({"emas": {"G_ema": {"net": "G", "kimg": 1}}, "batch": "x"}, r"emas\.G_ema cannot be built"),
        ({"dataset": {"label_dim": "many"}}, "label_dim is no whole number"),
        ({"dataset": {"label_dim": -1}}, r"dataset\.label_dim=-1 must be"),
    ],
)
def test_a_description_without_what_is_needed_is_told(change: dict, told: str, config: dict, tmp_path: Path):
    path = described(tmp_path / "x.safetensors", config, json.dumps({**config, **change}))
    with pytest.raises(CheckpointError, match=rf"x\.safetensors.*{told}"):
        open_network(path)


@pytest.mark.parametrize(
    ("place", "value"),
    [("mapping.num_layers", 10**9), ("mapping.w_dim", 10**6), ("backbone.img_resolution", 8192), ("field.hidden", -1),
     ("field.hidden", 10**7), ("field.features", 10**100), ("backbone.channel_base", float("inf")),
     ("backbone.channels", {"4": 1}), ("mapping.unknown", 1)],
)  # fmt: skip
def test_absurd_sizes_are_refused_before_they_take_memory(place: str, value, config: dict, tmp_path: Path):
    absurd = json.loads(json.dumps(config))
    part, _, key = place.partition(".")
    absurd["nets"]["G"][part][key] = value
    path = described(tmp_path / "x.safetensors", config, json.dumps(absurd))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match=r"x\.safetensors"):
        open_network(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def test_of_several_averages_the_slowest_is_taken(config: dict, tmp_path: Path):
    averages = {
        "G_fast": {"net": "G", "kimg": 1}, "D_ema": {"net": "D", "kimg": 900}, "G_slow": {"net": "G", "kimg": 20},
        "G_step": {"net": "G", "per_step": 0.999}, "G_mid": {"net": "G", "kimg": 10, "rampup": 0.05},
    }  # fmt: skip
    assert averages_of("G", {**config, "emas": averages}) == ["G_slow", "G_mid", "G_step", "G_fast"]
    kept = {}
    for seed, name in enumerate(averages):
        torch.manual_seed(seed)
        kept[name] = build_nets(config)["G" if name[0] == "G" else "D"]
    path = tmp_path / "several.safetensors"
    save_snapshot(path, kept, {**config, "emas": averages}, nimg=0)
    nets = build_nets(config)
    start_from_weights(nets, str(path))
    slowest = kept["G_slow"].state_dict()
    for G in (open_network(path).G, nets["G"]):
        assert all(torch.equal(slowest[key], value) for key, value in G.state_dict().items())


def test_a_new_run_starts_from_the_nets_of_the_same_names(file: Path, config: dict):
    torch.manual_seed(3)
    nets = build_nets(config)
    start_from_weights(nets, str(file))
    torch.manual_seed(1)
    saved = build_nets(config)
    for name, net in nets.items():
        expected = saved[name].state_dict()
        assert all(torch.equal(expected[key], value) for key, value in net.state_dict().items())


def test_where_only_an_average_was_kept_a_run_starts_from_it(config: dict, tmp_path: Path):
    torch.manual_seed(2)
    kept = build_nets(config)
    save_snapshot(tmp_path / "kept.safetensors", {"G_ema": kept["G"], "D": kept["D"]}, config, nimg=1)
    torch.manual_seed(3)
    nets = build_nets(config)
    start_from_weights(nets, str(tmp_path / "kept.safetensors"))
    average = kept["G"].state_dict()
    assert all(torch.equal(average[key], value) for key, value in nets["G"].state_dict().items())


def test_an_average_goes_on_from_the_average_of_its_name(file: Path, config: dict, capsys: pytest.CaptureFixture):
    config = {**config, "emas": {**config["emas"], "G_new": {"net": "G", "kimg": 1}}}
    run, _ = build_run(config, torch.device("cpu"), str(file))
    begun = run.everything()
    said = capsys.readouterr().out
    for name, weights in (("G", "G"), ("D", "D"), ("G_ema", "G_ema"), ("G_new", "G")):
        expected = read_snapshot(file)[0][weights]
        assert all(torch.equal(expected[key], value) for key, value in begun[name].state_dict().items()), name
        assert f"{name} starts from {weights} of {file}" in said


def test_weights_that_two_nets_share_are_kept_for_both(config: dict, tmp_path: Path):
    nets = build_nets(config)
    nets["D"].b4.out.bias = nets["D"].b4.fc.bias = nets["D"].b4.conv.bias  # within a net
    nets["twin"] = nets["G"]
    save_snapshot(tmp_path / "tied.safetensors", nets, config, nimg=0)
    states = read_snapshot(tmp_path / "tied.safetensors")[0]
    for name, net in nets.items():
        assert states[name].keys() == net.state_dict().keys()
        assert all(torch.equal(states[name][key], value) for key, value in net.state_dict().items())


def test_a_folder_of_runs_means_its_newest_run(file: Path, tmp_path: Path):
    for run in ("00000-eg3d", "00002-eg3d", "00001-eg3d"):
        (tmp_path / "out" / run / "snapshots").mkdir(parents=True)
        (tmp_path / "out" / run / "snapshots" / "000005.safetensors").write_bytes(file.read_bytes())
    assert find_snapshot(tmp_path / "out").parent.parent.name == "00002-eg3d"
