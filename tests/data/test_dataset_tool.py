"""dataset_tool and dataset_labels: from any images to a data set."""

import gzip
import io
import json
import os
import pickle
import re
import struct
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dnnlib.errors import ConfigError, DataError
from tests.data.files import app, camera, numbered, packed, picture, quietly, unpacked
from training.data.classes import class_labels
from training.data.opening import open_dataset
from training.data.packing import pack, transform
from training.data.sources import open_source

NEW = list(numbered(3))


def array(data: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(data)))


def read(path: Path, name: str) -> bytes:
    return zipfile.ZipFile(path).read(name)


def test_images_labels_and_cameras_go_along_under_new_names(tmp_path):
    names = [f"cat/{i}.png" for i in (3, 1, 2)]
    content = {
        "labels": [[n, i] for i, n in enumerate(names)],
        "cameras": [[n, camera(i / 10)] for i, n in enumerate(names)],
    }
    source = unpacked(tmp_path / "s", {name: picture(i) for i, name in enumerate(names)}, **content)
    done = app("dataset_tool", f"--source={source}", f"--dest={tmp_path}/d/x.zip")
    assert done.returncode == 0, done.stderr
    stored = zipfile.ZipFile(tmp_path / "d/x.zip")
    assert stored.namelist() == [*numbered(3), "dataset.json"]
    assert np.array_equal(array(stored.read(NEW[0])), array(picture(1)))  # sorted: 1, 2, 3
    labels = json.loads(stored.read("dataset.json"))
    assert labels["labels"] == [[NEW[0], 1], [NEW[1], 2], [NEW[2], 0]]
    assert labels["cameras"][2] == [NEW[2], camera(0.0)]


def test_labels_are_null_if_one_is_missing(tmp_path):
    source = packed(tmp_path / "s.zip", numbered(3), labels=[[NEW[0], 1], [NEW[2], 0]])
    assert pack(open_source(source), str(tmp_path / "x.zip"), transform(None, None, None), None, quietly) == 3
    assert json.loads(read(tmp_path / "x.zip", "dataset.json")) == {"labels": None}


def test_width_and_height_resize_with_lanczos_or_box(tmp_path):
    source = packed(tmp_path / "s.zip", numbered(2))
    for name in ("lanczos", "box"):
        change = transform(None, 4, 4, name)
        pack(open_source(source), str(tmp_path / f"{name}.zip"), change, None, quietly)
        expected = Image.fromarray(array(picture(1))).resize((4, 4), getattr(Image.Resampling, name.upper()))
        assert np.array_equal(array(read(tmp_path / f"{name}.zip", NEW[1])), np.array(expected))


def test_center_crop_takes_the_largest_square_in_the_middle():
    pixels = np.random.RandomState(0).randint(0, 256, (12, 8, 3), np.uint8)
    assert np.array_equal(transform("center-crop", 8, 8)(pixels), pixels[2:10])
    assert np.array_equal(transform("center-crop", 8, 8)(pixels.swapaxes(0, 1)), pixels.swapaxes(0, 1)[:, 2:10])


def test_center_crop_wide_keeps_the_width_between_black_bars():
    pixels = np.random.RandomState(0).randint(1, 256, (8, 16, 3), np.uint8)
    out = transform("center-crop-wide", 16, 8)(pixels)
    assert out.shape == (16, 16, 3)
    assert np.array_equal(out[4:12], pixels)
    assert out[:4].max() == out[12:].max() == 0
    assert transform("center-crop-wide", 32, 8)(pixels) is None
    assert transform("center-crop-wide", 16, 12)(pixels) is None


def test_a_landscape_size_stands_in_a_black_square():
    pixels = np.random.RandomState(0).randint(1, 256, (8, 16, 3), np.uint8)
    out = transform(None, 16, 8)(pixels)
    assert np.array_equal(out[4:12], pixels)
    assert out[:4].max() == 0


