"""Train a model: python run_train.py KEY=VALUE ... ; python run_train.py --help explains."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dnnlib.startup import prepare_process
from training import cli  # without torch


def train(config: Mapping[str, Any], dataset: Any, folder: Path) -> int:
    from training import loop  # torch comes only now, so that --help answers at once

    return loop.train(config, dataset, folder)


if __name__ == "__main__":
    prepare_process()
    sys.exit(cli.main(sys.argv[1:], train))
