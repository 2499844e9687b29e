import resource
from pathlib import Path

import numpy as np
import pytest
import trimesh

from dnnlib.errors import ConfigError
from torch_utils.mesh_files import ColouredMesh, write_glb, write_mrc, write_ply


@pytest.fixture
def pyramid() -> ColouredMesh:
    """Four corners whose normals and colours follow from nothing else in it."""
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 3]], np.float32)
    normals = np.array([[0, 0, -1], [1, 0, 0], [0, 1, 0], [0.6, 0, 0.8]], np.float32)
    colours = np.array([[255, 0, 0], [0, 128, 0], [0, 0, 10], [1, 2, 3]], np.uint8)
    return ColouredMesh(vertices, np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]]), normals, colours)


def test_ply_holds_the_mesh(pyramid: ColouredMesh, tmp_path: Path):
    write_ply(pyramid, tmp_path / "a.ply")
    read = trimesh.load(tmp_path / "a.ply", process=False)
    assert np.array_equal(read.vertices, pyramid.vertices)
    assert np.array_equal(read.faces, pyramid.faces)
    assert np.array_equal(read.vertex_normals.astype(np.float32), pyramid.normals)
    assert np.array_equal(read.visual.vertex_colors[:, :3], pyramid.colours)
    assert read.volume == 1


def test_glb_holds_the_mesh_with_colours_in_linear_light(pyramid: ColouredMesh, tmp_path: Path):
    write_glb(pyramid, tmp_path / "a.glb")
    (read,) = trimesh.load_scene(tmp_path / "a.glb", process=False).geometry.values()
    assert np.array_equal(read.vertices, pyramid.vertices)
    assert np.array_equal(read.faces, pyramid.faces)
    assert np.array_equal(read.vertex_normals.astype(np.float32), pyramid.normals)
    assert read.visual.material.metallicFactor == 0  # else viewers without surroundings show black
    linear = read.visual.vertex_attributes["color"]
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)  # IEC 61966-2-1
    assert np.abs(255 * srgb - pyramid.colours).max() < 1e-3
    assert linear[1, 1] == pytest.approx(0.2158605)


def test_glb_is_made_of_chunks_as_the_standard_says(pyramid: ColouredMesh, tmp_path: Path):
    write_glb(pyramid, tmp_path / "a.glb")
    data = (tmp_path / "a.glb").read_bytes()
    words = np.frombuffer(data[:20], "<u4").tolist()
    assert words == [0x46546C67, 2, len(data), words[3], 0x4E4F534A]  # "glTF", version, length, JSON
    assert words[3] % 4 == 0
    assert np.frombuffer(data[20 + words[3] :][:8], "<u4").tolist() == [len(data) - 28 - words[3], 0x004E4942]


def test_mrc_is_laid_out_as_mrc2014_says(tmp_path: Path):
    grid = np.random.RandomState(0).rand(5, 5, 5).astype(np.float32)
    write_mrc(grid, 0.8, tmp_path / "a.mrc")
    data = (tmp_path / "a.mrc").read_bytes()
    whole, real = np.frombuffer(data[:1024], "<i4"), np.frombuffer(data[:1024], "<f4")  # words 1 to 256
    assert whole[:10].tolist() == [5, 5, 5, 2, 0, 0, 0, 5, 5, 5]  # NX NY NZ, MODE, starts, MX MY MZ
    assert real[10:16] == pytest.approx([1, 1, 1, 90, 90, 90])  # a cell of five spacings of 0.2
    assert whole[16:19].tolist() == [1, 2, 3]  # MAPC MAPR MAPS
    assert real[19:22] == pytest.approx([grid.min(), grid.max(), grid.mean()])
    assert whole[[22, 23, 27]].tolist() == [1, 0, 20140]  # ISPG, NSYMBT, NVERSION
    assert real[49:52] == pytest.approx([-0.4, -0.4, -0.4])  # ORIGIN
    assert data[208:216] == b"MAP \x44\x44\x00\x00"
    assert real[54] == pytest.approx(grid.std())
    assert whole[55] == 1
    assert data[224:255] == b"density, 1 / scene unit; y is up"[:31]
    assert np.array_equal(np.frombuffer(data[1024:], "<f4").reshape(5, 5, 5), grid)


@pytest.mark.parametrize("write", [write_ply, write_glb])
def test_a_full_disk_leaves_what_was_there(write, pyramid: ColouredMesh, tmp_path: Path):
    (tmp_path / "a.bin").write_text("mine")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(ConfigError, match=r"cannot write .*a\.bin: File too large; free some space"):
            write(pyramid, tmp_path / "a.bin")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]
    assert (tmp_path / "a.bin").read_text() == "mine"