def test_skipped_images_leave_gaps_in_the_names(tmp_path):
    entries = {"a.png": picture(0, 16, height=8), "b.png": picture(1, 8, height=8), "c.png": picture(2, 16, height=8)}
    change = transform("center-crop-wide", 16, 8)
    assert pack(open_source(unpacked(tmp_path / "s", entries)), str(tmp_path / "x.zip"), change, None, quietly) == 2
    assert zipfile.ZipFile(tmp_path / "x.zip").namelist() == [NEW[0], NEW[2], "dataset.json"]
    change = transform("center-crop-wide", 64, 8)
    with pytest.raises(DataError, match="skipped"):
        pack(open_source(str(tmp_path / "s")), str(tmp_path / "y.zip"), change, None, quietly)
    assert not (tmp_path / "y.zip").exists()


def test_max_images_and_transparent_pictures(tmp_path):
    source = unpacked(tmp_path / "s", numbered(5, mode="RGBA"))
    assert pack(open_source(source), str(tmp_path / "x.zip"), transform(None, None, None), 2, quietly) == 2
    assert np.array_equal(array(read(tmp_path / "x.zip", NEW[1])), array(picture(1, mode="RGBA"))[:, :, :3])


@pytest.mark.parametrize(
    ("entries", "word"),
    [({"a.png": picture(0), "b.png": picture(1, side=16)}, "b.png is 16x16"),
     ({"a.png": picture(0), "b.png": picture(1, mode="L")}, "1 channels"),
     ({"a.png": picture(0), "b.png": picture(1)[:70]}, "truncated"), ({"a.png": picture(0, height=4)}, "not square"),
     ({"a.png": picture(0, side=12)}, "power of two"), ({"a.txt": b""}, "no images")],
)  # fmt: skip
def test_sources_that_make_no_data_set_are_told(tmp_path, entries, word):
    done = app("dataset_tool", f"--source={unpacked(tmp_path / 's', entries)}", f"--dest={tmp_path}/x.zip")
    assert done.returncode == 2
    assert word in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert os.listdir(tmp_path) == ["s"]


@pytest.mark.parametrize(
    ("options", "word"),
    [(["--transform=center-crop"], "--resolution"), (["--resolution=8x8", "--width=8"], "one of them"),
     (["--resolution=8"], "WIDTHxHEIGHT"), (["--resolution=99999x8"], "width=99999 must be"),
     (["--height=1000000000"], "height=1000000000 must be a whole number"), (["--dest="], "names no place"),
     (["--source=/nowhere"], "does not exist")],
)  # fmt: skip
def test_wrong_options_are_told(tmp_path, options, word):
    done = app(
        "dataset_tool", f"--source={unpacked(tmp_path / 's', numbered(1))}", f"--dest={tmp_path}/x.zip", *options
    )
    assert done.returncode == 2
    assert word in done.stderr


