"""From the words of a command line to Hydra's overrides. Pure text: knows no Hydra, opens no file but configs/.

Values of path-like keys may hold anything; they are quoted for Hydra here. Its own quotes around a value are taken
off first, so data='/a b.zip' and data="'/a b.zip'" are the same.
"""

import difflib
import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from dnnlib.errors import ConfigError
from training.cli.keys import HINTS, groups, top_level_keys

PATH_KEYS = ("outdir", "data", "labels", "resume", "resume_run", "desc")
FLAGS = {"-h": "help", "--help": "help", "-m": "multirun", "--multirun": "multirun"}
NULL_WORDS = ("null", "None", "none", "noresume")
READER = "folder"  # the choice of group dataset for data that are no name of ours
ADA_PRESETS = ("auto", "stylegan2", "paper256", "paper512", "paper1024", "cifar")  # were --cfg, are spec
SWITCHES = {*(key for key, hint in HINTS.items() if hint is bool), "model.pose_conditioning", "model.resume_blur"}
SWITCHED = {
    "1": "True", "t": "True", "y": "True", "yes": "True", "on": "True",
    "0": "False", "f": "False", "n": "False", "no": "False", "off": "False",
}  # fmt: skip
NVIDIA = {  # options of the StyleGAN family that are called otherwise here; the rest only lose their dashes
    "cbase": "spec.channel_base", "cmax": "spec.channel_max", "glr": "spec.glr", "dlr": "spec.dlr",
    "map_depth": "spec.mapping_layers", "mbstd_group": "spec.mbstd_group", "n": "dry_run",
    "density_reg": "phases.Greg.terms.density.weight", "density_reg_p_dist": "phases.Greg.terms.density.std",
    "density_reg_every": "phases.Greg.every", "blur_fade_kimg": "model.blur_fade_kimg",
    "gen_pose_cond": "model.pose_conditioning", "gpc_reg_prob": "model.swap_probability",
    "gpc_reg_fade_kimg": "model.swap_fade_kimg", "neural_rendering_resolution_initial": "model.raw_resolution",
    "neural_rendering_resolution_final": "model.raw_resolution_final",
    "neural_rendering_resolution_fade_kimg": "model.raw_fade_kimg", "mask_data": "labels",
    "disc_c_noise": "nets.D.disc_c_noise", "sr_noise_mode": "nets.G.upsampler.noise",
    "resume_blur": "model.resume_blur", "sr_num_fp16_res": "model.half_res.upsampler",
    "g_num_fp16_res": "model.half_res.G", "d_num_fp16_res": "model.half_res.D", "sr_module": "model.sr_module",
    "style_mixing_prob": "model.style_mixing", "reg_type": "model.reg_type",
    "decoder_lr_mul": "nets.G.field.lr_multiplier", "c_scale": "nets.G.camera_scale",
}  # fmt: skip


@dataclass(frozen=True)
class Line:
    """A command line, read."""

    overrides: list[str]  # in Hydra's spelling
    help: bool = False
    multirun: bool = False


def read(argv: Sequence[str]) -> Line:
    """Raises ConfigError for words that are no KEY=VALUE, with the spelling that is."""
    flags = {FLAGS[word] for word in argv if word in FLAGS}
    if "help" in flags:
        return Line([], help=True)
    words = [word for word in argv if word not in FLAGS]
    if any(word.startswith("-") for word in words):
        raise ConfigError(translated(argv))
    plain = {key.name for key in top_level_keys()}
    overrides = []
    for word in words:
        key, equals, value = word.partition("=")
        if not word.strip():
            raise ConfigError(r"there is an empty word on the command line, perhaps a space after a backslash (\ ).")
        if equals and not key.lstrip("+~"):
            raise ConfigError(f"{word} has no key: write KEY{equals}{value or 'VALUE'}; --help lists the keys.")
        if not equals and not key.startswith("~"):
            close = difflib.get_close_matches(key, [*plain, *groups()], n=1)
            raise ConfigError(
                f"{word} has no value: write {close[0] if close else 'KEY'}=VALUE; --help lists the keys."
            )
        if key.startswith("hydra") and "multirun" not in flags:
            raise ConfigError(f"{key} belongs to sweeps: add --multirun.")
        overrides += _override(key, value, plain) if equals else [word]
    return Line(_with_reader(overrides), multirun="multirun" in flags)


