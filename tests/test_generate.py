import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from PIL import Image

import generate
from dnnlib.errors import CheckpointError, ConfigError
from dnnlib.options import Options, pair, seeds, seeds_text, size
from dnnlib.progress import progress
from tests.toy_sphere import BallGenerator, FlatGenerator
from torch_utils import video
from torch_utils.images import depth_limits, depth_picture, save_grid, save_png, to_uint8
from training.contracts import CameraRig
from training.snapshot import OpenedNetwork

ROOT = Path(__file__).parent.parent


@dataclass
class Opened:
    G: Any
    rig: CameraRig = field(default_factory=lambda: CameraRig(radius=2.7, focal=3.0))
    config: dict[str, Any] = field(default_factory=lambda: {"dataset": {"label_dim": 0}})
    nimg: int = 0


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Opened:
    opened = Opened(BallGenerator())
    monkeypatch.setattr("training.snapshot.open_network", lambda path, device: OpenedNetwork(**vars(opened)))
    return opened


def call(monkeypatch: pytest.MonkeyPatch, line: list[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["generate.py", "--device=cpu", "--network=toy", *line])
    generate.main()


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("0", [0]), ("0-3", [0, 1, 2, 3]), ("0,3,5-9", [0, 3, 5, 6, 7, 8, 9]), ("7,7,2", [7, 7, 2]), ("4-4", [4]),
     (" 1 , 2 - 3 ", [1, 2, 3]), ("4294967295", [2**32 - 1])],
)  # fmt: skip
def test_seeds_are_read(text: str, numbers: list[int]):
    assert seeds(text) == numbers
    assert seeds(seeds_text(numbers)) == numbers


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("5-3", "runs backwards; write 3-5"), ("0-9999999", "more than 1000000 seeds"),
     ("", "no list of seeds"), ("a", "no list"), ("1-", "no list"),
     ("-3", "no list"), ("1,,2", "no list"), ("1.5", "no list"), ("1-2-3", "no list"), ("4294967296", "too large")],
)  # fmt: skip
def test_wrong_seeds_are_refused(text: str, complaint: str, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ConfigError, match=f"--seeds: .*{complaint}"):
        call(monkeypatch, ["--outdir=out", f"--seeds={text}"])


def test_dashes_and_underscores_are_equal_in_names_only():
    parser = Options()
    parser.add_argument("--trunc-cutoff", type=int)
    parser.add_argument("--program-option", type=pair, action="append")
    args = parser.parse_args(["--trunc_cutoff=4", "--program_option", "both_ends=a_b-c", "--program-option=n-steps=2"])
    assert args.trunc_cutoff == 4
    assert args.program_option == [("both_ends", "a_b-c"), ("n_steps", "2")]


