"""From the words of a command line to Hydra's overrides. Pure text: knows no Hydra, opens no file but configs/.

Values of path-like keys may hold anything; they are quoted for Hydra here. Its own quotes around a value are taken
off first, so data='/a b.zip' and data="'/a b.zip'" are the same.
"""

import difflib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from dnnlib.errors import ConfigError
from training.cli.keys import groups, top_level_keys

PATH_KEYS = ("outdir", "data", "labels", "resume", "resume_run", "desc")
FLAGS = {"-h": "help", "--help": "help", "-m": "multirun", "--multirun": "multirun"}
NULL_WORDS = ("null", "None", "none", "noresume")
READER = "folder"  # the choice of group dataset for data that are no name of ours
ADA_PRESETS = ("auto", "stylegan2", "paper256", "paper512", "paper1024", "cifar")  # were --cfg, are spec
NVIDIA = {  # options of the StyleGAN family that are called otherwise here; the rest only lose their dashes
    "cbase": "spec.channel_base", "cmax": "spec.channel_max", "glr": "spec.glr", "dlr": "spec.dlr",
    "map_depth": "spec.mapping_layers", "mbstd_group": "spec.mbstd_group", "n": "dry_run",
    "density_reg": "phases.Greg.terms.density.weight", "density_reg_p_dist": "phases.Greg.terms.density.std",
    "density_reg_every": "phases.Greg.every", "blur_fade_kimg": "model.blur_fade_kimg",
    "gen_pose_cond": "model.pose_conditioning", "gpc_reg_prob": "model.swap_probability",
    "gpc_reg_fade_kimg": "model.swap_fade_kimg", "neural_rendering_resolution_initial": "model.raw_resolution",
    "neural_rendering_resolution_final": "model.raw_resolution_final",
    "neural_rendering_resolution_fade_kimg": "model.raw_fade_kimg",
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
        raise ConfigError(f"keys are written without dashes here: {translated(words)}")
    plain = {key.name for key in top_level_keys()}
    overrides = []
    for word in words:
        key, equals, value = word.partition("=")
        if not word.strip():
            raise ConfigError(r"there is an empty word on the command line, perhaps a space after a backslash (\ ).")
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


def translated(words: Sequence[str]) -> str:
    """The same command in our spelling, from options with dashes."""
    spelt = []
    waiting = None  # an option whose value is the next word
    for word in words:
        if word.startswith("-"):
            if waiting:
                spelt.append(_respelt(waiting, "True"))
            name, equals, value = word.lstrip("-").partition("=")
            waiting = None if equals else name
            spelt += [_respelt(name, value)] if equals else []
        elif waiting:
            spelt.append(_respelt(waiting, word))
            waiting = None
        else:
            spelt.append(word)
    spelt += [_respelt(waiting, "True")] if waiting else []
    return f"python run_train.py {' '.join(spelt)}"


def _respelt(option: str, value: str) -> str:
    name = option.replace("-", "_")
    shown = f'"{value}"' if re.search(r"[^\w./~,:+-]", value) else value
    if name == "cfg":
        return f"spec={value}" if value in ADA_PRESETS else f"model=eg3d_{value}"
    return f"{NVIDIA.get(name, name)}={shown}"
