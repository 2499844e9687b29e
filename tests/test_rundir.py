"""Run folders appear whole or not at all, and their numbers are never given twice."""

import io
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dnnlib.errors import ConfigError
from dnnlib.log import Log, Tee, tee
from dnnlib.rundir import create_run, find_run, owned, run_name

FILES = {"config.yaml": "seed: 0\n", "command.txt": "python run_train.py\n"}


def test_a_name_tells_model_data_gpus_batch_and_gamma():
    assert run_name("eg3d_afhq", "/data/cats v2.zip", 8, 32, 5.0) == "eg3d_afhq-cats_v2-gpus8-batch32-gamma5"
    assert run_name("eg3d", "critters", 1, 16, 0.0128, "a/b (c)") == "eg3d-critters-gpus1-batch16-gamma0.0128-a_b__c_"
    assert run_name("probe", "critters", 1, 16, None) == "probe-critters-gpus1-batch16"


def test_numbers_go_up_and_files_are_inside(tmp_path: Path):
    runs = [create_run(tmp_path / "new" / "out", "a-b", FILES) for _ in range(3)]
    assert [run.name for run in runs] == ["00000-a-b", "00001-a-b", "00002-a-b"]
    assert {file.name: file.read_text() for file in runs[1].iterdir()} == FILES
    assert sorted(path.name for path in (tmp_path / "new" / "out").iterdir()) == [run.name for run in runs]


def test_a_number_follows_the_highest_whatever_else_is_there(tmp_path: Path):
    for name in ("00041-x", "00007-y", "notes", "123-short", "00050"):
        (tmp_path / name).mkdir()
    assert create_run(tmp_path, "z", {}).name == "00042-z"


def test_many_at_once_get_different_numbers(tmp_path: Path):
    code = (
        "import sys; from dnnlib.rundir import create_run; [create_run(sys.argv[1], sys.argv[2], {}) for _ in range(8)]"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(subprocess.run, [*command, f"job{i}"], check=True) for i in range(4)]
    assert all(job.result().returncode == 0 for job in jobs)
    numbers = sorted(int(path.name[:5]) for path in tmp_path.iterdir())
    assert numbers == list(range(32))


def test_an_outdir_that_cannot_be_written_is_named_and_nothing_stays(tmp_path: Path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(ConfigError, match=r"outdir=.*file/out cannot be written: Not a directory"):
        create_run(blocked / "out", "a", FILES)
    with pytest.raises(ConfigError, match=r"File name too long"):
        create_run(tmp_path / "out", "x" * 300, FILES)
    assert list((tmp_path / "out").iterdir()) == []


def test_latest_is_the_highest_number_with_a_configuration(tmp_path: Path):
    first, second = create_run(tmp_path, "a", FILES), create_run(tmp_path, "b", FILES)
    (tmp_path / "00009-empty").mkdir()
    assert find_run(tmp_path) == second
    assert find_run(first) == first
    assert find_run("elsewhere", str(first)) == first


def test_a_run_that_is_not_there_is_told(tmp_path: Path):
    with pytest.raises(ConfigError, match="finds no run in outdir="):
        find_run(tmp_path)
    with pytest.raises(ConfigError, match=r"has no config\.yaml"):
        find_run(tmp_path, str(tmp_path))
    with pytest.raises(ConfigError, match="there is no such folder"):
        find_run(tmp_path, str(tmp_path / "nowhere"))


def test_a_log_holds_whole_lines_and_no_bars(tmp_path: Path):
    path = tmp_path / "log.txt"
    with tee(path) as log:
        print("header")
        print("\r 10%|#    |", end="", file=sys.stderr)
        print("\r 20%|##   |", end="", file=sys.stderr)
        print("\r            \r", end="", file=sys.stderr)
        print("tick 1\n\ntick 2")
        print("\r100%|#####| done", file=sys.stderr)
        print("only here", file=log)
        print("no end", end="")
    with tee(path):
        print("appended")
    lines = path.read_text().splitlines()
    assert lines == ["header", "tick 1", "", "tick 2", "100%|#####| done", "only here", "no end", "appended"]


def test_what_is_teed_reaches_the_terminal_unchanged(tmp_path: Path, capsys: pytest.CaptureFixture):
    with tee(tmp_path / "log.txt"):
        print("\ra\rb", end="")
        assert not sys.stdout.isatty()
    assert capsys.readouterr().out == "\ra\rb"


def test_a_full_disk_ends_the_log_and_nothing_else(capsys: pytest.CaptureFixture):
    with tee("/dev/full") as log:
        for i in range(3):
            print(f"line {i}")
        print("a traceback", file=log)
    said = capsys.readouterr()
    assert said.out == "line 0\nline 1\nline 2\n"
    assert said.err == "/dev/full cannot be written any more: No space left on device\n"


def test_lines_reach_a_pipe_when_they_are_said(tmp_path: Path):
    stream = io.TextIOWrapper(io.BufferedWriter(raw := io.FileIO(tmp_path / "pipe", "w"), 10_000))
    print("tick 1", file=Tee(stream, Log(tmp_path / "log.txt", stream)))
    assert (tmp_path / "pipe").read_text() == "tick 1\n"
    assert not raw.closed


OWNER = """
import os, pathlib, sys, time
from dnnlib.rundir import owned
with owned(pathlib.Path(sys.argv[1])):
    worker = os.fork()  # a data worker inherits what is open
    if not worker:
        time.sleep(60)
    print(worker)
    time.sleep(60)
"""


def test_a_lock_keeps_others_out_and_dies_with_its_owner_alone(tmp_path: Path):
    command = [sys.executable, "-u", "-c", OWNER, str(tmp_path)]
    owner = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    worker = int(owner.stdout.readline())
    with pytest.raises(ConfigError, match=rf"is being trained by process {owner.pid} on "), owned(tmp_path):
        pass
    owner.kill()
    owner.wait()
    try:
        with owned(tmp_path):
            os.kill(worker, 0)  # it still lives
    finally:
        os.kill(worker, signal.SIGKILL)
        owner.stdout.close()


def test_a_run_folder_that_cannot_be_locked_is_told(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"run folder .* cannot be written"), owned(tmp_path / "nowhere"):
        pass
