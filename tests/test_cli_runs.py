"""What becomes of a command line: a run folder, a continued run, a dry run, the help page, a sweep."""

import json
import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

import training.cli.sweep
from dnnlib.errors import ConfigError
from tests.trainer import Trainer, config_of, run, write_images
from training.cli import main
from training.cli.page import help_page

ROOT = Path(__file__).parent.parent


def test_a_run_folder_holds_the_resolved_configuration(tmp_path: Path):
    data = write_images(tmp_path / "my data [v1], x=y")
    out = tmp_path / "out (1)"
    code, trainer = run(f"data={data}", "desc=first try", "batch=8", outdir=out)
    ((config, dataset, folder),) = trainer.calls
    assert code == 0
    assert folder == out / "00000-stylegan2-my_data__v1___x_y-gpus1-batch8-gamma0.0256-first_try"
    assert (dataset.resolution, len(dataset)) == (16, 4)
    assert config["data"] == str(data)
    assert config["dataset"]["resolution"] == config["nets"]["D"]["img_resolution"] == 16
    assert config["gamma"] == config["phases"]["Dreg"]["terms"]["r1"]["gamma"] == pytest.approx(4 * 0.0002 * 16**2 / 8)
    saved = yaml.safe_load((folder / "config.yaml").read_text())
    assert saved == config == json.loads(json.dumps(config))  # plain values, also as a snapshot's metadata
    assert (folder / "command.txt").read_text().startswith("python run_train.py model=stylegan2 'outdir=")
    assert "one line a tick" in (folder / "log.txt").read_text()


def test_what_goes_wrong_in_training_is_in_the_log(tmp_path: Path, capsys: pytest.CaptureFixture):
    def fail(config, dataset, folder):
        raise ConfigError("this cannot be")

    assert main(["model=stylegan2", f"outdir={tmp_path}"], fail) == 2
    (folder,) = tmp_path.iterdir()
    assert capsys.readouterr().err == "error: this cannot be\n"
    assert "Traceback" in (folder / "log.txt").read_text()


def test_a_run_is_continued_with_its_own_configuration(tmp_path: Path):
    first = run("seed=7", "kimg=2", "rig=sphere", outdir=tmp_path)[1].calls[0]
    trainer = Trainer()
    words = ["resume_run=latest", f"outdir={tmp_path}", "kimg=3", "rig=sphere", "seed=7", "snap=9"]
    assert main(words, trainer) == 0
    config, _, folder = trainer.calls[0]
    assert folder == first[2]
    assert {key for key in config if config[key] != first[0].get(key)} == {"kimg", "snap"}
    assert config["kimg"] == 3
    assert yaml.safe_load((folder / "config.yaml").read_text()) == config
    assert len((folder / "command.txt").read_text().splitlines()) == 2
    assert len(list(tmp_path.iterdir())) == 1
    assert main([f"resume_run={folder}"], trainer) == 0
    assert trainer.calls[1][0] == config


def test_changes_of_the_mathematics_are_refused_with_the_list(tmp_path: Path, capsys: pytest.CaptureFixture):
    folder = run("seed=7", outdir=tmp_path)[1].calls[0][2]
    before = (folder / "config.yaml").read_bytes()
    capsys.readouterr()
    trainer = Trainer()
    assert main([f"resume_run={folder}", "spec=paper256", "gamma=3", "seed=7", "kimg=9"], trainer) == 2
    told = capsys.readouterr().err
    assert "spec tiny -> paper256" in told
    assert "gamma 0.0512 -> 3" in told
    assert "seed" not in told
    assert "kimg" not in told
    assert trainer.calls == []
    assert (folder / "config.yaml").read_bytes() == before


@pytest.mark.parametrize("text", ["", "seed: 0\n", "{", "- 1\n", "\x00"])
def test_a_damaged_configuration_of_a_run_is_told(text: str, tmp_path: Path, capsys: pytest.CaptureFixture):
    folder = tmp_path / "00000-x"
    folder.mkdir()
    (folder / "config.yaml").write_text(text)
    assert main([f"resume_run={folder}"], Trainer()) == 2
    assert "config.yaml" in capsys.readouterr().err


