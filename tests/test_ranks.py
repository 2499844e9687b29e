"""Training on several ranks: processes of one machine, over Gloo."""

import os
import random
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.data.files import picture, unpacked
from tests.runs import RUN, assert_same_run, begun, finish, iterations, launch, left_alone, logged, start, wait_for

TWO = [*RUN, "gpus=2", "device=cpu"]


def others(process: subprocess.Popen) -> list[int]:
    """The processes that this one has started."""
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True)
    return [int(word) for word in listed.stdout.split()]


def alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def assert_they_end(pids: list[int]) -> None:
    deadline = time.monotonic() + 20
    while any(map(alive, pids)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on two ranks that was left alone."""
    return left_alone(tmp_path_factory.mktemp("whole"), *TWO)


def test_statistics_are_those_of_all_images(whole: Path):
    lines = logged(whole)
    assert [line["nimg"] for line in lines] == [8, 40, 72, 104, 136, 160]
    assert sum(line["stats"]["score/fake"]["num"] for line in lines) == 2 * 160  # in Gmain and in Dmain


def test_killed_at_random_moments_it_ends_the_same(whole: Path, tmp_path: Path):
    moments = random.Random(11)
    process, folder = begun(tmp_path, *TWO)
    for target in (4, 12):
        wait_for(folder, process, target)
        time.sleep(moments.uniform(0, 0.08))
        left = others(process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        process = start(f"resume_run={folder}")
        assert left
        assert_they_end(left)
    finish(process)
    assert_same_run(folder, whole)


def test_a_dead_rank_ends_the_run_with_a_sentence(tmp_path: Path):
    process, folder = begun(tmp_path, *TWO, "kimg=100")
    (other,) = others(process)
    os.kill(other, signal.SIGKILL)
    killed = time.monotonic()
    said = finish(process, 3)
    assert time.monotonic() - killed < 60
    assert "error: rank 1 was killed by SIGKILL" in said
    assert "Traceback" not in said
    assert iterations(folder) >= 3


def test_a_signal_saves_and_the_run_goes_on_with_another_number_of_ranks(tmp_path: Path):
    process, folder = begun(tmp_path, *TWO)
    process.send_signal(signal.SIGTERM)
    said = finish(process, 128 + signal.SIGTERM)
    assert "Stopped by SIGTERM" in said
    assert 3 <= iterations(folder) < 20
    said = finish(start(f"resume_run={folder}", "gpus=1"))
    assert "ranks 2 -> 1" in said
    assert [line["nimg"] for line in logged(folder)] == [8, 40, 72, 104, 136, 160]


def test_torchrun_starts_ranks_too(whole: Path, tmp_path: Path):
    words = [word for word in TWO if not word.startswith("gpus")]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "run_train.py"]
    said = finish(launch(*torchrun, *words, f"outdir={tmp_path}"))
    assert said.count("Trained for 0.16 thousand images") == 1
    (folder,) = tmp_path.iterdir()
    assert logged(folder) == logged(whole)


def test_bad_numbers_on_all_ranks_are_told_once(tmp_path: Path):
    said = finish(start(*TWO, "spec.dlr=1e30", f"outdir={tmp_path}"), 3)
    assert said.count("is not finite") == 1
    assert "Traceback" not in said


def test_what_another_rank_finds_wrong_is_passed_on(tmp_path: Path):
    """A picture is damaged when the first rank has read it, before the second has been started."""
    data, outdir = tmp_path / "data", tmp_path / "out"
    unpacked(data, {f"img{i:02d}.png": picture(i, side=16) for i in range(24)})
    words = ["model=stylegan2", "spec.channel_max=8", "batch=8", "kimg=0.1", "workers=0", "gpus=2", "device=cpu"]
    process = start(*words, f"data={data}", f"outdir={outdir}")
    while not list(outdir.glob("0*")):
        time.sleep(0.01)
    (data / "img05.png").write_bytes(picture(5, side=16)[:200])
    said = finish(process, 3)
    assert re.search(r"\[rank 1\] error: .*img05\.png", said)
    assert "error: rank 1 has ended with exit code 2; what it said stands above" in said
    assert "Traceback" not in said


def test_a_number_of_ranks_that_cannot_be_is_one_sentence(tmp_path: Path):
    said = finish(start(*RUN, "device=cpu", "gpus=3", f"outdir={tmp_path}"), 2)
    assert "batch=8 cannot be dealt in parts of batch_gpu=4 to gpus=3" in said
    assert not list(tmp_path.iterdir())


def test_torchrun_and_gpus_must_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "4")
    said = finish(start(*TWO, f"outdir={tmp_path}"), 2)
    assert "gpus=2, but 4 processes were started: leave gpus out" in said


def test_a_rank_that_hangs_ends_the_run_and_says_where(tmp_path: Path):
    """A picture becomes a pipe that nobody writes to, before the second rank reads it."""
    data, outdir = tmp_path / "data", tmp_path / "out"
    unpacked(data, {f"img{i:02d}.png": picture(i, side=16) for i in range(24)})
    words = ["model=stylegan2", "spec.channel_max=8", "batch=8", "kimg=0.1", "workers=0", "gpus=2", "device=cpu"]
    process = start(*words, "hang_after=0.3", f"data={data}", f"outdir={outdir}")
    while not list(outdir.glob("0*")):
        time.sleep(0.01)
    (data / "img05.png").unlink()
    os.mkfifo(data / "img05.png")
    said = finish(process, 3)
    assert "error: rank 1 has not come back from its work for 0.3 minutes" in said
    assert "follow" in said  # where it stood
    assert "error: rank 1 has ended with exit code 3" in said


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads as Linux lists them")
def test_a_group_ends_with_its_block():
    """Threads of a group that outlives it end in the middle of the interpreter's end: at times by an abort."""
    script = """
import os
from torch.distributed import HashStore
from torch_utils.distributed import joined
before = len(os.listdir("/proc/self/task"))
with joined(0, 1, HashStore()):
    import torch.distributed.nn, training.loop
    inside = len(os.listdir("/proc/self/task"))
print(inside > before, len(os.listdir("/proc/self/task")) - before)
"""
    assert finish(launch("-c", script)).strip() == "True 0"
