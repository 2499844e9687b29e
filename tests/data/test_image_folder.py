"""Zips and folders: what is in them comes out."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from dnnlib.errors import DataError
from tests.data.files import camera, numbered, packed, picture, unpacked
from training.contracts import ConditionPool
from training.data.archive import open_archive
from training.data.opening import open_dataset
from training.rendering.cameras import Camera

NAMES = list(numbered(3))


def rows(*values):
    return [[name, value] for name, value in zip(NAMES, values, strict=True)]


def pixels(data: bytes) -> torch.Tensor:
    return torch.from_numpy(np.array(Image.open(io.BytesIO(data)).convert("RGB"))).movedim(2, 0)


@pytest.mark.parametrize("write", [packed, unpacked])
def test_images_come_out_in_the_order_of_their_paths(tmp_path, write):
    entries = {"b/1.png": picture(1), "a/9.png": picture(2), "a/10.jpg": picture(3, kind="JPEG"), "readme.txt": b"hi"}
    data = open_dataset(write(tmp_path / "x.zip", entries))
    assert data.images == ["a/10.jpg", "a/9.png", "b/1.png"]
    assert (data.resolution, data.num_channels, data.label_dim, data.has_cameras) == (8, 3, 0, False)
    assert all(torch.equal(data.sample(i).image, pixels(entries[name])) for i, name in enumerate(data.images))
    assert isinstance(data, ConditionPool)


def test_paths_with_spaces_and_brackets_work(tmp_path):
    (tmp_path / "a b").mkdir()
    assert len(open_dataset(packed(tmp_path / "a b" / "c(1)[2].zip", numbered(2)))) == 2


def test_class_indices_become_one_hot_of_the_largest_plus_one(tmp_path):
    path = packed(tmp_path / "x.zip", numbered(3), labels=rows(0, 3, 1))
    data = open_dataset(path, cond=True)
    assert data.label_dim == 4
    expected = torch.tensor([[0, 1, 0, 0], [0, 0, 0, 1]]).float()
    assert torch.equal(data.conditions(torch.tensor([2, 1])).label, expected)
    assert open_dataset(path).label_dim == 0
    assert open_dataset(path).conditions(torch.tensor([2])).label is None


def test_number_vectors_are_labels_as_they_are(tmp_path):
    data = open_dataset(packed(tmp_path / "x.zip", numbered(3), labels=rows([0, 0.5], [1, 2], [3, 4])), cond=True)
    assert data.label_dim == 2
    assert data.conditions(torch.tensor([0])).label.tolist() == [[0, 0.5]]


def test_25_numbers_are_cameras(tmp_path):
    data = open_dataset(packed(tmp_path / "x.zip", numbered(3), labels=rows(camera(0.1), camera(0.2), camera(0.3))))
    assert data.has_cameras
    known = data.conditions(torch.tensor([1, 2]))
    torch.testing.assert_close(known.camera.label(), torch.tensor([camera(0.2), camera(0.3)]))
    assert known.label is None


def test_cameras_may_stand_beside_classes(tmp_path):
    views = rows(camera(0.1), camera(0.2), camera(0.3))
    data = open_dataset(packed(tmp_path / "x.zip", numbered(3), labels=rows(0, 1, 1), cameras=views), cond=True)
    known = data.conditions(torch.tensor([2]))
    assert known.label.tolist() == [[0, 1]]
    torch.testing.assert_close(known.camera.label()[0], torch.tensor(camera(0.3)))


def test_unused_class_labels_may_be_incomplete(tmp_path):
    path = packed(tmp_path / "x.zip", numbered(3), labels=[[NAMES[0], 1]])
    assert len(open_dataset(path)) == 3
    with pytest.raises(DataError, match=NAMES[1]):
        open_dataset(path, cond=True)


def test_mirror_flips_image_and_camera_together(tmp_path):
    path = packed(tmp_path / "x.zip", numbered(3), labels=rows(camera(0.1), camera(0.2), camera(0.3)))
    data = open_dataset(path, mirror=True)
    assert len(data) == 6
    assert torch.equal(data.sample(4).image, data.sample(1).image.flip(2))
    both = data.conditions(torch.tensor([1, 4])).camera
    torch.testing.assert_close(both[1:].label(), Camera.from_label(torch.tensor([camera(0.2)])).mirrored().label())
    torch.testing.assert_close(both.angles()[0], torch.tensor([0.2, -0.2]))


def test_resolution_resizes_on_load_even_mixed_sizes(tmp_path):
    entries = {"a.png": picture(1, side=16), "b.png": picture(2, side=4), "c.png": picture(3, side=8)}
    data = open_dataset(packed(tmp_path / "x.zip", entries), resolution=8)
    assert data.resolution == 8
    averaged = torch.nn.functional.avg_pool2d(pixels(entries["a.png"]).float(), 2)
    assert (data.sample(0).image - averaged).abs().max() <= 1
    assert torch.equal(data.sample(2).image, pixels(entries["c.png"]))
    assert data.sample(1).image.shape == (3, 8, 8)


def test_subsets_are_those_of_the_reference(tmp_path):
    data = open_dataset(packed(tmp_path / "x.zip", numbered(10)), subset=4, subset_seed=3)
    order = np.arange(10)
    np.random.RandomState(3).shuffle(order)
    assert data.images == [f"00000/img{i:08d}.png" for i in sorted(order[:4])]


def test_grey_and_transparent_images(tmp_path):
    grey = open_dataset(packed(tmp_path / "g.zip", numbered(2, mode="L")))
    assert grey.num_channels == 1
    assert grey.sample(1).image.shape == (1, 8, 8)
    clear = open_dataset(packed(tmp_path / "c.zip", numbered(2, mode="RGBA")))
    assert clear.num_channels == 3


def test_what_macos_leaves_in_zips_is_no_image(tmp_path):
    assert len(open_dataset(packed(tmp_path / "x.zip", {**numbered(2), "__MACOSX/00000/._img00000000.png": b"x"}))) == 2


def test_every_process_has_a_handle_of_its_own(tmp_path, monkeypatch):
    archive = open_archive(packed(tmp_path / "x.zip", numbered(2)))
    mine = archive.read(NAMES[0])
    assert len(archive._handles) == 1
    monkeypatch.setattr("os.getpid", lambda: -1)  # as after a fork
    assert archive.read(NAMES[0]) == mine
    assert len(archive._handles) == 2
