"""A run that is killed and continued ends bit-identical to one that was left alone."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.runs import (
    ROOT,
    RUN,
    assert_same_run,
    begun,
    finish,
    iterations,
    launch,
    left_alone,
    logged,
    start,
    wait_for,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was left alone."""
    return left_alone(tmp_path_factory.mktemp("whole"), *RUN)


def test_killed_at_random_moments_it_ends_the_same(whole: Path, tmp_path: Path):
    moments = random.Random(7)
    process, folder = begun(tmp_path, *RUN)
    for target in (3, 9, 15):
        wait_for(folder, process, target)
        time.sleep(moments.uniform(0, 0.08))  # anywhere in a step, or inside the writing of the state
        process.send_signal(signal.SIGKILL)
        process.communicate()
        process = start(f"resume_run={folder}")
    finish(process)
    assert_same_run(folder, whole)


def test_killed_it_leaves_no_data_workers_behind(tmp_path: Path):
    words = [word for word in RUN if not word.startswith("workers")]
    process, _ = begun(tmp_path, *words, "workers=2")
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(workers) >= 2
    deadline = time.monotonic() + 2  # torch itself looks every five seconds, and waits for ever where a pipe is full
    while (left := list(filter(runs_still, workers))) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.communicate()  # ends when no worker has its output open
    assert not left


def runs_still(pid: str) -> bool:
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())  # empty once it has ended
    except OSError:
        return False


def stopped_by(number: signal.Signals, outdir: Path) -> Path:
    """The folder of a run that got a signal after its first tick."""
    words = [word for word in RUN if not word.startswith("save_every")]
    process = start(*words, "save_every=1000", f"outdir={outdir}")
    assert process.stdout is not None
    for line in process.stdout:
        if line.lstrip().startswith("0.0"):  # the first tick
            break
    process.send_signal(number)
    said = finish(process, 128 + number)
    assert f"{number.name}: the update under way is finished first" in said
    assert f"Stopped by {number.name}; continue with: python run_train.py resume_run=" in said
    (folder,) = outdir.glob("0*")
    assert 0 < iterations(folder) < 20
    return folder


KILLED_IN_A_WRITE = """
import os, runpy, signal, sys
sync, states = os.fsync, 0
def fsync(handle):
    global states
    states += os.readlink(f"/proc/self/fd/{handle}").rpartition("/")[2].startswith(".draft-state.")
    if states == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    sync(handle)
os.fsync, sys.argv[0] = fsync, "run_train.py"
runpy.run_path("run_train.py", run_name="__main__")
"""


def test_killed_inside_the_writing_of_a_state_it_goes_on_from_the_one_before(whole: Path, tmp_path: Path):
    finish(launch("-c", KILLED_IN_A_WRITE, *RUN, f"outdir={tmp_path}"), -signal.SIGKILL)
    (folder,) = tmp_path.iterdir()
    assert iterations(folder) == 4
    assert len(list(folder.glob(".draft-state.*"))) == 1
    finish(start(f"resume_run={folder}"))
    assert_same_run(folder, whole)
    assert not list(folder.rglob(".draft-*"))


def test_killed_before_its_first_state_it_starts_again(whole: Path, tmp_path: Path):
    code = KILLED_IN_A_WRITE.replace("states == 5", "states == 1")
    words = [word for word in RUN if not word.startswith("save_every")]
    finish(launch("-c", code, *words, f"outdir={tmp_path}"), -signal.SIGKILL)
    (folder,) = tmp_path.iterdir()
    assert not (folder / "state.pt").exists()
    assert len(logged(folder)) > 1
    said = finish(start(f"resume_run={folder}", "save_every=1e-9"))
    assert "it starts from its beginning" in said
    assert_same_run(folder, whole)


def test_sigterm_saves_first_and_the_run_goes_on_the_same(whole: Path, tmp_path: Path):
    folder = stopped_by(signal.SIGTERM, tmp_path)
    finish(start(f"resume_run={folder}"))
    assert_same_run(folder, whole)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGINT])
def test_other_signals_save_first_too(number: signal.Signals, tmp_path: Path):
    stopped_by(number, tmp_path)


def test_a_change_of_the_mathematics_is_refused(whole: Path):
    said = finish(start(f"resume_run={whole}", "seed=3", "spec.glr=0.1"), code=2)
    assert "seed" in said
    assert "glr" in said
    assert "Traceback" not in said


def test_a_damaged_state_is_one_sentence(whole: Path, tmp_path: Path):
    folder = tmp_path / "00000-cut"
    folder.mkdir()
    for name in ("config.yaml", "command.txt", "stats.jsonl"):
        (folder / name).write_bytes((whole / name).read_bytes())
    (folder / "state.pt").write_bytes((whole / "state.pt").read_bytes()[:-1000])
    said = finish(start(f"resume_run={folder}"), code=2)
    assert "cut short" in said
    assert "Traceback" not in said


def test_a_full_disk_stops_the_run_and_spares_the_state(tmp_path: Path):
    """The limit on the size of files lets everything through but the state."""
    process = start(*[w for w in RUN if not w.startswith("kimg")], "kimg=0.008", f"outdir={tmp_path}")
    finish(process)
    (folder,) = tmp_path.iterdir()
    before = (folder / "state.pt").read_bytes()
    limit = len(before) // 2
    code = (
        f"import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}));"
        f"sys.argv = ['run_train.py', 'resume_run={folder}', 'kimg=0.064'];"
        "runpy.run_path('run_train.py', run_name='__main__')"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "cannot write" in done.stderr
    assert "Traceback" not in done.stderr
    assert (folder / "state.pt").read_bytes() == before
    assert not list(folder.glob(".state*"))
