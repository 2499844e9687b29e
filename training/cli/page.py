"""The page of --help: one screen, read from configs/ and nothing else, so that it appears at once."""

import textwrap

from training.cli.keys import ELSEWHERE, GROUPS, groups, top_level_keys

HEAD = """\
Parallax: train 3D-aware image generators. Settings are words KEY=VALUE, without dashes.

  python run_train.py                                        eg3d on the embedded data, on any machine
  python run_train.py model=eg3d_afhq data=~/cats.zip        a paper's training on your data
  python run_train.py spec=auto data=~/my.zip gamma=2        everything from the data, but for gamma
  python run_train.py resume_run=latest                      continue the newest run of outdir exactly
  python run_train.py model=eg3d dry_run=True                show what would happen
  python run_train.py --multirun seed=0,1,2                  several runs; hydra/launcher=submitit_slurm for SLURM
"""
FOOT = """\
Deeper settings have dots (phases.Greg.every=8): dry_run=True shows all of them, configs/ explains them."""
WIDTH = 100


def help_page() -> str:
    """Examples, groups with their choices, the usual keys with default and meaning."""
    lines = [HEAD, "Groups (GROUP=CHOICE):"]
    for name, choices in groups((*GROUPS, *ELSEWHERE)).items():
        where = {"metric": "metrics=a,b: ", "program": "generate.py --render-program=NAME: "}.get(name, "")
        lines += _entry(name, where + (", ".join(choices) if choices else "nothing here yet"), 12)
    lines += ["", "Usual keys [default]:"]
    for key in top_level_keys():
        if key.usual:
            lines += _entry(key.name, f"{key.meaning}{_shown(key.default)}", 15)
    less = ", ".join(key.name for key in top_level_keys() if not key.usual)
    lines += ["", *textwrap.wrap(f"Less usual: {less}.", WIDTH), *textwrap.wrap(FOOT, WIDTH)]
    return "\n".join(lines)


def _shown(default: str) -> str:
    """A default in brackets; those of the spec and those that follow from other keys are not numbers yet."""
    if default in ("null", "[]") or "cpus:" in default:
        return ""
    return " [spec's]" if "${spec" in default else " [as " + default[2:-1] + "]" if "${" in default else f" [{default}]"


def _entry(name: str, text: str, indent: int) -> list[str]:
    rest = " " * (indent + 2)
    return textwrap.wrap(text, WIDTH, initial_indent=f"  {name:<{indent}}", subsequent_indent=rest)