def test_sizes_are_read():
    assert size("4x2") == (4, 2)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (["--outdir=o"], "required: --seeds"),
        (["--outdir=o", "--seeds=0", "--trunk=1"], "no option --trunk; did you mean --trunc"),
        (["--outdir=o", "--seed=0-3"], "no option --seed; did you mean --seeds"),
        (["--outdir=o", "--seeds=0", "--render-program=orbits"], "no render program orbits; did you mean orbit"),
        (["--outdir=o", "--seeds=0", "--render-program=orbit", "--program-option", "frame=2"], "did you mean frames"),
        (["--outdir=o", "--seeds=0", "--render-program=rotation_grid", "--n-steps=4"], "has no option frames"),
        (["--outdir=o", "--seeds=0", "--grid=2"], "no size"),
        (["--outdir=o", "--seeds=0", "--grid=2x1"], "add --render-program"),
        (["--outdir=o", "--seeds=0", "--render-program=orbit", "--grid=2x1"], "multiple of that, not 1"),
        (["--outdir=o", "--seeds=0", "--program-option", "frames"], "write KEY=VALUE"),
        (["--outdir=o", "--seeds=0", "--trunc-cutoff=-1"], "at least 0"),
        (["--outdir=o", "--seeds=0", "--trunc=nan"], "trunc=nan must be a finite number"),
        (["--outdir=o", "--seeds=0", "--trunc=inf"], "trunc=inf must be a finite number"),
        (["--outdir=o", "--seeds=0", "--nrr=1000000000"], "nrr=1000000000 must be a whole number from 1 to 8192"),
        (["--outdir=", "--seeds=0"], "--outdir= is empty"),
        (["--outdir=o", "--seeds=0", "--render-program=orbit", "--program-option=fps=0"], "orbit.fps=0 must be"),
        (["--outdir=o", "--seeds=0", "--render-program=orbit", "--program-option=modalities=[]"], "is no list"),
        (["--outdir=o", "--seeds=0", "--render-program=trajectory_front", "--program-option=fov=0"], "fov=0 must be"),
        (["--outdir=o", "--seeds=0", "--render-program=trajectory_front", "--program-option=centre=[0]"], "2 numbers"),
        (
            ["--outdir=o", "--seeds=0", "--render-program=trajectory_front", "--program-option=fov_swing=100"],
            "leave 0.1",
        ),
        (
            ["--outdir=o", "--seeds=0", "--render-program=rotation_both", "--nrr=2"],
            "at least 3 rays a side, not 2: .* --nrr",
        ),
        (["--outdir=o", "--seeds=0", "--n-steps=0"], "at least 1"),
        (["--outdir=o", "--seeds=0", "--no-video=maybe"], "neither true nor false"),
        (["--outdir=o", "--seeds=0", "--class=1"], "without classes"),
        (["--outdir=o", "--seeds=0", "--device=toaster"], "device toaster cannot be used"),
        (["--outdir=o", "--seeds=0", "--noise-mode=loud"], "--noise-mode: invalid choice"),
    ],
)
def test_mistakes_are_named_before_anything_is_written(
    line: list[str], complaint: str, network: Opened, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=complaint):
        call(monkeypatch, line)
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_is_one_sentence_and_an_exit_code():
    line = [sys.executable, "generate.py", "--outdir=o", "--network=n", "--seeds=5-3"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "error: --seeds: the range 5-3 runs backwards; write 3-5\n"
    assert done.stdout == ""


def test_help_does_not_wait_for_torch():
    code = (
        "import sys, generate; sys.argv[1:] = ['--help']\ntry: generate.main()\nfinally: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "rotation_camera3" in done.stdout
    assert done.stdout.endswith("False\n")


def test_the_line_everybody_knows(network: Opened, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys):
    line = ["--outdir", f"{tmp_path}/a b [1] (x)", "--trunc=0.7", "--seeds=0-1", "--render-program", "rotation_camera"]
    call(monkeypatch, line)
    out = tmp_path / "a b [1] (x)"
    assert sorted(p.name for p in out.iterdir()) == [
        "seed_000000", "seed_000000.mp4", "seed_000001", "seed_000001.mp4"
    ]  # fmt: skip
    assert sorted(p.name for p in (out / "seed_000001").iterdir()) == [f"{i:03d}.png" for i in range(8)]
    assert network.G.scenes_built == 2
    assert "seed_000001.mp4" in capsys.readouterr().out


def test_a_network_that_makes_no_pictures_is_told(network: Opened, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    network.G, network.config = torch.nn.Linear(1, 1), {"dataset": {"label_dim": 3}}
    with pytest.raises(CheckpointError, match="toy makes no pictures: its network G is a Linear"):
        call(monkeypatch, [f"--outdir={tmp_path}/out", "--seeds=0"])
    assert not (tmp_path / "out").exists()


def test_films_play_everywhere_and_show_the_frames(network: Opened, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    network.G = BallGenerator(33)  # odd
    call(monkeypatch, [f"--outdir={tmp_path}", "--seeds=3", "--render-program=orbit", "--n_steps=5", "--depth"])
    reader = imageio_ffmpeg.read_frames(str(tmp_path / "seed_000003.mp4"))
    facts = next(reader)
    shown = [np.frombuffer(frame, np.uint8).reshape(34, 66, 3) for frame in reader]
    assert facts["pix_fmt"].startswith("yuv420p")
    assert facts["codec"] == "h264"
    assert facts["size"] == (66, 34)
    assert facts["fps"] == 30
    assert len(shown) == 5
    for index, frame in enumerate(shown):
        png = pixels(tmp_path / f"seed_000003/{index:03d}.png")
        assert png.shape == (33, 66, 3)
        assert np.abs(frame[:33].mean(axis=(0, 1)) - png.mean(axis=(0, 1))).max() < 3


def test_a_shorter_film_leaves_no_frame_of_a_longer_one(network: Opened, monkeypatch, tmp_path: Path):
    for steps in (6, 3):
        line = [f"--outdir={tmp_path}", "--seeds=0", "--render-program=orbit", f"--n-steps={steps}", "--no-video"]
        call(monkeypatch, line)
    assert len(list((tmp_path / "seed_000000").iterdir())) == 3
    assert [p.name for p in tmp_path.iterdir()] == ["seed_000000"]


def test_without_ffmpeg_there_is_a_webp(network: Opened, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys):
    monkeypatch.setattr(video, "find_ffmpeg", lambda: None)
    call(monkeypatch, [f"--outdir={tmp_path}", "--seeds=0", "--render-program=orbit", "--n-steps=4"])
    with Image.open(tmp_path / "seed_000000.webp") as film:
        assert film.n_frames == 4
    assert len(list((tmp_path / "seed_000000").iterdir())) == 4
    assert "ffmpeg was not found" in capsys.readouterr().out


def test_an_absent_ffmpeg_is_noticed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "")
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: (_ for _ in ()).throw(RuntimeError("no ffmpeg")))
    assert video.find_ffmpeg() is None


def test_a_failing_ffmpeg_is_named_and_leaves_nothing(network: Opened, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    broken = tmp_path / "ffmpeg"
    broken.write_text("#!/bin/sh\necho 'no such encoder' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(video, "find_ffmpeg", lambda: str(broken))
    with pytest.raises(ConfigError, match=r"seed_000000\.mp4: no such encoder; --no-video"):
        call(monkeypatch, [f"--outdir={tmp_path}/out", "--seeds=0", "--render-program=orbit", "--n-steps=2"])
    assert list((tmp_path / "out").iterdir()) == []


def test_an_outdir_that_is_a_file_is_refused(network: Opened, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / "taken").write_text("mine")
    for program in ([], ["--render-program=orbit"]):
        with pytest.raises(ConfigError, match=r"cannot write .*taken"):
            call(monkeypatch, [f"--outdir={tmp_path}/taken", "--seeds=0", *program])
    assert (tmp_path / "taken").read_text() == "mine"


def test_a_conditional_network_wants_its_class(network: Opened, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    network.G, network.config = BallGenerator(label_dim=3), {"dataset": {"label_dim": 3}}
    with pytest.raises(ConfigError, match="--class=0 to 2"):
        call(monkeypatch, [f"--outdir={tmp_path}", "--seeds=0"])
    for label in (0, 2):
        call(monkeypatch, [f"--outdir={tmp_path}/{label}", "--seeds=0", f"--class={label}"])
    assert (pixels(tmp_path / "0/seed0000.png") != pixels(tmp_path / "2/seed0000.png")).any()


def test_truncation_to_nothing_is_the_mean(network: Opened, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    call(monkeypatch, [f"--outdir={tmp_path}", "--seeds=0,1", "--trunc=0"])
    assert (pixels(tmp_path / "seed0000.png") == pixels(tmp_path / "seed0001.png")).all()


def test_a_flat_model_says_that_it_has_no_camera(network: Opened, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    network.G = FlatGenerator()
    call(monkeypatch, [f"--outdir={tmp_path}", "--seeds=0"])
    with pytest.raises(ConfigError, match="has no camera, so rotation_camera has nothing to move"):
        call(monkeypatch, [f"--outdir={tmp_path}", "--seeds=0", "--render-program=rotation_camera"])
    assert [p.name for p in tmp_path.iterdir()] == ["seed0000.png"]


def test_levels_are_those_of_published_pictures():
    values = torch.tensor([-2.0, -1.0, -0.5, 0.0, 0.003, 0.99, 1.0, 5.0]).reshape(1, 1, 1, 8)
    assert to_uint8(values).flatten().tolist() == [0, 0, 64, 128, 128, 254, 255, 255]


def test_grids_are_filled_row_by_row(tmp_path: Path):
    grey = torch.tensor([-1.0, 0.0, 1.0]).reshape(3, 1, 1, 1).expand(3, 1, 2, 2)
    save_grid(grey, tmp_path / "grid.png", columns=2)
    picture = pixels(tmp_path / "grid.png")
    assert picture[::2, ::2].tolist() == [[0, 128], [255, 0]]


def test_depth_is_grey_over_one_range():
    depth = torch.tensor([1.0, 2.0, 3.0, torch.inf]).reshape(4, 1, 1, 1)
    assert depth_picture(depth).flatten().tolist() == [1, 0, -1, -1]
    seen = torch.tensor([1.0, 1.0, 0.0, 0.0]).reshape(4, 1, 1, 1)
    assert depth_limits(depth, seen) == (1, 2)
    assert depth_picture(depth, seen).flatten().tolist() == [1, -1, -1, -1]
    assert depth_picture(torch.ones(1, 1, 2, 2)).isfinite().all()


def test_a_picture_that_cannot_be_written_leaves_the_old_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    path = tmp_path / "picture.png"
    save_png(np.zeros((2, 2, 3), np.uint8), path)
    before = path.read_bytes()

    def full(*_: object, **__: object):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(ConfigError, match=r"picture\.png: No space left on device"):
        save_png(np.ones((2, 2, 3), np.uint8), path)
    assert [p.name for p in tmp_path.iterdir()] == ["picture.png"]
    assert path.read_bytes() == before


def test_progress_says_when_it_will_end(monkeypatch: pytest.MonkeyPatch, capsys):
    clock = iter(range(0, 100, 4))
    monkeypatch.setattr("dnnlib.progress.time.monotonic", lambda: next(clock))
    assert list(progress("abcdef", 6, "letters")) == list("abcdef")
    assert capsys.readouterr().err == "letters: 2 of 6, 24 s to go\nletters: 5 of 6, 5 s to go\n"


def test_nrr_changes_the_rays(network: Opened, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    call(monkeypatch, [f"--outdir={tmp_path}", "--seeds=0", "--depth", "--nrr=4"])
    assert pixels(tmp_path / "seed0000_raw.png").shape == (4, 4, 3)
    assert pixels(tmp_path / "seed0000.png").shape == (16, 16, 3)


def test_a_stray_word_is_named(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ConfigError, match="two belongs to no option"):
        call(monkeypatch, ["--seeds=0", "--outdir=one", "two"])
