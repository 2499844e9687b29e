"""Files are whole or not there, whatever happens while they are written."""

import os
import resource
import signal
import subprocess
import sys
import time

import pytest
import torch

from dnnlib.errors import CheckpointError
from torch_utils import checkpoint

STATE = {"nets": {"G": {"weight": torch.arange(5.0)}}, "nimg": 3, "names": ["a"], "none": None}


def test_what_is_saved_is_loaded(tmp_path):
    checkpoint.save(STATE, tmp_path / "state.pt")
    loaded = checkpoint.load(tmp_path / "state.pt")
    assert torch.equal(loaded["nets"]["G"]["weight"], torch.arange(5.0))
    assert (loaded["nimg"], loaded["names"], loaded["none"]) == (3, ["a"], None)


def test_a_full_disk_leaves_the_previous_file(tmp_path):
    path = tmp_path / "state.pt"
    checkpoint.save(STATE, path)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(CheckpointError, match="cannot write"):
            checkpoint.save({"big": torch.zeros(100_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["state.pt"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match=r"cannot write .*file/state"):
        checkpoint.save(STATE, tmp_path / "file" / "state.pt")


@pytest.mark.parametrize("keep", [0, 1, 100, -30])
def test_a_file_cut_short_is_refused(tmp_path, keep):
    path = tmp_path / "state.pt"
    checkpoint.save(STATE, path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="cut short"):
        checkpoint.load(path)


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/ran",)

    torch.save({"x": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointError, match="not a training state"):
        checkpoint.load(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()


def test_a_writer_killed_at_any_moment_leaves_a_whole_file(tmp_path):
    path = tmp_path / "state.pt"
    checkpoint.save({"value": torch.full((50_000,), -1.0)}, path)
    program = (
        "import sys, torch; from torch_utils import checkpoint\nfor i in range(10**6):\n"
        f"    checkpoint.save({{'value': torch.full((50_000,), float(i))}}, {str(path)!r})\n"
        "    print(i, flush=True)"
    )
    for pause in (0.0, 0.003, 0.011):
        writer = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(pause)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        value = checkpoint.load(path)["value"]
        assert value.shape == (50_000,)
        assert (value == value[0]).all()
