"""resume_run: a run goes on with the configuration that its folder holds; the line may change what is harmless.

Everything else that the line says must be what the run was started with, or the run would not be the same any more.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from dnnlib.errors import CheckpointError, ConfigError
from dnnlib.files import append, sweep, whole_file
from dnnlib.rundir import COMMAND_FILE, CONFIG_FILE, find_run
from training.cli import compose
from training.cli.formulas import micro_batch
from training.cli.keys import HINTS, default_of, groups
from training.cli.overrides import READER

OWN_KEYS = ("resume_run", "outdir")
HARMLESS = (  # what does not alter the mathematics; the first three alter how sums are rounded, which is told
    "batch_gpu", "gpus", "device", "kimg", "tick", "snap", "imgsnap", "save_every", "metrics", "workers", "offline",
    "dry_run", "max_bad_steps", "nobench",
)  # fmt: skip


def continued(words: Sequence[str]) -> tuple[Path, dict[str, Any]]:
    """Folder and configuration of the run to go on with.

    Raises ConfigError for a change that would alter the mathematics, with the list of them; CheckpointError if the
    folder's configuration cannot be read.
    """
    typed = compose.typed_keys(words)
    if "resume" in typed:
        raise ConfigError("resume starts a new run from weights, resume_run continues an old one: give one of them.")
    folder = find_run(typed.get("outdir", default_of("outdir")), str(typed["resume_run"]))
    saved = _read(folder / CONFIG_FILE)
    typed = anchored({"data": saved["data"], **typed})
    choices = [f"{key}={value}" for key, value in saved["choices"].items() if value and key not in typed]
    wanted = compose.composed([*choices, *words])  # also finds misspelt words
    altered = []
    for key, value in typed.items():
        if key in OWN_KEYS:
            continue
        if key in HARMLESS:
            saved[key] = value
        elif (before := _before(saved, key)) != value:
            altered.append(f"{key} {before} -> {value}")
    if altered:
        raise ConfigError(
            f"resume_run continues {folder} as it was started; this would change its mathematics: "
            f"{', '.join(altered)}. Leave it out, or start a new run from the weights with resume=."
        )
    if "gpus" in typed and "batch_gpu" not in typed:
        saved["batch_gpu"] = micro_batch(saved["batch"], saved["gpus"], saved["batch_gpu"])
    if "metrics" in typed:
        saved["metric"] = OmegaConf.to_container(wanted.get("metric") or DictConfig({}), resolve=True)
    return folder, saved


def take_up(folder: Path, config: Mapping[str, Any], command: str) -> None:
    """Make a folder that we own ready: sweep what a killed run left unfinished, keep what this one has changed."""
    from training.snapshot import SNAPSHOTS  # loads torch
    from training.state import STATE_FILE

    sweep(folder)
    sweep(folder / SNAPSHOTS)
    with whole_file(folder / CONFIG_FILE) as draft:
        draft.write_text(as_yaml(config), encoding="utf-8")
    append(folder / COMMAND_FILE, command.encode())
    if not (folder / STATE_FILE).exists():
        print("The run was stopped before its first training state (save_every), so it starts from its beginning.")


def anchored(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same keys with absolute paths, so that a run can be continued from any working directory.

    Names stay: those of data sets, and whatever is not there as a file.
    """
    result = dict(values)
    name = str(values["data"]).partition(":")[0]
    named = name != READER and name in groups(["dataset"])["dataset"]  # then labels is a name, too
    for key, value in result.items():
        if key == "init" and value:
            result[key] = {net: _absolute(source) for net, source in value.items()}
        elif key == "resume" or key.startswith("init.") or (key in ("data", "labels") and not named):
            result[key] = _absolute(value)
    return result


def _absolute(value: Any) -> Any:
    there = isinstance(value, str) and Path(value).expanduser().exists()
    return str(Path(value).expanduser().absolute()) if there else value


def as_yaml(config: Mapping[str, Any]) -> str:
    """The text of config.yaml: plain values, readable again by any YAML reader."""
    return yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True, width=120)


def _read(path: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    lacking = [key for key in (*HINTS, "nets", "phases", "dataset", "choices") if key not in (config or {})]
    if not isinstance(config, dict) or lacking:
        raise CheckpointError(f"{path} is no configuration of a run: it lacks {', '.join(lacking[:3])}.")
    return config


def _before(saved: Mapping[str, Any], key: str) -> Any:
    """What the run was started with: the choice of a group, or the value of a key."""
    if key in groups():
        return saved["choices"].get(key)
    value: Any = saved
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
