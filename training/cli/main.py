"""The order of a training's start: read the line, compose, open the data, resolve, check, save, train."""

import os
import shlex
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dnnlib.errors import ConfigError, UserError, missing_packages_in_words
from dnnlib.log import tee
from dnnlib.rundir import COMMAND_FILE, CONFIG_FILE, create_run, owned, run_name
from training.cli import overrides
from training.cli.page import help_page

Train = Callable[[Mapping[str, Any], Any, Path], int]  # resolved configuration, opened data, run folder -> exit code


def main(argv: Sequence[str], train: Train) -> int:
    """Do what the command line says; returns the exit code. Mistakes become one sentence on stderr.

    With PARALLAX_DEBUG=1 in the environment they keep their traceback.
    """
    try:
        with missing_packages_in_words():
            return _run(argv, train)
    except UserError as error:
        if os.environ.get("PARALLAX_DEBUG"):
            raise
        sys.stdout.flush()
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


def _run(argv: Sequence[str], train: Train) -> int:
    line = overrides.read(argv)
    if line.help:
        print(help_page())
        return 0
    ranks = int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1  # as torchrun has started
    if ranks > 1 and os.environ["RANK"] != "0":
        from training.ranks import follow

        return follow()
    if ranks > 1 and line.multirun:
        raise ConfigError("--multirun is for one process: run it without torchrun, with gpus=.")
    if line.multirun:
        from training.cli.sweep import sweep

        return sweep(line.overrides)
    from training.cli import compose, resume  # Hydra and torch come only now

    folder, words = None, _counted(line.overrides, ranks) if ranks > 1 else line.overrides
    if "resume_run" in compose.typed_keys(words):
        folder, config = resume.continued(words)
        dataset = reopened(config)
    else:
        config, dataset = prepared(words)
    if config["dry_run"]:
        from training.cli.dry_run import show

        show(config, dataset)
        return 0
    from training.cli.dry_run import memory_line

    memory = memory_line(config, dataset)
    command = shlex.join(["python", "run_train.py", *argv]) + "\n"
    files = {CONFIG_FILE: resume.as_yaml(config), COMMAND_FILE: command}
    run = folder or create_run(config["outdir"], _name(config), files)
    with owned(run):
        print(f"Run folder: {run}")
        if folder:
            resume.take_up(run, config, command)
        return _logged(train, config, dataset, run, memory)


def _counted(words: list[str], ranks: int) -> list[str]:
    """The words, and gpus= as torchrun has it."""
    from training.cli import compose

    typed = compose.typed_keys(words)
    if typed.get("gpus", ranks) != ranks:
        raise ConfigError(f"gpus={typed['gpus']}, but {ranks} processes were started: leave gpus out.")
    if typed.get("dry_run"):
        raise ConfigError("dry_run=True is for one process: run it without torchrun, with gpus=.")
    return [*words, f"gpus={ranks}"]


def prepared(words: Sequence[str]) -> tuple[dict[str, Any], Any]:
    """The resolved, checked configuration of a command line in Hydra's spelling, and its opened data."""
    from training.cli import compose

    config = compose.composed(words)  # before torch is loaded, so that a misspelt word is told at once
    from training.build import DATA_FACTS, build_dataset
    from training.cli import checks, resume

    dataset = build_dataset(compose.data_keys(config))
    plain = resume.anchored(compose.resolved(config, {fact: getattr(dataset, fact) for fact in DATA_FACTS}))
    plain["precision"] = "fp32" if plain["fp32"] else plain["precision"]
    checks.check(plain, dataset)
    return plain, dataset


def reopened(config: Mapping[str, Any]) -> Any:
    """The data of a saved configuration, checked with it."""
    from training.build import build_dataset
    from training.cli import checks

    dataset = build_dataset(config)
    checks.check({**config, "resume": None}, dataset)  # where a run once started from may be gone by now
    return dataset


def _name(config: Mapping[str, Any]) -> str:
    model = config["choices"].get("experiment") or config["choices"]["model"]
    return run_name(model, config["data"], config["gpus"], config["batch"], config["gamma"], config["desc"])


def _logged(train: Train, config: Mapping[str, Any], dataset: Any, folder: Path, header: str) -> int:
    """Train with all that is printed copied to log.txt, which also gets the traceback of what goes wrong."""
    from training.ranks import together

    with tee(folder / "log.txt") as log:
        try:
            print(header)
            return together(train, config, dataset, folder)
        except Exception:
            traceback.print_exc(file=log)
            raise
