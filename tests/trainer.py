"""Stands for the training loop in tests of the command line."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from training.cli import main, overrides
from training.cli.compose import composed, resolved

FACTS = {"resolution": 32, "num_channels": 3, "num_classes": 0, "label_dim": 0}


class Trainer:
    """Stands for the loop: remembers what it was asked to train."""

    def __init__(self) -> None:
        self.calls: list[tuple[dict[str, Any], Any, Path]] = []

    def __call__(self, config, dataset, folder) -> int:
        self.calls.append((config, dataset, folder))
        print("one line a tick")
        return 0


def run(*words: str, outdir: Path | str) -> tuple[int, Trainer]:
    trainer = Trainer()
    return main(["model=stylegan2", f"outdir={outdir}", *words], trainer), trainer


def config_of(*words: str) -> dict[str, Any]:
    return resolved(composed(overrides.read(words).overrides), FACTS)


def write_images(folder: Path, side: int = 16, count: int = 4) -> Path:
    folder.mkdir(parents=True)
    for i in range(count):
        pixels = np.random.RandomState(i).randint(256, size=(side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"img{i}.png")
    return folder
