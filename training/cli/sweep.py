"""--multirun: Hydra deals out the combinations, here or through a launcher such as submitit; each run is a process.

Hydra's own launcher runs jobs one after another in one process, so that a GPU's state would leak from run to run;
hence a job only starts run_train.py anew with the words that Hydra chose for it.
"""

import subprocess
import sys
from collections.abc import Sequence

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from dnnlib.errors import TrainingStopped
from dnnlib.startup import RUN_TRAIN
from training.cli.keys import CONFIGS
from training.cli.overrides import PATH_KEYS


def job(config: DictConfig) -> None:
    """One run of the sweep. At the top of a module, so that launchers can send it elsewhere."""
    words = [_as_typed(word, config) for word in HydraConfig.get().overrides.task]
    code = subprocess.run([sys.executable, str(RUN_TRAIN), *words]).returncode
    if code:
        raise TrainingStopped(f"run_train.py {' '.join(words)} ended with exit code {code}")


def _as_typed(word: str, config: DictConfig) -> str:
    """The word as a person types it: a path as it is, not in Hydra's spelling."""
    key = word.partition("=")[0]
    name = key.lstrip("+")
    return f"{key}='{OmegaConf.select(config, name)}'" if name in PATH_KEYS or name.startswith("init.") else word


def sweep(overrides: Sequence[str]) -> int:
    """Run every combination of the line's values; returns 0, or 1 if one of them failed."""
    quiet = ["hydra.sweep.dir='${outdir}/sweeps'", "hydra.output_subdir=null", "hydra.job.chdir=False"]
    logs = [] if any(word.startswith("hydra/job_logging=") for word in overrides) else ["hydra/job_logging=none"]
    sys.argv = [str(RUN_TRAIN), "--multirun", *overrides, *quiet, *logs]
    main = hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="config")(job)
    try:
        main()
    except SystemExit as stop:
        return int(bool(stop.code))
    return 0
