"""Published pickles are opened like snapshots: by generate.py, resume= and the apps, and turned into snapshots."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from apps import import_checkpoint
from dnnlib.errors import CheckpointError, ConfigError
from tests.importers.published_files import eg3d_file, fixture, known_modules, network, stylegan2_file
from training.importers import eg3d, import_network, stylegan2_core
from training.importers.eg3d_parts import PLANES
from training.importers.nvlabs_pickle import PickledNetwork
from training.importers.published import read_published
from training.importers.rigs import named_rig
from training.snapshot import open_generator, read_snapshot
from training.transfer import differences, start_from_weights

ROOT = Path(__file__).parent.parent.parent


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    theirs = other.state_dict()
    mine = one.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.mark.parametrize("protocol", [2, 4])
def test_eg3d_is_rebuilt_as_its_fixtures_are(protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    published = read_published(eg3d_file(tmp_path / "x.pkl", monkeypatch, protocol))
    for name, kind in (("G", "eg3d_generator"), ("D", "eg3d_discriminator")):
        metadata, state, _ = fixture(kind)
        assert same(published.nets[name], import_network(kind, metadata, state))
    G = published.nets["G_ema"]
    assert not same(G, published.nets["G"])
    assert (G.raw_resolution, G.field.axes, G.rays.bins) == (16, "legacy", "nodes")  # pyright: ignore
    assert published.config["nets"]["G"]["raw_resolution"] == 16  # the average's: it is what is rendered
    assert published.config["dataset"] == {"resolution": 128, "num_channels": 3, "label_dim": 0, "num_classes": 0}
    assert published.classes == {"G": "TriPlaneGenerator", "D": "DualDiscriminator", "G_ema": "TriPlaneGenerator"}
    assert len(published.quirks) == 5


def test_what_a_generator_holds_wins_over_what_it_was_made_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    _, _, told = fixture("eg3d_generator")
    changed = told["rendering_kwargs"] | {"depth_resolution": 7, "box_warp": 2, "avg_camera_radius": 1.7}
    changed["avg_camera_pivot"] = [0, 0, 0]
    path = eg3d_file(tmp_path / "x.pkl", monkeypatch, rendering_kwargs=changed)
    opened = open_generator(path)
    assert (opened.G.rays.samples[0], opened.G.field.box_side) == (7, 2)
    assert (opened.rig.radius, opened.rig.focal) == (1.7, named_rig("cars")["focal"])


@pytest.mark.parametrize(("radius", "pivot", "name"), [(2.7, [0, 0, 0.2], "ffhq"), (2.7, [0, 0, -0.06], "cat")])
def test_rigs_are_known_by_distance_and_pivot(radius, pivot, name, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    _, _, told = fixture("eg3d_generator")
    cameras = {"avg_camera_radius": radius, "avg_camera_pivot": pivot}
    path = eg3d_file(tmp_path / "x.pkl", monkeypatch, rendering_kwargs=told["rendering_kwargs"] | cameras)
    assert read_published(path).config["rig"] == named_rig(name)


def test_plane_axes_are_read_from_the_renderer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    _, state, told = fixture("eg3d_generator")
    for planes, axes in PLANES.items():
        shown = {"renderer.plane_axes": torch.tensor(planes, dtype=torch.float32)}
        found = eg3d.describe(PickledNetwork("TriPlaneGenerator", (), told, shown, state, ""))
        assert found is not None
        assert found.node["field"]["axes"] == {"eg3d_legacy": "legacy", "fixed": "fixed"}[axes]
    shown = {"renderer.plane_axes": torch.eye(3).expand(3, 3, 3)}
    with pytest.raises(CheckpointError, match="plane_axes"):
        eg3d.describe(PickledNetwork("TriPlaneGenerator", (), told, shown, state, ""))


@pytest.mark.parametrize(
    ("nested", "shown", "expected"),
    [(True, {}, (0.995, None)), (False, {}, (0.998, 256)),
     (True, {"synthesis.b4.conv1.conv_clamp": 3, "mapping.w_avg_beta": 0.5}, (0.5, 3)),
     (False, {"synthesis.b4.conv1.conv_clamp": None}, (0.998, None))],
)  # fmt: skip
def test_repositories_differ_in_their_defaults(nested: bool, shown: dict, expected: tuple):
    _, state, _ = fixture("stylegan2_core_generator")
    found = stylegan2_core.describe(
        PickledNetwork("Generator", (), {"synthesis_kwargs": {}} if nested else {}, shown, state, "")
    )
    assert found is not None
    assert (found.node["mapping"]["w_avg_beta"], found.node["synthesis"]["conv_clamp"]) == expected


def test_a_network_of_nobody_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    known_modules(monkeypatch)
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps({"G_ema": network("VoxelGenerator", {"weight": torch.ones(2)}, {})}))
    with pytest.raises(CheckpointError, match=r"x\.pkl: G_ema is a VoxelGenerator"):
        open_generator(path)
    _, state, told = fixture("stylegan2_core_generator")
    broken = {name: tensor for name, tensor in state.items() if name != "mapping.fc0.bias"}
    path.write_bytes(pickle.dumps({"G": network("Generator", broken, told)}))
    with pytest.raises(CheckpointError, match=r"x\.pkl: .*nothing fills mapping_network\.fc0\.bias"):
        open_generator(path)
    path.write_bytes(pickle.dumps({"G": network("Generator", state, {"mapping_kwargs": 3})}))
    with pytest.raises(CheckpointError, match=r"x\.pkl: G"):
        open_generator(path)


def test_every_program_takes_the_file_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A picture, then a snapshot that gives the same one; nothing of the file's source runs."""
    path = stylegan2_file(tmp_path / "x.pkl", monkeypatch)
    opened = open_generator(path)
    _, _, told = fixture("stylegan2_core_generator")
    label = ["--class=1"] if told["c_dim"] else []
    snapshot = tmp_path / "x.safetensors"
    run = [sys.executable, str(ROOT / "apps" / "import_checkpoint.py"), f"--source={path}", f"--dest={snapshot}"]
    done = subprocess.run([*run, "--networks=G_ema"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "The licence of these weights is that of their publisher" in done.stdout
    states, config, nimg = read_snapshot(snapshot)
    assert (list(states), list(config["nets"]), nimg) == (["G_ema"], ["G"], 0)
    assert same(open_generator(snapshot).G, opened.G)
    for network_file in (path, snapshot):
        out = tmp_path / network_file.suffix[1:]
        line = ["--seeds=3", f"--network={network_file}", f"--outdir={out}", "--device=cpu", *label]
        subprocess.run(
            [sys.executable, str(ROOT / "generate.py"), *line], check=True, capture_output=True, cwd=tmp_path
        )
    pictures = [np.asarray(Image.open(tmp_path / suffix / "seed0003.png")) for suffix in ("pkl", "safetensors")]
    assert (pictures[0] == pictures[1]).all()
    assert sorted(os.listdir(tmp_path)) == ["pkl", "safetensors", "x.pkl", "x.safetensors"]
    before = snapshot.read_bytes()
    done = subprocess.run(run, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "--force" in done.stderr
    assert snapshot.read_bytes() == before


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--dest=x.bin"], "must end in .safetensors"),
        (["--dest=n.safetensors", "--networks=H"], "there is no network H"),
        (["--dest=n.safetensors", "--networks="], "--networks= is empty"),
        (["--dest=n.safetensors", "--networks=D"], "holds no network D: it has G"),
        (["--dest=n.safetensors", "--source=nowhere"], "there is no file or folder"),
        (["--dest=n.safetensors", "--source=good.safetensors"], "is no pickle"),
    ],
)
def test_mistakes_leave_nothing(words: list[str], complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    known_modules(monkeypatch)
    _, state, told = fixture("stylegan2_core_generator")
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"G": network("Generator", state, told)}))
    (tmp_path / "good.safetensors").write_bytes(b"\x00" * 8 + b"{}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["import_checkpoint.py", "--source=x.pkl", *words])
    with pytest.raises((ConfigError, CheckpointError), match=complaint):
        import_checkpoint.main()
    assert sorted(os.listdir(tmp_path)) == ["good.safetensors", "x.pkl"]


def test_a_run_starts_from_a_published_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    path = eg3d_file(tmp_path / "x.pkl", monkeypatch)
    published = read_published(path)
    nets = {name: read_published(path).nets["G_ema" if name == "G" else name] for name in ("G", "D")}
    node = json.loads(json.dumps(published.config["nets"]["G"]))
    node["field"]["axes"] = "fixed"
    start_from_weights(nets, str(path), run={"nets": {"G": node}, "model": {"as_published": False}})
    assert same(nets["G"], published.nets["G"])
    assert same(nets["D"], published.nets["D"])
    said = capsys.readouterr().out
    assert "nets.G.field.axes=legacy (here fixed)" in said
    assert "thousand images" not in said
    del nets["G"].upsampler.block0.conv0.noise_const  # pyright: ignore
    with pytest.raises(CheckpointError, match=r"noise_const is unknown.*model\.as_published=true"):
        start_from_weights(nets, str(path), run={"model": {"as_published": False}})


def test_differences_count_defaults():
    ours = {"_target_": "training.rendering.hierarchical.RaySettings", "near": 1.0}
    theirs = ours | {"bins": "nodes", "near": 2.0, "importance": "full"}
    assert differences(theirs, ours, "rays") == ["rays.bins=nodes (here cells)"]
    assert differences(None, ours, "rays") == []
