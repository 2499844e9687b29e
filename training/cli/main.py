"""The order of a training's start: read the line, compose, open the data, resolve, check, save, train."""

import os
import shlex
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dnnlib.errors import UserError
from dnnlib.log import tee
from dnnlib.rundir import COMMAND_FILE, CONFIG_FILE, create_run, run_name
from training.cli import overrides
from training.cli.page import help_page

Train = Callable[[Mapping[str, Any], Any, Path], int]  # resolved configuration, opened data, run folder -> exit code


def main(argv: Sequence[str], train: Train) -> int:
    """Do what the command line says; returns the exit code. Mistakes become one sentence on stderr.

    With PARALLAX_DEBUG=1 in the environment they keep their traceback.
    """
    try:
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
    if line.multirun:
        from training.cli.sweep import sweep

        return sweep(line.overrides)
    from training.cli import compose, resume  # Hydra and torch come only now

    if "resume_run" in compose.typed_keys(line.overrides):
        folder, config = resume.continued(line.overrides)
        dataset = reopened(config)
    else:
        folder, (config, dataset) = None, prepared(line.overrides)
    if config["dry_run"]:
        from training.cli.dry_run import show

        show(config, dataset)
        return 0
    command = shlex.join(["python", "run_train.py", *argv]) + "\n"
    if folder is None:
        folder = create_run(
            config["outdir"], _name(config), {CONFIG_FILE: resume.as_yaml(config), COMMAND_FILE: command}
        )
    else:
        resume.note(folder, config, command)
    print(f"Run folder: {folder}")
    return _logged(train, config, dataset, folder)


def prepared(words: Sequence[str]) -> tuple[dict[str, Any], Any]:
    """The resolved, checked configuration of a command line in Hydra's spelling, and its opened data."""
    from training.cli import compose

    config = compose.composed(words)  # before torch is loaded, so that a misspelt word is told at once
    from training.build import DATA_FACTS, build_dataset
    from training.cli import checks

    dataset = build_dataset(compose.data_keys(config))
    plain = compose.resolved(config, {fact: getattr(dataset, fact) for fact in DATA_FACTS})
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


def _logged(train: Train, config: Mapping[str, Any], dataset: Any, folder: Path) -> int:
    """Train with all that is printed copied to log.txt, which also gets the traceback of what goes wrong."""
    with tee(folder / "log.txt") as log:
        try:
            return train(config, dataset, folder)
        except Exception:
            traceback.print_exc(file=log)
            raise
