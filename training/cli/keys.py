"""The keys and groups of the command line: what may be typed, read from configs/ itself.

A line `key: default  # meaning` of configs/config.yaml is the one place where a top-level key is explained.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
LESS_USUAL = "# Less usual"  # the comment in config.yaml after which keys are left out of --help
KEY_LINE = re.compile(r"^(\w+): (.*?)\s+# (.*)$")

HINTS: dict[str, Any] = {  # what a top-level key takes
    "outdir": str, "data": str, "labels": str | None, "cond": bool, "resolution": int | None, "subset": int | None,
    "mirror": bool, "aug": Literal["noaug", "ada", "fixed"], "target": float, "augpipe": str, "p": float,
    "resume": str | None, "resume_run": str | None, "freezed": int, "gpus": int, "batch": int, "batch_gpu": int,
    "kimg": float, "gamma": float, "seed": int, "tick": float, "snap": int, "imgsnap": int, "save_every": float,
    "workers": int, "device": str | None, "deterministic": bool, "precision": Literal["fp32", "bf16", "fp16"],
    "fp32": bool, "nhwc": bool, "nobench": bool, "allow_tf32": bool, "ops": Literal["auto", "torch", "ninja", "strict"],
    "offline": bool, "dry_run": bool, "desc": str | None, "max_bad_steps": int, "hang_after": float,
}  # fmt: skip

OPTIONAL = (  # settings with a number as default that may be null: by name, wherever they stand
    "near", "far", "probability", "raw_resolution_initial", "mbstd_group_size", "num_ws", "rampup",
    "ema_rampup",
)  # fmt: skip


@dataclass(frozen=True)
class Key:
    """A top-level key as config.yaml explains it."""

    name: str
    default: str
    meaning: str
    usual: bool


def top_level_keys() -> list[Key]:
    """The plain keys of config.yaml, in its order."""
    text = (CONFIGS / "config.yaml").read_text(encoding="utf-8")
    usual, _, rest = text.partition(LESS_USUAL)
    found = []
    for part, is_usual in ((usual, True), (rest, False)):
        matches = (KEY_LINE.match(line) for line in part.splitlines())
        found += [Key(m[1], m[2], m[3], is_usual) for m in matches if m]
    return found


GROUPS = ("model", "spec", "dataset", "rig", "phases", "augment", "experiment")  # what run_train.py lets choose
ELSEWHERE = {  # groups that are chosen in another way
    "metric": "write metrics=a,b",
    "program": "render programs belong to generate.py --render-program=NAME; samples.* are the pictures of training",
}


def groups(names: Sequence[str] = GROUPS) -> dict[str, list[str]]:
    """The groups with their choices."""
    return {name: sorted(file.stem for file in (CONFIGS / name).glob("*.yaml")) for name in names}


def default_of(name: str) -> str:
    """The default of a top-level key, as text."""
    return next(key.default for key in top_level_keys() if key.name == name)