def cifar(path: Path, payload: object = None) -> str:
    with tarfile.open(path, "w:gz") as archive:
        for batch in range(1, 6):
            rng = np.random.RandomState(batch)
            content = {"data": rng.randint(0, 256, (2, 3072), np.uint8), "labels": [batch, 0]}
            data = pickle.dumps(payload or content)
            entry = tarfile.TarInfo(f"cifar-10-batches-py/data_batch_{batch}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return str(path)


def test_cifar_10(tmp_path):
    source = cifar(tmp_path / "cifar-10-python.tar.gz")
    assert pack(open_source(source), str(tmp_path / "x.zip"), transform(None, None, None), None, quietly) == 10
    expected = np.random.RandomState(2).randint(0, 256, (2, 3072), np.uint8)[1].reshape(3, 32, 32).transpose(1, 2, 0)
    assert np.array_equal(array(read(tmp_path / "x.zip", "00000/img00000003.png")), expected)
    labels = json.loads(read(tmp_path / "x.zip", "dataset.json"))["labels"]
    assert [label for _, label in labels] == [1, 0, 2, 0, 3, 0, 4, 0, 5, 0]


PIXELS = np.zeros((2, 3072), np.uint8)


@pytest.mark.parametrize(
    "payload",
    [[1], "x", {"data": PIXELS}, {"data": "text", "labels": [0, 1]}, {"data": PIXELS, "labels": 5},
     {"data": PIXELS, "labels": [0]}, {"data": PIXELS, "labels": [0, 1, 2]}, {"data": PIXELS, "labels": [0, "a"]},
     {"data": PIXELS.astype(float), "labels": [0, 1]}, {"data": PIXELS[:, :3000], "labels": [0, 1]}],
)  # fmt: skip
def test_batches_of_cifar_10_that_hold_something_else_are_told(tmp_path, payload):
    source = cifar(tmp_path / "cifar-10-python.tar.gz", payload)
    with pytest.raises(DataError, match=r"cifar-10-python.*data_batch_1 does not hold images with a class number each"):
        open_source(source)


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_pickle_that_wants_to_run_something_is_refused(tmp_path):
    with pytest.raises(DataError, match="mkdir"):
        open_source(cifar(tmp_path / "cifar-10-python.tar.gz", Evil(tmp_path / "evil")))
    assert not (tmp_path / "evil").exists()


def test_mnist_is_padded_to_32_pixels(tmp_path):
    images = np.random.RandomState(0).randint(0, 256, (3, 28, 28), np.uint8)
    with gzip.open(tmp_path / "train-images-idx3-ubyte.gz", "wb") as file:
        file.write(struct.pack(">4I", 2051, 3, 28, 28) + images.tobytes())
    with gzip.open(tmp_path / "train-labels-idx1-ubyte.gz", "wb") as file:
        file.write(struct.pack(">2I", 2049, 3) + bytes([7, 0, 9]))
    source = open_source(str(tmp_path / "train-images-idx3-ubyte.gz"))
    pack(source, str(tmp_path / "x.zip"), transform(None, None, None), None, quietly)
    stored = array(read(tmp_path / "x.zip", NEW[2]))
    assert stored.shape == (32, 32)
    assert np.array_equal(stored[2:30, 2:30], images[2])
    assert open_dataset(str(tmp_path / "x.zip"), cond=True).label_dim == 10


def test_sources_of_no_known_kind(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lmdb", None)  # as where it is not installed
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"cifar-10-python.tar.gz is damaged"):
        open_source(str(tmp_path / "cifar-10-python.tar.gz"))
    (tmp_path / "x.rar").write_bytes(b"")
    with pytest.raises(DataError, match="no known kind"):
        open_source(str(tmp_path / "x.rar"))
    (tmp_path / "bedroom_lmdb").mkdir()
    with pytest.raises(DataError, match="pip install lmdb"):
        open_source(str(tmp_path / "bedroom_lmdb"))


def test_an_unknown_filter_is_told():
    with pytest.raises(ConfigError, match="cubic"):
        transform(None, 4, 4, "cubic")


def test_classes_are_folders_sorted_by_name(tmp_path):
    entries = {"wild/b.png": picture(0), "cat/x/a.png": picture(1), "dog/c.jpg": picture(2, kind="JPEG"), "d.png": b""}
    source = unpacked(tmp_path / "s", entries)
    done = app("dataset_labels", f"--source={source}/", f"--out={source}/dataset.json")
    assert done.returncode == 0, done.stderr
    listed = json.loads((tmp_path / "s/dataset.json").read_text())
    assert listed == {"labels": [["cat/x/a.png", 0], ["dog/c.jpg", 1], ["wild/b.png", 2]]}
    (tmp_path / "s/d.png").unlink()
    assert open_dataset(source, cond=True).label_dim == 3
    done = app("dataset_labels", f"--source={source}", f"--out={tmp_path}/s/cat/x/a.png/dataset.json")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"error: cannot write .*a\.png/dataset\.json: .*\n", done.stderr)


def test_small_images_can_be_left_out(tmp_path):
    source = unpacked(
        tmp_path / "s", {"a/0.png": picture(0), "a/1.png": picture(1, 16), "b/2.png": picture(2, 16, height=9)}
    )
    assert class_labels(source, 9)[1] == [("a/1.png", 0), ("b/2.png", 1)]
    with pytest.raises(DataError, match="no folders"):
        class_labels(unpacked(tmp_path / "t", {"a.png": picture(0)}))
