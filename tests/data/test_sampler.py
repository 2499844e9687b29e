"""The stream of items, and the batches that the loader makes of it."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from itertools import islice
from pathlib import Path

import pytest
import torch

from dnnlib.errors import ConfigError, DataError, TrainingStopped
from training.data.critters import Critters
from training.data.dataset import DataSet, Sample
from training.data.loader import _deaths_in_words, batches
from training.data.sampler import items

ROOT = Path(__file__).parents[2]


def test_every_epoch_shows_every_item_once():
    stream = items(seed=1, length=13, start=0, count=39)
    epochs = [stream[:13], stream[13:26], stream[26:]]
    assert all(sorted(epoch) == list(range(13)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_the_stream_can_be_entered_anywhere():
    whole = items(seed=7, length=10, start=0, count=95)
    assert [items(7, 10, start, 1)[0] for start in range(95)] == whole
    assert items(7, 10, 33, 20) == whole[33:53]
    assert items(7, 10, 4, 20, step=3) == whole[4:64:3]


def test_seeds_order_differently():
    assert items(0, 100, 0, 100) != items(1, 100, 0, 100)


def test_all_ranks_together_see_what_one_alone_sees():
    data = Critters(resolution=8, size=20)
    alone = [batch.item.tolist() for batch in islice(batches(data, batch=6, seed=2, start=12), 3)]
    shares = [
        [batch.item.tolist() for batch in islice(batches(data, batch=6, seed=2, start=12, rank=r, world=3), 3)]
        for r in range(3)
    ]
    assert [[row[i] for i in range(2) for row in step] for step in zip(*shares, strict=True)] == alone


def test_a_restarted_loader_reads_on():
    data = Critters(resolution=8, size=10)
    whole = list(islice(batches(data, batch=4, seed=5), 6))
    rest = list(islice(batches(data, batch=4, seed=5, start=12), 3))
    assert all(torch.equal(a.image, b.image) for a, b in zip(whole[3:], rest, strict=True))


def test_workers_change_nothing_and_fill_the_shared_cache():
    settings = {"resolution": 8, "size": 12, "maps": "labels", "depth": True, "cond": True, "cache": True}
    plain, helped = Critters(**settings), Critters(**settings)
    for a, b in zip(islice(batches(plain, batch=4), 4), islice(batches(helped, batch=4, workers=2), 4), strict=True):
        assert torch.equal(a.image, b.image)
        assert torch.equal(a.depth, b.depth)
        assert torch.equal(a.item, b.item)
        assert torch.equal(a.condition.label_map, b.condition.label_map)
    assert all(helped._cache[i] is not None for i in range(12))


def test_batches_hold_what_the_data_set_knows():
    data = Critters(resolution=8, size=12, cond=True, maps="labels")
    batch = next(batches(data, batch=4))
    known = data.conditions(batch.item)
    assert torch.equal(batch.condition.camera.label(), known.camera.label())
    assert torch.equal(batch.condition.label, known.label)
    assert batch.image.min() >= -1
    assert batch.image.max() <= 1
    assert torch.equal(
        ((batch.image + 1) * 127.5).round().byte(), torch.stack([data.sample(i).image for i in batch.item.tolist()])
    )
    assert batch.condition.label_map.dtype == torch.int64
    assert batch.pool is data
    assert Critters(resolution=8, size=2).conditions(torch.tensor([0])).label is None


def test_the_loader_leaves_torchs_random_numbers_alone():
    data = Critters(resolution=8, size=4)
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    next(batches(data, batch=2))
    assert torch.equal(torch.rand(3), expected)


class Broken(DataSet):
    name, resolution = "broken", 4

    def __len__(self) -> int:
        return 3

    def sample(self, item: int) -> Sample:
        raise DataError(f"broken.zip: img{item}.png is a truncated picture.")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_workers_error_arrives_as_it_was(workers):
    with pytest.raises(DataError, match=r"^broken.zip: img\d.png is a truncated picture.$"):
        next(batches(Broken(), batch=1, workers=workers))


class Endless(Critters):
    """Items after the first take for ever."""

    def sample(self, item: int) -> Sample:
        if self.asked:
            time.sleep(60)
        self.asked = True
        return super().sample(item)

    asked = False


def _killed_during_other_work(stream, pid: int):
    os.kill(pid, signal.SIGKILL)
    time.sleep(30)


def _killed_while_waited_for(stream, pid: int):
    threading.Timer(0.2, os.kill, (pid, signal.SIGKILL)).start()
    next(stream)


@pytest.mark.parametrize("happens", [_killed_during_other_work, _killed_while_waited_for])
def test_a_worker_that_is_killed_is_told_in_words(happens):
    before = multiprocessing.active_children()
    stream = batches(Endless(resolution=8, size=4), batch=1, workers=1)
    next(stream)
    (worker,) = set(multiprocessing.active_children()) - set(before)
    told = rf"^the data worker \(pid.* {worker.pid}\) \w.*, as .* smaller workers=N, .* resume_run= continues"
    with pytest.raises(TrainingStopped, match=told):
        happens(stream, worker.pid)


def test_a_program_that_fails_does_not_wait_for_its_workers():
    code = (
        "from training.data.critters import Critters\nfrom training.data.loader import batches\n"
        "stream = batches(Critters(resolution=8, size=4), batch=1, workers=1)\nnext(stream)\nraise KeyError('defect')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, "KeyError: 'defect'")


def test_other_errors_keep_their_words():
    with pytest.raises(RuntimeError, match=r"^Something else$"), _deaths_in_words():
        raise RuntimeError("Something else")


def test_a_batch_that_cannot_be_dealt_is_told():
    with pytest.raises(ConfigError, match="batch=5"):
        next(batches(Critters(resolution=8, size=4), batch=5, world=2))