def test_a_dry_run_shows_everything_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture):
    code, trainer = run("dry_run=True", "gamma=0.25", "batch_gpu=8", outdir=tmp_path)
    printed = capsys.readouterr().out
    assert (code, trainer.calls, list(tmp_path.iterdir())) == (0, [], [])
    shown = yaml.safe_load(printed.partition("\n\nG ")[0])
    assert shown["gamma"] == 0.25
    assert re.search(r"^total +[\d,]+ +[\d,]+$", printed, re.MULTILINE)
    assert "Gmain: softplus(-D(G(z, c), c))  (trains G every iteration)" in printed
    assert re.search(r"Dreg: gamma/2 .* every 16 iterations", printed)
    assert re.search(r"Memory: about \d+\.\d\d GB", printed)
    assert re.search(r"Time on cpu: very roughly .* s for 1,000 images", printed)


# --- help and sweeps ---


def test_the_help_page_is_one_screen_with_every_group():
    page = help_page()
    assert len(page.splitlines()) <= 60
    assert max(len(line) for line in page.splitlines()) <= 120
    for choice in ("stylegan2", "paper1024", "critters", "sphere", "gamma", "resume_run", "dry_run", "--multirun"):
        assert choice in page


def test_help_answers_within_a_second_and_without_torch():
    code = (
        "import sys; sys.argv = ['run_train.py', '--help']\n"
        "try: exec(open('run_train.py').read(), {'__name__': '__main__'})\n"
        "except SystemExit as stop: print(stop.code, sorted({'torch', 'numpy', 'hydra'} & set(sys.modules)))"
    )
    took = []
    for _ in range(3):
        started = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
        took.append(time.perf_counter() - started)
        assert done.stdout.splitlines()[-1] == "0 []"
        assert "Groups (GROUP=CHOICE)" in done.stdout
    assert min(took) < 1.0


def test_a_mistake_on_the_real_command_line_exits_with_its_code(tmp_path: Path):
    command = [sys.executable, str(ROOT / "run_train.py"), "gama=1", f"outdir={tmp_path}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: there is no key gama; did you mean gamma?\n"
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_starts_one_process_for_each_combination(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    script = tmp_path / "train.py"
    script.write_text(
        "import json, os, sys\n"
        f"open(os.path.join({str(tmp_path)!r}, 'job-%d' % os.getpid()), 'w').write(json.dumps(sys.argv[1:]))\n"
        "sys.exit('seed=1' in sys.argv)\n"
    )
    monkeypatch.setattr(training.cli.sweep, "RUN_TRAIN", script)
    monkeypatch.chdir(tmp_path)
    line = [
        "--multirun",
        "model=stylegan2",
        "seed=0,2",
        "data=/a b/c(1).zip",
        f"outdir={tmp_path}/it's [a] ${{b}}\\",
        "init.G=~/it's",
        "metrics=turning",
    ]
    assert main(line, Trainer()) == 0
    jobs = sorted(json.loads(path.read_text()) for path in tmp_path.glob("job-*"))
    assert [[word for word in job if word.startswith("seed")] for job in jobs] == [["seed=0"], ["seed=2"]]
    config = config_of(*jobs[0])  # a job's words are a command line again
    out = f"{tmp_path}/it's [a] ${{b}}\\"
    assert (config["data"], config["outdir"], config["metrics"]) == ("/a b/c(1).zip", out, ["turning"])
    assert config["init"] == {"G": os.path.expanduser("~/it's")}
    assert {path for path in tmp_path.iterdir() if path.is_dir()} == {Path(out)}  # where Hydra notes the sweep
    assert main(["--multirun", "model=stylegan2", "seed=1", f"outdir={tmp_path}/out"], Trainer()) != 0


def test_a_dry_run_of_the_default_takes_less_than_ten_seconds_of_one_processor(tmp_path: Path):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, str(ROOT / "run_train.py"), "dry_run=True", f"outdir={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    assert "Greg: " in done.stdout
    assert (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime) < 10
