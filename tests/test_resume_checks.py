"""What a run that goes on notices: other data, an altered state, another machine, torn lines, another owner."""

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from dnnlib.errors import CheckpointError
from tests.tiny import TINY
from tests.trainer import Trainer, write_images
from training import loop
from training.build import build_dataset
from training.cli import main
from training.phases import PhaseRunner
from training.setup import build_run
from training.snapshot import find_snapshot
from training.state import RunState, describe, read_state

SHORT = [
    *TINY, "batch_gpu=4", "kimg=0.032", "tick=0.016", "snap=1", "imgsnap=100", "samples.latents=1", "subset=64",
    "metrics=turning",
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four iterations, with a metric at every snapshot."""
    outdir = tmp_path_factory.mktemp("short")
    assert main([*SHORT, f"outdir={outdir}"], loop.train) == 0
    return next(outdir.iterdir())


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """A copy of it to go on with."""
    return Path(shutil.copytree(trained, tmp_path / "00000-short"))


def resume(folder: Path, *words: str) -> int:
    return main([f"resume_run={folder}", *words], loop.train)


def refused(capsys: pytest.CaptureFixture, folder: Path, *words: str, code: int = 2) -> str:
    """The one sentence of a refusal, which leaves the state as it is."""
    before = (folder / "state.pt").read_bytes()
    capsys.readouterr()
    assert resume(folder, *words) == code
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert len(said.splitlines()) == 1
    assert (folder / "state.pt").read_bytes() == before
    return said


# --- the data ---


@pytest.fixture
def on_pictures(tmp_path: Path) -> tuple[Path, Path]:
    """A run on a folder of pictures: run folder, pictures."""
    data = write_images(tmp_path / "pictures")
    words = ["model=stylegan2", "spec.channel_max=8", "batch=4", "kimg=0.004", "samples.latents=1", "workers=0"]
    assert main([*words, f"data={data}", f"outdir={tmp_path / 'out'}"], loop.train) == 0
    return next((tmp_path / "out").iterdir()), data


def test_more_items_are_noticed(on_pictures: tuple[Path, Path], capsys: pytest.CaptureFixture):
    folder, data = on_pictures
    shutil.copy(data / "img0.png", data / "img4.png")
    assert "items 4 -> 5" in refused(capsys, folder, "kimg=0.008")


def test_another_picture_is_noticed_and_last_bits_are_not(
    on_pictures: tuple[Path, Path], capsys: pytest.CaptureFixture
):
    folder, data = on_pictures
    pixels = np.array(Image.open(data / "img0.png"))
    Image.fromarray(pixels ^ 1).save(data / "img0.png")  # as another decoder might see it
    assert resume(folder, "kimg=0.008") == 0
    Image.fromarray(pixels[::-1] // 2).save(data / "img0.png")
    assert "the pictures, cameras or labels of some items" in refused(capsys, folder, "kimg=0.012")


def test_a_run_goes_on_from_another_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_images(tmp_path / "pictures")
    monkeypatch.chdir(tmp_path)
    trainer = Trainer()
    assert main(["model=stylegan2", "data=pictures", "outdir=out"], trainer) == 0
    folder = tmp_path / trainer.calls[0][2]
    assert yaml.safe_load((folder / "config.yaml").read_text())["data"] == str(tmp_path / "pictures")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main([f"resume_run={folder}"], trainer) == 0
    assert main([f"resume_run={folder}", "data=../pictures"], trainer) == 2  # another spelling is another text
    monkeypatch.chdir(tmp_path)
    assert main([f"resume_run={folder}", "data=pictures"], trainer) == 0


def test_names_of_data_stay_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "critters").mkdir()
    (tmp_path / "labels").mkdir()
    monkeypatch.chdir(tmp_path)
    trainer = Trainer()
    assert main(["model=stylegan2", "data=critters:sphere", "labels=labels", "outdir=out"], trainer) == 0
    assert (trainer.calls[0][0]["data"], trainer.calls[0][0]["labels"]) == ("critters:sphere", "labels")


# --- the state ---


def altered(folder: Path, change) -> None:
    state = torch.load(folder / "state.pt", weights_only=True)
    change(state)
    torch.save(state, folder / "state.pt")


ALTERATIONS = {
    "it lacks bad_steps": lambda s: s.pop("bad_steps"),
    "nothing here is called more": lambda s: s.update(more=1),
    "nothing here is called save": lambda s: s["counters"].update(save=1),
    "it lacks tick": lambda s: s["counters"].pop("tick"),
    "counters.nimg is not of type int": lambda s: s["counters"].update(nimg="x"),
    "nets belongs to another configuration or was altered: it lacks D": lambda s: s["nets"].pop("D"),
    "averages belongs to another configuration": lambda s: s["averages"].update(old=s["nets"]["G"]),
    "nets is a list": lambda s: s.update(nets=[]),
    "optimizer G belongs to another": lambda s: s["optimizers"]["G"].pop("param_groups"),
    "collector.x is not of type Tensor": lambda s: s["collector"].update(x=1),
    "it says parallax-state-1": lambda s: s.update(format="parallax-state-1"),
    "description of its data": lambda s: s["data"].pop("items"),
}


@pytest.fixture(scope="module")
def beginning(trained: Path) -> RunState:
    """The run before its first batch."""
    config = yaml.safe_load((trained / "config.yaml").read_text())
    run, _ = build_run(config, torch.device("cpu"), None)
    run.data = describe(build_dataset(config))
    return run


@pytest.mark.parametrize("told", ALTERATIONS)
def test_an_altered_state_is_refused(told: str, folder: Path, beginning: RunState):
    altered(folder, ALTERATIONS[told])
    with pytest.raises(CheckpointError, match=re.escape(told)):
        beginning.load(folder)
    assert beginning.nimg == 0


def test_a_refused_state_is_one_sentence(folder: Path, capsys: pytest.CaptureFixture):
    altered(folder, ALTERATIONS["it lacks bad_steps"])
    assert "it lacks bad_steps" in refused(capsys, folder, "kimg=0.04")


def test_a_file_that_is_no_dictionary_is_refused(tmp_path: Path):
    torch.save([1], tmp_path / "state.pt")
    with pytest.raises(CheckpointError, match="it does not say so"):
        read_state(tmp_path / "state.pt")


def test_another_machine_is_told(folder: Path, capsys: pytest.CaptureFixture):
    altered(folder, lambda s: s["machine"].update(threads=7, device="cuda NVIDIA"))
    assert resume(folder, "kimg=0.04") == 0
    (note,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Note: ")]
    assert "threads 7 -> 1" in note
    assert "device cuda NVIDIA -> cpu" in note
    assert "not bit by bit" in note


def test_another_batch_gpu_goes_on_with_the_same_update(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    losses = {}
    for size in (4, 8):
        folder = Path(shutil.copytree(trained, tmp_path / f"0000{size}-short"))
        capsys.readouterr()
        assert resume(folder, f"batch_gpu={size}", "kimg=0.048") == 0
        assert ("batch_gpu 4 -> 8" in capsys.readouterr().out) == (size == 8)
        last = json.loads((folder / "stats.jsonl").read_text().splitlines()[-1])
        losses[size] = {name: found["mean"] for name, found in last["stats"].items()}
    assert losses[8] == pytest.approx(losses[4], rel=1e-3)


# --- the files ---


def test_torn_and_later_lines_are_cut(folder: Path):
    before = {name: (folder / name).read_bytes() for name in ("stats.jsonl", "metrics.jsonl")}
    for name, content in before.items():
        assert len(content.splitlines()) > 1
        (folder / name).write_bytes(content + content[:-7])  # a whole line and a torn one
    assert resume(folder) == 0
    assert {name: (folder / name).read_bytes() for name in before} == before


def test_what_a_killed_writer_left_is_swept_and_nothing_else(folder: Path):
    for name in (".draft-state.abc.pt", "snapshots/.draft-000001.abc.safetensors", ".keep", "snapshots/.keep"):
        (folder / name).write_text("")
    assert resume(folder) == 0
    assert sorted(path.name for path in folder.rglob(".*")) == [".keep", ".keep", ".lock"]


def test_a_run_that_is_being_trained_is_left_alone(folder: Path, capsys: pytest.CaptureFixture):
    code = (
        "import sys, pathlib; from dnnlib.rundir import owned\nwith owned(pathlib.Path(sys.argv[1])): print(), input()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    owner = subprocess.Popen([sys.executable, "-u", "-c", code, str(folder)], **pipes)
    assert owner.stdout is not None
    owner.stdout.readline()
    before = {path: path.read_bytes() for path in folder.glob("*.*")}
    assert f"is being trained by process {owner.pid} on" in refused(capsys, folder, "kimg=0.04")
    assert {path: path.read_bytes() for path in folder.glob("*.*")} == before
    owner.send_signal(signal.SIGKILL)
    owner.communicate()
    assert resume(folder) == 0


@pytest.mark.parametrize("name", ["stats.jsonl", "metrics.jsonl"])
def test_a_full_disk_is_one_sentence_and_spares_the_state(name: str, folder: Path, capsys: pytest.CaptureFixture):
    (folder / name).unlink()
    (folder / name).symlink_to("/dev/full")
    assert f"{name}: No space left on device; the training state is unchanged" in refused(
        capsys, folder, "kimg=0.064", code=3
    )


def test_the_machine_s_memory_running_out_names_the_knobs(
    folder: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(PhaseRunner, "run", lambda *_: torch.empty(2**60, dtype=torch.uint8))
    said = refused(capsys, folder, "kimg=0.064", code=3)
    assert "out of memory: can't allocate memory: you tried to allocate" in said
    for knob in ("batch_gpu", "samples", "spec.channel_max"):
        assert knob in said


# --- names of files ---


def label(nimg: int, tick: float, kimg: float) -> str:
    keeper = SimpleNamespace(run=SimpleNamespace(nimg=nimg), config={"tick": tick, "kimg": kimg})
    return loop.Keeper.label(keeper)  # pyright: ignore


def test_files_are_called_by_thousands_of_images_and_never_twice():
    assert [label(nimg, tick=4, kimg=25_000) for nimg in (4_000, 25_000_016)] == ["000004", "025000"]
    assert [label(nimg, tick=1.5, kimg=10) for nimg in (1_504, 3_008)] == ["000001", "000003"]
    assert [label(nimg, tick=0.25, kimg=1) for nimg in (256, 512, 1_008)] == ["000000.256", "000000.512", "000001.008"]
    assert [label(nimg, tick=1, kimg=2.5) for nimg in (2_016, 2_512)] == ["000002.016", "000002.512"]


def test_a_short_tick_overwrites_no_snapshot(trained: Path):
    names = sorted(path.name for path in (trained / "snapshots").iterdir())
    assert names == ["000000.024.safetensors", "000000.032.safetensors"]
    assert sorted(path.name for path in trained.glob("fakes*[0-9].png")) == [
        "fakes000000.000.png",
        "fakes000000.032.png",
    ]


def test_the_newest_snapshot_has_seen_most_images(tmp_path: Path):
    for name in ("000002", "000002.512", "000001.900", "000010.016", "000009", ".draft-000099.x"):
        (tmp_path / "snapshots").mkdir(exist_ok=True)
        (tmp_path / "snapshots" / f"{name}.safetensors").write_text("")
    assert find_snapshot(tmp_path).stem == "000010.016"
    (tmp_path / "snapshots" / "000010.016.safetensors").unlink()
    (tmp_path / "snapshots" / "000009.safetensors").unlink()
    assert find_snapshot(tmp_path).stem == "000002.512"
    for run in ("00009-x", "100000-x", "99999-x"):
        (tmp_path / "out" / run / "snapshots").mkdir(parents=True)
        (tmp_path / "out" / run / "snapshots" / "000001.safetensors").write_text("")
    assert find_snapshot(tmp_path / "out").parent.parent.name == "100000-x"
