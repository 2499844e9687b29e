"""Images with maps beside them."""

import io
import re

import numpy as np
import pytest
import torch
from PIL import Image

from dnnlib.errors import DataError
from tests.data.files import numbered, packed, picture
from training.data.opening import open_dataset


def label_map(seed: int, classes: int = 4, side: int = 8) -> bytes:
    data = io.BytesIO()
    Image.fromarray(np.random.RandomState(seed).randint(0, classes, (side, side), np.uint8)).save(data, format="PNG")
    return data.getvalue()


def values(data: bytes) -> torch.Tensor:
    return torch.from_numpy(np.array(Image.open(io.BytesIO(data))))[None]


def two(tmp_path, maps: dict[str, bytes], images: dict[str, bytes] | None = None, **content):
    return packed(tmp_path / "images.zip", images or numbered(3)), packed(tmp_path / "maps.zip", maps, **content)


def test_maps_are_paired_by_name_without_ending(tmp_path):
    maps = {name: label_map(i) for i, name in enumerate(numbered(3))}
    path, beside = two(tmp_path, maps, {name.replace(".png", ".jpg"): picture(kind="JPEG") for name in maps})
    data = open_dataset(path, labels=beside)
    assert data.num_classes == 4
    assert all(torch.equal(data.sample(i).label_map, values(maps[name])) for i, name in enumerate(maps))


def test_other_names_are_paired_in_order_with_a_warning(tmp_path):
    maps = {f"m{i}.png": label_map(i) for i in range(3)}
    path, beside = two(tmp_path, maps)
    with pytest.warns(UserWarning, match="sorted order"):
        data = open_dataset(path, labels=beside, subset=2)
    order = [int(name[-5]) for name in data.images]
    assert all(torch.equal(data.sample(i).label_map, values(maps[f"m{n}.png"])) for i, n in enumerate(order))


def test_counts_must_agree(tmp_path):
    path, beside = two(tmp_path, {"m0.png": label_map(0)})
    with pytest.raises(DataError, match=r"maps.zip.*img00000000.png.*1 maps for 3 images"):
        open_dataset(path, labels=beside)


def test_mirror_flips_the_map_too(tmp_path):
    path, beside = two(tmp_path, {name: label_map(i) for i, name in enumerate(numbered(3))})
    data = open_dataset(path, labels=beside, mirror=True)
    assert torch.equal(data.sample(5).label_map, data.sample(2).label_map.flip(2))


def test_maps_follow_the_images_size_without_new_values(tmp_path):
    path, beside = two(tmp_path, {name: label_map(i) for i, name in enumerate(numbered(3))})
    data = open_dataset(path, labels=beside, resolution=4)
    assert torch.equal(data.sample(1).label_map, values(label_map(1))[:, ::2, ::2])


def test_the_maps_own_json_names_kind_and_classes(tmp_path):
    maps = {name: label_map(i) for i, name in enumerate(numbered(3))}
    path, beside = two(tmp_path, maps, kind="labels", classes=list("abcdef"))
    assert open_dataset(path, labels=beside).num_classes == 6
    path, beside = two(tmp_path, {name: picture(i, mode="L") for i, name in enumerate(maps)}, kind="edges")
    data = open_dataset(path, labels=beside)
    assert data.num_classes == 1
    assert torch.equal(data.sample(2).label_map, values(picture(2, mode="L")))


def test_depth_maps_are_sixteen_bit_steps_of_a_unit(tmp_path):
    maps = {name: picture(i, mode="I;16") for i, name in enumerate(numbered(3))}
    path, beside = two(tmp_path, maps, kind="depth", unit=0.001)
    sample = open_dataset(path, labels=beside).sample(1)
    expected = torch.from_numpy(np.array(Image.open(io.BytesIO(picture(1, mode="I;16")))).astype(np.float32)) * 0.001
    torch.testing.assert_close(sample.depth[0], expected)
    assert sample.label_map is None


@pytest.mark.parametrize(
    ("bad", "content", "word"),
    [(label_map(1, classes=200), {"classes": ["a", "b", "c", "d"]}, "4 classes"), (picture(1), {}, "one channel"),
     (label_map(1, side=16), {}, "16x16"), (label_map(1)[:50], {}, "truncated"), (b"x", {}, "no picture")],
)  # fmt: skip
def test_bad_maps_are_told(tmp_path, bad, content, word):
    names = list(numbered(3))
    path, beside = two(tmp_path, {names[0]: label_map(0), names[1]: bad, names[2]: label_map(2)}, **content)
    with pytest.raises(DataError, match=word) as caught:
        open_dataset(path, labels=beside)
    assert "maps.zip" in str(caught.value)
    assert names[1] in str(caught.value)


def test_an_unknown_kind_is_told(tmp_path):
    path, beside = two(tmp_path, {name: label_map(i) for i, name in enumerate(numbered(3))}, kind="normals")
    with pytest.raises(DataError, match="normals"):
        open_dataset(path, labels=beside)


@pytest.mark.parametrize("kind", ["labels", "depth"])
@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [("unit", "abc", "'abc'"), ("unit", [1], "[1]"), ("unit", None, "None"), ("unit", float("nan"), "nan"),
     ("unit", True, "True"), ("unit", 0, "0"), ("unit", 1e39, "1e+39"), ("unit", 10**400, "1000"),
     ("classes", 5, "5"), ("classes", None, "None"), ("classes", "abc", "'abc'")],
)  # fmt: skip
def test_what_the_maps_say_of_themselves_is_checked(tmp_path, kind, key, value, shown):
    path, beside = two(tmp_path, {name: picture(i, mode="I;16") for i, name in enumerate(numbered(3))}, **{
        "kind": kind, key: value
    })  # fmt: skip
    with pytest.raises(DataError, match=f'maps.zip: dataset.json: "{key}" is {re.escape(shown)}'):
        open_dataset(path, labels=beside)


def test_a_missing_archive_is_told(tmp_path):
    with pytest.raises(DataError, match=r"nowhere.zip does not exist"):
        open_dataset(packed(tmp_path / "images.zip", numbered(1)), labels=str(tmp_path / "nowhere.zip"))
