"""Metrics of a generator, as apps/calc_metrics.py prints them and a run keeps them in metrics.jsonl."""

import json
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dnnlib.errors import ConfigError, TrainingStopped, UserError
from dnnlib.files import append
from training.build import build
from training.programs.measured import MeasuredGenerator


def measure(
    nodes: Mapping[str, Mapping[str, Any]], measured: MeasuredGenerator, facts: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """A row for each metric: its results, its protocol, the facts given, the seconds it took.

    A metric that cannot be had here (no cameras, no depth, a file missing) is left out with one sentence.
    """
    for name, node in nodes.items():
        started = time.monotonic()
        try:
            metric = build(node, where=f"metric.{name}")
            results = metric(measured)
        except TrainingStopped:
            raise
        except UserError as error:
            print(f"{name} was left out: {error}", file=sys.stderr)
            continue
        protocol = {key: value for key, value in vars(metric).items() if isinstance(value, (int, float, str, tuple))}
        row = {"metric": name, "results": results, "protocol": protocol, **facts}
        yield {**row, "seconds": round(time.monotonic() - started, 1)}


def append_rows(
    path: Path, rows: list[dict[str, Any]], error: type[UserError] = ConfigError, advice: str | None = None
) -> None:
    """Add lines of JSON to a file. Raises `error` with the advice if it cannot be written."""
    if rows:
        append(path, "".join(json.dumps(row) + "\n" for row in rows).encode(), error, advice)
