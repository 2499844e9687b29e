"""What is wrong with a zip or folder is told in one sentence that names file and entry."""

import io
import os
import struct
import zipfile
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from dnnlib.errors import ConfigError, DataError
from tests.data.files import camera, numbered, packed, picture, unpacked
from training.data.image_folder import ImageFolder
from training.data.opening import open_dataset

NAMES = list(numbered(3))


def rows(*values):
    return [[name, value] for name, value in zip(NAMES, values, strict=True)]


def pixels(data: bytes) -> torch.Tensor:
    return torch.from_numpy(np.array(Image.open(io.BytesIO(data)).convert("RGB"))).movedim(2, 0)


def told(path, *words, **settings):
    """open_dataset(path) raises a DataError of one line with all these words in it."""
    with pytest.raises(DataError) as caught:
        open_dataset(str(path), **settings)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.endswith((".", "?"))
    assert all(word in sentence for word in words), sentence


def with_bad(tmp_path, data: bytes, name: str = NAMES[1], **options):
    return packed(tmp_path / "bad.zip", {**numbered(3), name: data}, **options)


def test_missing_path(tmp_path):
    told(tmp_path / "nowhere.zip", "nowhere.zip", "does not exist")


def test_not_a_zip(tmp_path):
    (tmp_path / "x.zip").write_text("no zip")
    told(tmp_path / "x.zip", "x.zip", "no zip")


def test_a_pipe_is_not_waited_for(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "x.zip")
    monkeypatch.setattr("zipfile.is_zipfile", lambda _: pytest.fail("it would wait here for ever"))
    told(tmp_path / "x.zip", "x.zip", "no zip")


def test_zip_cut_short(tmp_path):
    path = tmp_path / "x.zip"
    packed(path, numbered(3))
    path.write_bytes(path.read_bytes()[:-200])
    told(path, "x.zip", "cut short")


def test_no_images(tmp_path):
    told(packed(tmp_path / "x.zip", {"readme.txt": b""}), "x.zip", "no images")
    (tmp_path / "empty").mkdir()
    told(tmp_path / "empty", "empty", "no images")


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("keep", [20, 60, -20])
def test_truncated_png(tmp_path, keep, compression):
    told(with_bad(tmp_path, picture(1)[:keep], compression=compression), "bad.zip", NAMES[1])


def test_truncated_png_in_a_folder(tmp_path):
    told(unpacked(tmp_path / "d", {**numbered(3), NAMES[2]: picture(2)[:-20]}), NAMES[2], "truncated")


def test_damaged_pixels_of_a_png_with_sound_ends(tmp_path):
    data = bytearray(picture(1, side=32))
    data[100:140] = b"\0" * 40
    told(packed(tmp_path / "bad.zip", {"a.png": picture(0, side=32), "b.png": bytes(data)}), "bad.zip", "b.png")


def test_truncated_jpeg(tmp_path):
    entries = {"a.jpg": picture(0, 64, kind="JPEG"), "b.jpg": picture(1, 64, kind="JPEG")[:900]}
    told(packed(tmp_path / "bad.zip", entries), "b.jpg", "truncated")


def test_not_an_image(tmp_path):
    told(with_bad(tmp_path, b"I am no picture"), NAMES[1], "no picture")


def test_a_zip_entry_whose_bytes_rotted(tmp_path):
    path = tmp_path / "x.zip"
    packed(path, {"a.bmp": picture(0, kind="BMP"), "b.bmp": picture(1, kind="BMP")})
    data = bytearray(path.read_bytes())
    data[data.index(picture(1, kind="BMP")) + 100] ^= 255
    path.write_bytes(data)
    told(path, "x.zip", "b.bmp")


def test_mixed_sizes(tmp_path):
    told(with_bad(tmp_path, picture(1, side=16)), NAMES[1], "16x16", "8 px", "resolution=8")


def test_not_square(tmp_path):
    told(packed(tmp_path / "x.zip", numbered(2, height=4)), "8x4", "not square", "center-crop")


def test_sixteen_bit_pixels(tmp_path):
    told(with_bad(tmp_path, picture(1, mode="I;16")), NAMES[1], "8-bit")


def test_colour_among_grey(tmp_path):
    told(packed(tmp_path / "x.zip", {**numbered(2, mode="L"), "z.png": picture(3)}), "z.png", "grey")


def test_path_traversal(tmp_path):
    for name in ("../evil.png", "/etc/evil.png", "a/../../evil.png", "C:/evil.png"):
        told(with_bad(tmp_path, picture(1), name=name), "bad.zip", name, "outside")


def test_decompression_bombs(tmp_path):
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + picture(0)[33:]
    told(with_bad(tmp_path, bomb), NAMES[1], "100000x100000")
    packed(tmp_path / "z.zip", {"a.png": bytes(2**28 + 1)}, compression=zipfile.ZIP_DEFLATED)
    told(tmp_path / "z.zip", "z.zip", "a.png", "MiB")


