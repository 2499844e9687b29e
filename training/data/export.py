"""Critters as ordinary zips: images with dataset.json, and their label maps, edges and depth. The work of
apps/make_critters.py."""

import json
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from dnnlib.errors import DataError

from .critters import LABELS, PALETTE, Critters
from .critters_render import measure
from .critters_shape import CLASSES
from .pictures import png
from .writer import image_name, writing

DEPTH_UNIT = 1e-4  # scene units of one step of a 16-bit depth map; 0 is background
ENDING = (signal.SIGINT, signal.SIGTERM)
MAPS: dict[str, dict[str, Any]] = {
    "labels": {"kind": "labels", "classes": LABELS, "palette": PALETTE},
    "edges": {"kind": "edges"},
    "depth": {"kind": "depth", "unit": DEPTH_UNIT},
}


def files_of(critters: Critters, kinds: tuple[str, ...], item: int) -> dict[str, bytes]:
    """The PNG files of an item: "image" and those of `kinds`, keys of MAPS."""
    head, camera = critters.shape(item), critters.camera([item])
    files = {"image": png(critters.sample(item).image.movedim(0, 2).numpy())}
    if kinds:
        labels, depth, _, edges = (values[0, 0] for values in measure(head, camera, critters.resolution))
        maps = {
            "labels": labels.to(torch.uint8).numpy(),
            "edges": np.where(edges.numpy(), 0, 255).astype(np.uint8),
            "depth": (depth / DEPTH_UNIT).round().numpy().astype(np.uint16),
        }
        files |= {kind: png(maps[kind]) for kind in kinds}
    return files


def _all_files(critters: Critters, kinds: tuple[str, ...], workers: int) -> Iterator[dict[str, bytes]]:
    make = partial(files_of, critters, kinds)
    if not workers:
        yield from map(make, range(len(critters)))
        return
    pool = ProcessPoolExecutor(workers, initializer=_prepare_worker)
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)  # Python loses what they raise while it forks
        made = pool.map(make, range(len(critters)), chunksize=16)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        yield from made
    except BrokenProcessPool as error:
        why = "a worker was killed, as happens where memory runs out"
        raise DataError(f"{why}: give fewer workers, or more memory.") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _prepare_worker() -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal tells the whole group, and the parent ends its workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)


def known_about(critters: Critters, labels: Literal["class", "camera"]) -> dict[str, Any]:
    """dataset.json: class indices with "cameras" beside them, or cameras as labels, which EG3D reads."""
    items = torch.arange(len(critters))
    names = [image_name(item) for item in items.tolist()]
    rows = critters.camera(items.tolist()).label().tolist()
    cameras = [[name, [float(f"{x:.9g}") for x in row]] for name, row in zip(names, rows, strict=True)]
    if labels == "camera":
        return {"labels": cameras}
    kinds = [[name, critters.kind(item)] for name, item in zip(names, items.tolist(), strict=True)]
    return {"labels": kinds, "cameras": cameras, "classes": CLASSES}


def _check_places(places: list[str]) -> None:
    """Raises DataError where one would be written over or into another."""
    full = [Path(place).expanduser().resolve() for place in places]
    for i, place in enumerate(full):
        for other in full[:i] + full[i + 1 :]:
            if place == other or place in other.parents:
                raise DataError(f"{place} cannot hold both pictures and maps ({other}): give each a place of its own.")


def write_critters(
    critters: Critters, dest: str, maps: Mapping[str, str], labels: Literal["class", "camera"], workers: int,
    show: Callable[..., Iterable[dict[str, bytes]]],
) -> None:  # fmt: skip
    """Write all items to dest, and maps of the kinds (keys of MAPS) that `maps` gives a zip or folder for.

    Nothing appears before all are whole. show(items, total, unit) tells how far it is. Raises DataError.
    """
    _check_places([dest, *maps.values()])
    with ExitStack() as stack:
        outs = {"image": stack.enter_context(writing(dest))}
        outs |= {kind: stack.enter_context(writing(place)) for kind, place in maps.items()}
        files = _all_files(critters, tuple(maps), workers)
        for item, made in enumerate(show(files, len(critters), "critters")):
            for kind, data in made.items():
                outs[kind].add(image_name(item), data)
        outs["image"].add_json(known_about(critters, labels))
        for kind in maps:
            outs[kind].add_json(json.loads(json.dumps(MAPS[kind])))
