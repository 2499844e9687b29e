"""Snapshots hold what is needed to rebuild a network, and nothing else is believed."""

from pathlib import Path

import pytest
import torch

from dnnlib.errors import CheckpointError, ConfigError
from tests.tiny import TINY
from training.build import build_nets
from training.cli.main import prepared
from training.contracts import Condition
from training.snapshot import find_snapshot, open_network, save_snapshot
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
    with pytest.raises(ConfigError, match="not allowed"):
        open_network(tmp_path / "evil.safetensors")
    assert not (tmp_path / "ran").exists()


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


def test_a_folder_of_runs_means_its_newest_run(file: Path, tmp_path: Path):
    for run in ("00000-eg3d", "00002-eg3d", "00001-eg3d"):
        (tmp_path / "out" / run / "snapshots").mkdir(parents=True)
        (tmp_path / "out" / run / "snapshots" / "000005.safetensors").write_bytes(file.read_bytes())
    assert find_snapshot(tmp_path / "out").parent.parent.name == "00002-eg3d"