def test_labels_that_are_no_json(tmp_path):
    told(packed(tmp_path / "x.zip", {**numbered(2), "dataset.json": b"{"}), "x.zip", "dataset.json", "no JSON")
    told(packed(tmp_path / "y.zip", {**numbered(2), "dataset.json": b"[1]"}), "dataset.json", "object")
    deep = b'{"labels": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    told(packed(tmp_path / "z.zip", {**numbered(2), "dataset.json": deep}), "z.zip: dataset.json", "no JSON", "depth")


@pytest.mark.parametrize("labels", [[1, 2, 3], [[NAMES[0]]], {"a": 1}, "abc", [[0, NAMES[0]]]])
def test_malformed_labels(tmp_path, labels):
    told(packed(tmp_path / "x.zip", numbered(3), labels=labels), "x.zip", "dataset.json", "[name, value]")


def test_no_labels_for_cond(tmp_path):
    told(packed(tmp_path / "x.zip", numbered(3)), "x.zip", "no class labels", cond=True)
    told(packed(tmp_path / "y.zip", numbered(3), labels=rows(*[camera()] * 3)), "cameras", "cond", cond=True)


@pytest.mark.parametrize(
    ("values", "bad", "word"),
    [((0, 1, -1), 2, "-1"), ((0, 1, 10**9), 2, "range"),
     ((0, 1, 10**400), 2, "...0000000000000000000, out of"), ((0, 1, 2.5), 2, "2.5"), ((0, 1, [1.0]), 2, "[1.0]"),
     ((0, None, 1), 1, "None"), (([1, 2], [1, 2, 3], [1, 2]), 1, "3 numbers"), (([1], 4, [2]), 1, "4"),
     (([1, 2], [1, "a"], [1, 2]), 1, "'a'"), (([1.0], [float("nan")], [2.0]), 1, "NaN"),
     (([1.0], [10**400], [2.0]), 1, "as large"), (([1.0], [-1e39], [2.0]), 1, "-1e+39")],
)  # fmt: skip
def test_wrong_class_labels(tmp_path, values, bad, word):
    path = packed(tmp_path / "x.zip", numbered(3), labels=rows(*values))
    told(path, "x.zip", "dataset.json", NAMES[bad], word, cond=True)


def changed(index: int, value: float) -> list[float]:
    label = camera()
    label[index] = value
    return label


@pytest.mark.parametrize(
    ("label", "word"),
    [(changed(0, 0.5), "rotation"), ([-x if i % 4 == 0 and i < 12 else x for i, x in enumerate(camera())], "rotation"),
     (changed(15, 0.0), "rotation"), (changed(16, 2985.29), "pixels"), (changed(18, 256.0), "pixels"),
     (changed(16, -1.0), "pinhole"), (changed(24, 0.0), "pinhole"), (changed(3, float("inf")), "NaN or infinity"),
     (camera()[:24], "24 numbers"), (1, "25 numbers"), (None, "25 numbers")],
)  # fmt: skip
def test_wrong_cameras(tmp_path, label, word):
    told(packed(tmp_path / "x.zip", numbered(3), labels=rows(camera(), label, camera())), "x.zip", NAMES[1], word)
    views = rows(camera(), label, camera())
    told(packed(tmp_path / "y.zip", numbered(3), labels=rows(0, 1, 1), cameras=views), "y.zip", NAMES[1], word)


def test_an_image_without_camera(tmp_path):
    told(packed(tmp_path / "x.zip", numbered(3), labels=rows(*[camera()] * 3)[:2]), "x.zip", NAMES[2], "2 entries")


def test_insisting_on_cameras(tmp_path):
    told(packed(tmp_path / "x.zip", numbered(3)), "no cameras", "no dataset.json", cameras=True)
    path = packed(tmp_path / "y.zip", numbered(3), labels=rows([1] * 24, [1] * 24, [1] * 24))
    told(path, "24 numbers", "25", cameras=True)
    path = packed(tmp_path / "z.zip", numbered(3), labels=rows(*[camera()] * 3))
    assert not open_dataset(path, cameras=False).has_cameras


def test_unknown_settings_are_told(tmp_path):
    with pytest.raises(ConfigError, match=r"no setting poses.*subset_seed"):
        open_dataset(packed(tmp_path / "x.zip", numbered(1)), poses="face")


@pytest.mark.parametrize(
    ("setting", "value", "wanted"),
    [("cache", "maybe", "true or false or null"), ("cache", 1, "true"), ("cameras", 0, "true or false"),
     ("subset_seed", "a", "a whole number"), ("subset_seed", 1.5, "a whole number"),
     ("kind", "x", "labels, edges, depth or null"), ("num_classes", "a", "a whole number or null")],
)  # fmt: skip
def test_settings_of_another_type_are_told(tmp_path, setting, value, wanted):
    path = packed(tmp_path / "x.zip", numbered(1))
    with pytest.raises(ConfigError, match=rf"x\.zip wants {wanted}.* for {setting}, not {value}\.$"):
        open_dataset(path, labels=path, **{setting: value})


def test_settings_of_critters_have_types_too():
    with pytest.raises(ConfigError, match="data=critters wants true or false for depth, not no"):
        open_dataset("critters", depth="no")


def test_items_out_of_range(tmp_path):
    with pytest.raises(IndexError):
        ImageFolder(packed(tmp_path / "x.zip", numbered(2))).sample(2)