def _override(key: str, value: str, plain: set[str]) -> list[str]:
    name = key.lstrip("+")
    if value in ("", "''", '""') and name != "metrics":
        raise ConfigError(f"{key}= has no value: write {key}=VALUE, or leave it out.")
    if name in (*plain, "experiment") and value in ("null", "None"):
        return []  # null means: what spec or model says
    if name == "metrics":
        return [f"{key}={_as_list(value)}"]
    if name.startswith("init."):
        return [f"++{name}={quoted_path(value)}"]
    if name in PATH_KEYS and not value.startswith("choice("):
        return [f"{key}={quoted_path(value)}"] if value not in NULL_WORDS else []
    return [f"{key}={value}"]


def _as_list(value: str) -> str:
    if value in ("", *NULL_WORDS):
        return "[]"
    return value if value.startswith("[") else f"[{value}]"


def _with_reader(overrides: list[str]) -> list[str]:
    """The line with the choice of the data set's reader, which follows from `data` unless it is given."""
    values = dict(word.split("=", 1) for word in overrides if "=" in word)
    data = values.get("data", "").strip("'")
    if not data or "dataset" in values or data.startswith("choice("):
        return overrides
    name = data.partition(":")[0]  # critters:sphere
    return [*overrides, f"dataset={name if name in groups()['dataset'] else READER}"]


def quoted_path(value: str) -> str:
    """The value in quotes of Hydra's grammar, ~ expanded, so that every letter stands for itself."""
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        value = value[1:-1]
    return quoted(os.path.expanduser(value) if value.startswith("~") else value)


def quoted(text: str) -> str:
    """Text as a quoted value: backslashes are doubled only before a quote (Hydra) or before ${ (OmegaConf)."""
    text = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)
    text = re.sub(r"(\\*)'", r"\1\1\\'", text)
    return "'" + re.sub(r"(\\+)$", r"\1\1", text) + "'"


def translated(argv: Sequence[str]) -> str:
    """What to say of options with dashes: the same command in our spelling, and which of them are not here."""
    spelt, absent = [word for word in argv if word in FLAGS], []
    for typed, option, value in _options([word for word in argv if word not in FLAGS]):
        ours = _respelt(option, value)
        spelt += ours
        absent += [] if ours else [typed]
    unknown = f"{', '.join(absent)}: not here (--help lists what is); " if absent else ""
    return f"{unknown}keys are written without dashes here: {' '.join(['python run_train.py', *spelt])}"


def _options(words: Sequence[str]) -> list[tuple[str, str, str]]:
    """What was typed, the option's name and its value, which may be the next word; without one it is a switch."""
    found: list[tuple[str, str, str]] = []
    waiting = False  # for the value of the last option
    for word in words:
        name, equals, value = word.lstrip("-").partition("=")
        if waiting and not word.startswith("-"):
            found[-1] = (f"{found[-1][0]} {word}", found[-1][1], word)
            waiting = False
        else:
            found.append((word, name, value if equals else "True"))
            waiting = word.startswith("-") and not equals
    return found


def _respelt(option: str, value: str) -> list[str]:
    """The option as words of ours, quoted for a shell; none if it is not here."""
    if option.startswith("~"):
        return [option]
    name = option.replace("-", "_")
    name = NVIDIA.get(name, name)
    if name == "cfg" and value in ADA_PRESETS:
        return ["model=stylegan2", f"spec={value}"]
    if name == "cfg":
        return [f"model=eg3d_{value}"] if f"eg3d_{value}" in groups()["model"] else []
    if name == "model.sr_module":
        value = value.rpartition("Hybrid")[2]  # training.superresolution.SuperresolutionHybrid8XDC
    if name == "metrics" and not {*value.strip("[]").split(",")} <= {*NULL_WORDS, *groups(["metric"])["metric"]}:
        return []
    if name not in (*HINTS, *groups(), "metrics") and "." not in name:
        return []
    if name in SWITCHES:
        value = SWITCHED.get(value.lower(), value)
    plain = re.fullmatch(r"[\w./~,:+-]+", value)
    return [f"{name}={value if plain else shlex.quote(value)}"]
