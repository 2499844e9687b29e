"""Critters as zips, and the writer that makes zips and folders."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import zipfile

import pytest
import torch

from dnnlib.errors import DataError
from tests.data.files import ROOT, app, quietly
from tests.runs import finish, launch
from training.data.critters import LABELS, Critters
from training.data.export import DEPTH_UNIT, write_critters
from training.data.opening import open_dataset
from training.data.writer import writing


@pytest.mark.parametrize("suffix", [".zip", ""])
def test_critters_survive_the_way_through_zips_and_folders(tmp_path, suffix):
    critters = Critters(resolution=16, size=5, mirror=True, cond=True, maps="labels", depth=True)
    maps = {kind: str(tmp_path / f"{kind}{suffix}") for kind in ("labels", "edges", "depth")}
    write_critters(critters, str(tmp_path / f"c{suffix}"), maps, "class", 0, quietly)
    read_back = {
        kind: open_dataset(str(tmp_path / f"c{suffix}"), labels=place, cond=True) for kind, place in maps.items()
    }
    stored = read_back["labels"]
    everything = torch.arange(len(critters))
    assert len(stored) == len(critters) == 10
    assert stored.num_classes == len(LABELS)
    assert torch.equal(stored.conditions(everything).label, critters.conditions(everything).label)
    assert torch.equal(stored.conditions(everything).camera.label(), critters.conditions(everything).camera.label())
    lines = Critters(resolution=16, size=5, mirror=True, maps="edges")
    for item in range(10):
        truth = critters.sample(item)
        assert torch.equal(stored.sample(item).image, truth.image)
        assert torch.equal(stored.sample(item).label_map, truth.label_map)
        assert torch.equal(read_back["edges"].sample(item).label_map, lines.sample(item).label_map)
        assert (read_back["depth"].sample(item).depth - truth.depth).abs().max() <= DEPTH_UNIT / 2 + 1e-6


def test_critters_with_camera_labels_are_what_eg3d_reads(tmp_path):
    critters = Critters(resolution=8, size=3)
    write_critters(critters, str(tmp_path / "c.zip"), {}, "camera", 0, quietly)
    labels = json.loads(zipfile.ZipFile(tmp_path / "c.zip").read("dataset.json"))["labels"]
    assert [name for name, _ in labels] == [f"00000/img0000000{i}.png" for i in range(3)]
    assert torch.equal(torch.tensor([row for _, row in labels]), critters.camera(range(3)).label())
    assert all(entry.compress_type == zipfile.ZIP_STORED for entry in zipfile.ZipFile(tmp_path / "c.zip").infolist())


def test_make_critters_is_the_same_with_workers_and_says_where_things_are(tmp_path):
    maps = {"labels": f"{tmp_path}/a_maps.zip"}
    write_critters(Critters(resolution=8, size=6), f"{tmp_path}/a.zip", maps, "class", 0, quietly)
    dest = [f"--dest={tmp_path}/b.zip", f"--labels_dest={tmp_path}/b_maps.zip"]
    done = app("make_critters", *dest, "--num=6", "--resolution=8", "--workers=1")
    assert done.returncode == 0, done.stderr
    assert "b_maps.zip" in done.stdout
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    assert (tmp_path / "a_maps.zip").read_bytes() == (tmp_path / "b_maps.zip").read_bytes()


def test_more_workers_than_a_machine_bears_are_refused(tmp_path):
    done = app("make_critters", f"--dest={tmp_path}/c.zip", "--workers=100000")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: workers=100000 must be a whole number from 0 to 256.\n"
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("workers", [0, 1])
def test_who_is_asked_to_end_leaves_no_draft(tmp_path, workers):
    process = launch("apps/make_critters.py", f"--dest={tmp_path}/c.zip", "--num=100000", f"--workers={workers}")
    while process.poll() is None and not os.listdir(tmp_path):
        time.sleep(0.02)
    assert os.listdir(tmp_path) == [f".c.zip.{process.pid}.partial"]
    process.terminate()
    assert "Traceback" not in finish(process, 128 + signal.SIGTERM)
    assert os.listdir(tmp_path) == []


def test_a_killed_worker_is_told(tmp_path):
    def kill(files, total, unit):
        yield next(files)
        multiprocessing.active_children()[0].kill()
        yield from files

    with pytest.raises(DataError, match="a worker was killed"):
        write_critters(Critters(resolution=8, size=1000), f"{tmp_path}/c.zip", {}, "class", 1, kill)
    assert os.listdir(tmp_path) == []


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/c.zip cannot be written: .*\.$"):
        write_critters(Critters(resolution=8, size=1), f"{tmp_path}/file/c.zip", {}, "class", 0, quietly)


@pytest.mark.parametrize(
    ("dest", "maps"),
    [("c.zip", "c.zip"), ("c", "c"), ("c", "x/../c"), ("c", "c/maps"), ("c/pictures.zip", "c"), ("", "c"), ("c", "")],
)
def test_pictures_and_maps_in_one_place_are_refused(tmp_path, monkeypatch, dest, maps):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").mkdir()
    with pytest.raises(DataError, match=r"give each a place of its own|names no place"):
        write_critters(Critters(resolution=8, size=1), dest, {"labels": maps}, "class", 0, quietly)
    assert os.listdir(tmp_path) == ["x"]


def test_a_huge_size_is_one_sentence(tmp_path):
    done = app("make_critters", f"--dest={tmp_path}/c.zip", "--resolution=1000000000", "--num=1")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: critters.resolution=1000000000 must be a whole number from 1 to 8192.\n"
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["make_critters", "dataset_tool", "dataset_labels"])
def test_help_comes_without_torch(name):
    code = f"""
import atexit, runpy, sys
atexit.register(lambda: print("torch" in sys.modules))
sys.argv = ["{name}", "--help"]
runpy.run_path("apps/{name}.py", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--source" in done.stdout or "--dest" in done.stdout
    assert done.stdout.endswith("False\n")


@pytest.mark.parametrize("name", ["x.zip", "x"])
def test_nothing_half_written_stays(tmp_path, name):
    with pytest.raises(KeyError), writing(tmp_path / name) as out:  # noqa: PT012
        out.add("a/b.png", b"1")
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_a_failed_writing_leaves_the_old_file_alone(tmp_path):
    (tmp_path / "x.zip").write_bytes(b"old")
    with pytest.raises(KeyError), writing(tmp_path / "x.zip") as out:  # noqa: PT012
        out.add("a", b"1")
        raise KeyError
    assert (tmp_path / "x.zip").read_bytes() == b"old"


def test_a_full_folder_is_not_overwritten(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="holds something"), writing(tmp_path):
        pass
    assert os.listdir(tmp_path) == ["mine.txt"]
