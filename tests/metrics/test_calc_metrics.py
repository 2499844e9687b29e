"""The app, with a toy ball for a network."""

import json
import sys
from pathlib import Path

import pytest
from torch import Tensor, nn

from apps import calc_metrics
from dnnlib.errors import CheckpointError, ConfigError, DataError, TrainingStopped
from metrics.fid import Frechet
from tests.data.files import numbered, packed
from tests.toy_sphere import BallGenerator
from training.build import build
from training.cli.main import prepared
from training.contracts import CameraRig
from training.data.critters import Critters
from training.data.dataset import Sample
from training.snapshot import OpenedNetwork


def mean_colour(image: Tensor) -> Tensor:
    return image.mean(dim=(2, 3))


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    file = tmp_path / "net 1.safetensors"
    file.write_bytes(b"weights")
    opened = OpenedNetwork(BallGenerator(), CameraRig(radius=2.7, focal=3.0), {"data": "critters"}, nimg=5)
    monkeypatch.setattr("training.snapshot.open_network", lambda path, device: opened)
    monkeypatch.setattr("training.build.build_dataset", lambda config: Critters(resolution=16, size=8))
    return file


def call(monkeypatch: pytest.MonkeyPatch, *line: str) -> None:
    monkeypatch.setattr(sys, "argv", ["calc_metrics.py", "--device=cpu", *line])
    calc_metrics.main()


def test_a_line_of_json_says_what_was_measured_on_what(monkeypatch, network: Path, tmp_path: Path, capsys):
    out = tmp_path / "results.jsonl"
    call(monkeypatch, f"--network={network}", "--metrics=reprojection,class_accuracy", "--batch=32", f"--out={out}")
    said = capsys.readouterr()
    assert "class_accuracy was left out" in said.err  # the toy has no classes
    (line,) = out.read_text().splitlines()
    assert line in said.out
    row = json.loads(line)
    assert row["metric"] == "reprojection"
    assert 0 < row["results"]["reprojection"] < row["results"]["reprojection_unmoved"]
    assert row["protocol"] == {"num_seeds": 64, "yaws": [-0.1745, 0.1745], "slack": 0.01}
    assert row["network_sha256"] == "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c"
    assert len(row["data_sha256_of_first_100"]) == 64
    assert (row["data_items"], row["cameras_of_fakes"], row["psi"], row["seed"]) == (8, "data", 1.0, 0)


def test_grey_data_are_measured(monkeypatch, network: Path, capsys):
    class Grey(Critters):
        num_channels = 1

        def sample(self, item: int) -> Sample:
            return Sample(image=super().sample(item).image[:1])

    monkeypatch.setattr("training.build.build_dataset", lambda config: Grey(resolution=16, size=8))
    monkeypatch.setattr("training.measuring.build", lambda node, where: Frechet("colours", mean_colour, 8))
    call(monkeypatch, f"--network={network}", "--metrics=frechet_probe2k")
    row = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert row["results"]["colours"] > 0


def test_a_metric_does_not_hide_that_training_was_stopped(monkeypatch, network: Path):
    def stop(node, where):
        raise TrainingStopped("a worker is dead")

    monkeypatch.setattr("training.measuring.build", stop)
    with pytest.raises(TrainingStopped, match="a worker is dead"):
        call(monkeypatch, f"--network={network}", "--metrics=reprojection")


def test_what_makes_no_pictures_is_not_measured(monkeypatch, network: Path):
    opened = OpenedNetwork(nn.Linear(1, 1), CameraRig(radius=2.7, focal=3.0), {"data": "critters"}, nimg=5)
    monkeypatch.setattr("training.snapshot.open_network", lambda path, device: opened)
    with pytest.raises(CheckpointError, match=r"net 1\.safetensors makes no pictures: its network G is a Linear"):
        call(monkeypatch, f"--network={network}", "--metrics=reprojection")


@pytest.mark.parametrize("kind", ["critters", "critters:sphere", "folder"])
def test_data_of_another_kind_than_those_of_training_are_measured_against(monkeypatch, tmp_path: Path, capsys, kind):
    images, maps = packed(tmp_path / "z.zip", numbered(3, side=16)), packed(tmp_path / "m.zip", numbered(3, mode="L"))
    own, others, items = (images, "critters", 10_000) if kind == "folder" else (kind, images, 3)
    words = ["model=stylegan2", "resolution=16", f"dataset={kind.partition(':')[0]}", f"data={own}"]
    config = {**prepared(words)[0], "labels": maps if kind == "folder" else "labels"}
    opened = OpenedNetwork(BallGenerator(), CameraRig(radius=2.7, focal=3.0), config, nimg=5)
    monkeypatch.setattr("training.snapshot.open_network", lambda path, device: opened)
    call(monkeypatch, f"--network={images}", "--metrics=reprojection", f"--data={others}", "--batch=64")
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["data_items"] == items
    with pytest.raises(DataError, match=r"nowhere\.zip does not exist"):
        call(monkeypatch, f"--network={images}", "--metrics=reprojection", f"--data={tmp_path}/nowhere.zip")


def test_data_of_the_same_kind_are_opened_with_the_settings_of_training():
    config = {"data": "critters", "labels": "edges", "mirror": True, "dataset": {"resolution": 16, "seed": 3}}
    assert calc_metrics.reals_of(config, None) == config
    assert calc_metrics.reals_of(config, "critters:sphere") == {**config, "data": "critters:sphere", "labels": None}


def test_where_results_cannot_be_kept_is_told_before_anything_else(monkeypatch, tmp_path: Path):
    line = ["--network=nowhere", "--metrics=reprojection"]
    for out, why in ((tmp_path / "no" / "x.jsonl", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigError, match=rf"^cannot write {out}: {why}; choose another file or folder$"):
            call(monkeypatch, *line, f"--out={out}")
    monkeypatch.setattr("os.fsync", lambda _: exec("raise OSError(28, 'No space left on device')"))
    with pytest.raises(ConfigError, match="No space left on device; free some space"):
        call(monkeypatch, *line, f"--out={tmp_path}/x.jsonl")


def test_a_look_whether_results_can_be_kept_changes_nothing(monkeypatch, tmp_path: Path):
    (tmp_path / "old.jsonl").write_text("{}\n")
    for name in ("new.jsonl", "old.jsonl"):
        with pytest.raises(CheckpointError):
            call(monkeypatch, "--network=nowhere", "--metrics=reprojection", f"--out={tmp_path / name}")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("old.jsonl", "{}\n")]


def test_unknown_metrics_are_refused_with_the_nearest(monkeypatch):
    with pytest.raises(ConfigError, match="no metric turnin; did you mean turning"):
        call(monkeypatch, "--network=x", "--metrics=turnin")


def test_a_missing_network_is_named(monkeypatch):
    with pytest.raises(CheckpointError, match=r"no file or folder .*nowhere"):
        call(monkeypatch, "--network=nowhere", "--metrics=reprojection")


@pytest.mark.parametrize("name", calc_metrics.NAMES)
def test_every_metric_can_be_built(name: str):
    import yaml

    node = yaml.safe_load((calc_metrics.METRICS / f"{name}.yaml").read_text())
    assert callable(build(node, where=f"metric.{name}"))
