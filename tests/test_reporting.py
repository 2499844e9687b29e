"""What a run writes line by line: whole or told, and readable by the tools it is meant for."""

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from dnnlib.errors import ConfigError, TrainingStopped
from dnnlib.files import append, cut_back
from torch_utils.images import save_grid
from training.reporting import Events, Reporter, clock

STATISTICS = {"loss/Gmain/adversarial": {"num": 8, "mean": 0.25, "std": 0.0}}


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """As on a full disk: files end at `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def reporter(folder: Path) -> Reporter:
    return Reporter(folder, total_kimg=1, device=torch.device("cpu"))


def curve(folder: Path, name: str) -> list[tuple[int, float]]:
    """What TensorBoard shows."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return [(point.step, point.value) for point in events.Scalars(name)]


def test_a_tick_is_a_line_on_the_screen_a_line_of_json_and_a_point(tmp_path: Path, capsys: pytest.CaptureFixture):
    report = reporter(tmp_path)
    report.begin(0)
    report.tick(8, 0, STATISTICS)
    report.tick(264, 1, STATISTICS)
    operators, header, first, second = capsys.readouterr().out.splitlines()
    assert operators.startswith("Operators: ")
    assert header.split()[:2] == ["kimg", "elapsed"]
    assert first.endswith("Gmain/adversarial 0.250")
    assert second.split()[0] == "0.3"
    lines = [json.loads(line) for line in (tmp_path / "stats.jsonl").read_text().splitlines()]
    assert [(line["nimg"], line["tick"], line["stats"]) for line in lines] == [(8, 0, STATISTICS), (264, 1, STATISTICS)]
    assert curve(tmp_path, "loss/Gmain/adversarial") == [(8, 0.25), (264, 0.25)]


def test_a_run_that_goes_on_has_every_point_once(tmp_path: Path):
    killed = Events(tmp_path, 0)
    for nimg in (8, 16, 24, 32):
        killed.add(nimg, {"loss": 1.0})
    killed.path.rename(killed.path.with_name("events.out.tfevents.0000000001.host.1"))
    going_on = Events(tmp_path, 16)  # its state had seen 16 images
    for nimg in (24, 32, 40):
        going_on.add(nimg, {"loss": 2.0})
    assert curve(tmp_path, "loss") == [(8, 1), (16, 1), (24, 2), (32, 2), (40, 2)]


def test_what_is_no_number_is_null_in_the_statistics(tmp_path: Path):
    reporter(tmp_path).tick(8, 0, {"loss": {"num": 1, "mean": float("nan"), "std": float("inf")}})

    def refuse(word: str) -> None:
        raise AssertionError(word)

    line = json.loads((tmp_path / "stats.jsonl").read_text(), parse_constant=refuse)
    assert line["stats"] == {"loss": {"num": 1, "mean": None, "std": None}}


def test_a_full_disk_under_the_statistics_stops_the_run_in_a_sentence(tmp_path: Path):
    report = reporter(tmp_path)
    (tmp_path / "stats.jsonl").symlink_to("/dev/full")
    with pytest.raises(TrainingStopped, match=r"cannot write .*stats.jsonl: No space left on device; .* resume_run"):
        report.tick(8, 0, STATISTICS)


def test_a_full_disk_under_tensorboard_stops_the_run_in_a_sentence(tmp_path: Path):
    report = reporter(tmp_path)
    report.begin(0)
    (events,) = tmp_path.glob("events*")
    with no_file_above(events.stat().st_size + 5), pytest.raises(TrainingStopped, match=r"events.*: File too large"):
        report._events.add(8, {"loss": 1.0})  # pyright: ignore[reportOptionalMemberAccess]


def test_a_full_disk_under_a_picture_leaves_nothing(tmp_path: Path):
    image = torch.rand(1, 3, 64, 64)
    with no_file_above(1000), pytest.raises(ConfigError, match=r"cannot write .*fakes000001.png: File too large; free"):
        save_grid(image, tmp_path / "fakes000001.png", columns=1)
    assert list(tmp_path.iterdir()) == []


def test_what_was_appended_later_is_cut_and_a_short_file_is_left(tmp_path: Path):
    path = tmp_path / "lines"
    cut_back(path, 3)
    assert not path.exists()
    append(path, b"one\n")
    append(path, b"two\nthr")
    cut_back(path, 20)
    assert path.read_bytes() == b"one\ntwo\nthr"
    cut_back(path, 4)
    assert path.read_bytes() == b"one\n"


def test_times_read_as_people_say_them():
    assert [clock(s) for s in (59.9, 725, 10_920, 198_000)] == ["59s", "12m 05s", "3h 02m", "2d 07h"]
