"""What a person may type, and what they are told: one sentence, a non-zero exit code, nothing half-written."""

import re
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from dnnlib.errors import ConfigError
from tests.trainer import FACTS, config_of, run, write_images
from training.cli import overrides
from training.cli.compose import composed, resolved

# --- reading the line ---

PATHS = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1).filter(
    lambda t: t not in overrides.NULL_WORDS and t[0] not in "~'\"" and not t.startswith("choice(")
)


@given(PATHS)
@settings(max_examples=300, deadline=None)
@example("/a b/c(1).zip")
@example("/with,comma=and=equals/[x]{y}:z")
@example(r"back\slash\\'quote'\'" + "\\")
@example("/money/${HOME}/\\${a}$\\\\${b}/$")
@example("  spaces  ")
@example("/100%/#/&/*?")
def test_any_path_arrives_as_typed(path: str):
    (word,) = [w for w in overrides.read([f"data={path}"]).overrides if w.startswith("data=")]
    value = OverridesParser.create().parse_override(word).value()
    assert OmegaConf.create({"data": value}).data == path


def test_home_is_expanded_and_quotes_around_quotes_are_taken_off(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/ann lee")
    words = overrides.read(["data=~/datasets/afhq.zip", "resume='ffhq256'", 'outdir="/a (b)"', "init.G=~/g.pkl"])
    config = composed(words.overrides)
    assert config.data == "/home/ann lee/datasets/afhq.zip"
    assert (config.resume, config.outdir, config.init.G) == ("ffhq256", "/a (b)", "/home/ann lee/g.pkl")


def test_the_reader_follows_from_the_data():
    assert config_of("data=critters")["choices"]["dataset"] == "critters"
    assert config_of("data=critters:sphere")["choices"]["dataset"] == "critters"
    assert config_of("data=/some/critters.zip")["choices"]["dataset"] == "folder"
    assert config_of("data=/x.zip", "dataset=folder", "dataset.cameras=True")["dataset"]["cameras"] is True


def test_metrics_are_a_list():
    known = ["frechet_probe2k", "turning"]
    assert config_of("metrics=frechet_probe2k,turning")["metrics"] == known
    assert list(config_of("metrics=[frechet_probe2k,turning]")["metric"]) == known
    assert config_of("metrics=none")["metrics"] == config_of()["metrics"] == []


# --- precedence ---


def test_key_on_the_line_beats_spec_on_the_line_beats_the_default():
    assert config_of("model=stylegan2")["batch"] == 16  # tiny
    assert config_of("model=stylegan2", "spec=paper256")["batch"] == 64
    for words in (["batch=24", "spec=paper256"], ["spec=paper256", "batch=24"], ["spec.batch=24", "spec=paper256"]):
        assert config_of("model=stylegan2", *words)["batch"] == 24


def test_null_means_what_the_spec_says():
    assert config_of("spec=paper512", "gamma=null", "kimg=null", "device=null")["gamma"] == 0.5


def test_null_chooses_no_experiment():
    assert config_of("experiment=null") == config_of()


def test_as_many_processes_read_data_as_there_are_cpus_but_at_most_three(monkeypatch: pytest.MonkeyPatch):
    for cpus, workers in ((1, 1), (2, 2), (64, 3)):
        monkeypatch.setattr("training.cli.formulas.os.sched_getaffinity", lambda _, cpus=cpus: set(range(cpus)))
        assert config_of()["workers"] == config_of("workers=null")["workers"] == workers
    assert config_of("workers=7")["workers"] == 7


def test_fp32_wins_over_precision(tmp_path: Path):
    assert run("precision=bf16", "fp32=True", outdir=tmp_path)[1].calls[0][0]["precision"] == "fp32"


def test_groups_can_be_chosen_beside_a_model_that_chooses_too():
    assert config_of("model=stylegan2", "rig=sphere")["rig"]["kind"] == "sphere"
    assert config_of("rig=sphere", "model=stylegan2", "rig.radius=3")["rig"]["radius"] == 3


def test_what_follows_from_a_key_follows_from_the_line():
    config = config_of("model=stylegan2", "spec=paper256", "batch=8", "resume=somewhere", "snap=3")
    assert config["batch_gpu"] == 8
    assert config["imgsnap"] == 3
    assert config["emas"]["G_ema"]["rampup"] is None
    auto = resolved(composed(["spec=auto", "model=stylegan2", "batch=8"]), {**FACTS, "resolution": 512})
    assert auto["gamma"] == pytest.approx(0.0002 * 512**2 / 8)
    assert auto["phases"]["Dreg"]["terms"]["r1"]["gamma"] == auto["gamma"]


# --- mistakes ---

MISTAKES = {
    "gama=1": "there is no key gama; did you mean gamma",
    "modle=eg3d": r"no key modle; did you mean model \(group: .*stylegan2",
    "spec=papr256": r"spec=papr256: there is no such spec; did you mean paper256.*There are: auto, cifar",
    "model=stylgan2": "did you mean stylegan2",
    "rig=fase": "did you mean face",
    "nets.G.mapping.z_dm=4": r"did you mean nets\.G\.mapping\.z_dim \(in nets\)",
    "mapping_layers=4": r"did you mean spec\.mapping_layers \(in spec\)",
    "+foo=1": "there is no key foo",
    "foo": "foo has no value",
    "gamm": "gamm has no value: write gamma=VALUE",
    " ": "empty word on the command line",
    "--gpus=8": r"without dashes here: python run_train\.py .*gpus=8",
    "program=orbit": r"generate\.py --render-program=NAME",
    "metric=turning": "write metrics=a,b",
    "metrics=fid": "metrics=fid: there is no such metric; there are: .*turning",
    "kimg=abc": "kimg=abc: expected a number",
    "batch=8.5": r"batch=8\.5 must be a whole number",
    "cond=maybe": "cond=maybe: expected true or false",
    "precision=fp17": "expected fp32, bf16 or fp16",
    "spec.channel_max=wide": r"spec\.channel_max=wide: expected a number",
    "nets.G.noise=loud": "StyleGAN2Generator expects const, random or none|there is no key nets.G.noise",
    "+nets.G.mapping.z_dam=8": "MappingNetwork takes no such argument; did you mean z_dim",
    "nets.G._target_=os.system": "is not allowed",
    "batch=1,2": "names several values: add --multirun",
    "metrics=[a": "cannot be read",
    "hydra.verbose=true": "belongs to sweeps: add --multirun",
    "~phases.Gnone": r"no key phases\.Gnone",
    "kimg=0": "kimg=0 must be a finite number above 0",
    "kimg=nan": "kimg=nan must be a finite number",
    "kimg=0.0001": "kimg=0.0001 is less than one image",
    "tick=inf": "tick=inf must be a finite number",
    "gamma=-1": "gamma=-1 must be a finite number of at least 0",
    "seed=-1": "seed=-1 must be a whole number from 0",
    "seed=4294967296": "seed=4294967296 must be a whole number from 0 to 4294967295",
    "batch=0": r"batch=0 must be a whole number from 1",
    "gpus=0": r"gpus=0 must be a whole number from 1",
    "save_every=-1": "save_every=-1 must be a finite number above 0",
    "snap=0": "snap=0 must be a whole number from 1",
    "imgsnap=0": "imgsnap=0 must be a whole number from 1",
    "resolution=0": "resolution=0 must be a whole number from 1 to 8192",
    "resolution=1000000000": "must be a whole number from 1 to 8192",
    "subset=-1": "subset=-1 must be a whole number",
    "workers=-1": "workers=-1 must be a whole number from 0",
    "phases.Dreg.every=0": r"phases\.Dreg\.every=0 must be a whole number from 1",
    "samples.latents=0": r"samples\.latents=0 must be",
    "samples.yaws=[]": r"samples\.yaws=\[\] must be some numbers",
    "samples.yaws=null": r"samples\.yaws=None: expected a list such as",
    "samples.net=D": r"samples\.net=D makes no pictures",
    "spec.mapping_layers=0": r"spec\.mapping_layers=0 must be a whole number from 1 to 64",
    "spec.channel_max=0": r"spec\.channel_max=0 must be",
    "spec.channel_base=8": r"nets\.G\.synthesis: SynthesisNetwork cannot be built: one of its sizes comes out as 0",
    "model.sizes.tiny.w_dim=0": r"model\.sizes\.tiny\.w_dim=0 must be",
    "rig.pivot=[0,0]": r"rig\.pivot=\[0, 0\] must be 3 numbers",
    "rig.radius=nan": r"rig\.radius=nan must be a finite number above 0",
    "model.now.z_dim=4": r"model\.now\.z_dim follows model\.sizes\.tiny\.z_dim: set that one",
    "phases.Dmain.draw.z_dim=4": r"phases\.Dmain\.draw\.z_dim follows phases\.Gmain\.draw\.z_dim",
    "optimizers.G.betas=null": r"optimizers\.G\.betas=None: expected a list such as \[0\.0, 0\.99\]",
    "optimizers.G.betas=[0]": r"optimizers\.G\.betas=\[0\] must be 2 numbers",
    "optimizers.G.betas=[0,1]": r"optimizers\.G: Adam cannot be built: Invalid beta",
    "optimizers.G._target_=torch.optim.Adamm": r"torch\.optim has no class Adamm",
    "optimizers.G._target_=training.losses.r1.R1Penalty": r"optimizers\.G\.lr: R1Penalty takes no such argument",
    "optimizers.G.nets=[X]": r"optimizers\.G cannot be built: there is no 'X'",
    "optimizers=null": "there is nothing to train without optimizers",
    "phases.Gmain.nets=[G.nothing]": r"phases\.Gmain\.nets cannot be built: .* has no attribute `nothing`",
    "phases.Gmain.nets=[]": r"phases\.Gmain\.nets=\[\] trains nothing",
    "phases.Gmain.terms=null": "phases cannot be built",
    "+phases.Gmain.foo=1": r"phases\.Gmain\.foo: Phase takes no such argument",
    "critics.D.net=X": r"critics\.D\.net=X: there is no such net; there are: D, G",
    "critics=null": r"phases\.Gmain\.terms\.adversarial\.critic=D: there is no such critic",
    "emas.G_ema.net=X": r"emas\.G_ema\.net names X, but there are only G, D",
    "+emas.G_ema.foo=1": r"emas\.G_ema cannot be built: .*'foo'",
    "nets=3": "nets=3: it holds settings",
    "rig=null": r"rig=null: there is no such rig.* There are: .*face",
    "~rig": "~rig leaves a hole",
    "model=[eg3d]": r"model=\[eg3d\]: there is no such model; did you mean eg3d",
    "rig._target_=training.losses.r1.R1Penalty": "is not allowed",
    "+augment.x=1": r"there is no key augment\.x",
    "+metric.x=1": r"there is no key metric\.x",
    "outdir=": "outdir= has no value: write outdir=VALUE, or leave it out",
    "data=": "data= has no value",
    "data=''": "data= has no value",
    "resume=": "resume= has no value",
    "device=meta": "device meta cannot be used: write cpu, cuda",
    "=5": "=5 has no key: write KEY=5",
    "+=": r"\+= has no key: write KEY=VALUE",
    "spec.size=huge": "spec.size=huge: model=stylegan2 has no such size; there are: paper, tiny",
    "batch_gpu=6": "batch=16 cannot be dealt in parts of batch_gpu=6 to gpus=1: it must be a multiple of 6",
    "batch_gpu=2": r"batch_gpu=2 is not a multiple of spec\.mbstd_group=4",
    "resolution=24": "images of 24 px cannot be trained on.*16 or 32",
    "resolution=4": "images of 4 px cannot be trained on.*: 8;",
    "data=/nowhere/x.zip": r"/nowhere/x\.zip",
    "dataset.sed=1": r"no key dataset\.sed; did you mean dataset\.seed",
    "resume=/nowhere/x": "/nowhere/x",
    "resume_run=/nowhere/x": "resume_run=/nowhere/x is not a run folder",
    "resume_run=latest": "finds no run in outdir",
    "device=abacus": "device abacus cannot be used",
    "aug=adda": r"aug=adda: expected noaug, ada or fixed",
    "critics.D.augment={_target_:training.augment.Augmentation,pipe:bcg}": "augpipe=bcg: .* did you mean bg or bgc",
    "augment.settings.xflipp=1": r"no key augment\.settings\.xflipp; did you mean augment\.settings\.xflip",
    "target=1.5": "target=1.5 must be a finite number from 0 to 1",
    "+phases.Dmain.shrink=32": r"phases\.Dmain\.shrink=32 leaves nothing of the 16 images of a GPU",
    "precision=fp16": r"precision=fp16 is nothing that this CPU is fast in: use .*precision=fp32",
    "ops=fast": "ops=fast: expected auto, torch, ninja or strict",
    "init.G=x": "not built yet",
}


@pytest.mark.parametrize("word", MISTAKES)
def test_a_mistake_gets_one_sentence_and_writes_nothing(word: str, tmp_path: Path, capsys: pytest.CaptureFixture):
    code, trainer = run(word, outdir=tmp_path / "out")
    printed = capsys.readouterr()
    assert code == 2
    assert re.search(MISTAKES[word], printed.err), printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""
    assert trainer.calls == []
    assert list(tmp_path.iterdir()) == []


def test_a_number_of_thousands_of_digits_is_told(tmp_path: Path, capsys: pytest.CaptureFixture):
    assert run(f"seed={'9' * 5000}", outdir=tmp_path)[0] == 2
    assert "cannot be read" in capsys.readouterr().err


def test_a_setting_of_a_metric_can_be_changed_and_misspelt():
    assert config_of("metrics=turning", "metric.turning.num_seeds=3")["metric"]["turning"]["num_seeds"] == 3
    with pytest.raises(ConfigError, match=r"did you mean metric\.turning\.num_seeds"):
        config_of("metrics=turning", "metric.turning.num_seds=3")


def test_an_outdir_that_cannot_be_written_is_told(tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "file").write_text("")
    code, trainer = run(outdir=tmp_path / "file" / "out")
    assert (code, trainer.calls) == (2, [])
    assert "cannot be written: Not a directory" in capsys.readouterr().err


def test_two_ways_to_resume_exclude_each_other(tmp_path: Path, capsys: pytest.CaptureFixture):
    assert run("resume=a", "resume_run=latest", outdir=tmp_path)[0] == 2
    assert "give one of them" in capsys.readouterr().err


def test_labels_that_are_not_there_are_told(tmp_path: Path, capsys: pytest.CaptureFixture):
    data = write_images(tmp_path / "images")
    assert run(f"data={data}", "cond=True", outdir=tmp_path / "out")[0] == 2
    assert "label" in capsys.readouterr().err


def test_debugging_keeps_the_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PARALLAX_DEBUG", "1")
    with pytest.raises(ConfigError, match="gama"):
        run("gama=1", outdir=tmp_path)
