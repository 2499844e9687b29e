import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from torch import Tensor

import generate
from dnnlib.errors import ConfigError
from tests.toy_sphere import Ball, BallGenerator, FlatGenerator
from training.contracts import CameraRig, Codes, PointOutput, RenderOptions
from training.layers.fields import TriplaneField
from training.programs.shapes import cube_side
from training.rendering.rays import camera_rays
from training.snapshot import OpenedNetwork


class FoggyBall(BallGenerator):
    """Matter that thickens by 1 every 0.002 units within the ball of a seed's radius, and within a speck beside it."""

    def query(self, scene: Ball, points: Tensor, directions: Tensor | None = None) -> PointOutput:
        speck = 0.05 - (points - torch.tensor([0.5, 0.0, 0.0])).norm(dim=-1)
        raw = torch.maximum(scene.radius[:, None] - points.norm(dim=-1), speck) / 0.002
        return PointOutput(raw_density=raw, density=raw.relu(), colour=scene.tint[:, None].expand_as(points))


class Thin(FoggyBall):
    def query(self, scene: Ball, points: Tensor, directions: Tensor | None = None) -> PointOutput:
        out = super().query(scene, points)
        return replace(out, density=out.density / 1e4)


class Diverged(FoggyBall):
    def scene(self, codes: Codes, options: RenderOptions) -> Ball:
        return super().scene(codes, options).map(lambda t: t * math.nan)


RIG = CameraRig(radius=2.7, focal=3.0)


def call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *line: str, G: object = None) -> list[str]:
    """Run generate.py with seed 3; the names of the files in its folder."""
    opened = OpenedNetwork(G or FoggyBall(), RIG, {"dataset": {"label_dim": 0}}, 0)
    monkeypatch.setattr("training.snapshot.open_network", lambda path, device: opened)
    words = ["generate.py", "--device=cpu", "--network=toy", f"--outdir={tmp_path}", "--seeds=3", *line]
    monkeypatch.setattr(sys, "argv", words)
    generate.main()
    return sorted(path.name for path in tmp_path.iterdir())


def codes(seed: int = 3) -> np.ndarray:
    return np.random.RandomState(seed).randn(3)


def radius(seed: int = 3) -> float:
    return 0.3 + 0.1 / (1 + math.exp(-codes(seed)[0]))


def test_a_seed_gets_its_mesh_beside_its_picture(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys):
    names = call(monkeypatch, tmp_path, "--shapes=True", "--shape-res=48", "--shape_format=ply, glb")
    assert names == ["seed0003.glb", "seed0003.ply", "seed0003.png"]
    mesh = trimesh.load(tmp_path / "seed0003.ply", process=False)
    depth = radius() - np.linalg.norm(mesh.vertices, axis=1)
    level = math.sqrt(2 * math.log(2) / 0.002) / 3  # a third of where half of the light is lost
    assert mesh.is_watertight
    assert mesh.body_count == 1
    assert np.abs(depth.mean() - 0.002 * level) < 0.005
    shade = (0.5 * np.tanh(codes()) * 127.5 + 128).astype(int)
    assert np.abs(mesh.visual.vertex_colors[:, :3] - shade).max() <= 1
    (other,) = trimesh.load_scene(tmp_path / "seed0003.glb", process=False).geometry.values()
    assert np.array_equal(other.vertices, mesh.vertices)
    assert f"seed0003: {len(mesh.vertices):,} vertices where the density is 8." in capsys.readouterr().out


def test_the_level_can_be_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    call(monkeypatch, tmp_path, "--shapes", "--shape-res=48", "--shape-level=50")
    mesh = trimesh.load(tmp_path / "seed0003.ply", process=False)
    assert np.linalg.norm(mesh.vertices, axis=1) == pytest.approx(radius() - 0.1, abs=1e-3)


def test_densities_need_no_level(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys):
    names = call(monkeypatch, tmp_path, "--shapes", "--shape-res=9", "--shape-format=mrc", G=Thin())
    assert names == ["seed0003.mrc", "seed0003.png"]
    grid = np.frombuffer((tmp_path / "seed0003.mrc").read_bytes()[1024:], "<f4").reshape(9, 9, 9)
    assert grid[4, 4, 4] == pytest.approx(radius() / 0.002 / 1e4)
    assert "densities from 0 to 0.0" in capsys.readouterr().out


def test_a_shape_is_the_same_each_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    for folder in ("a", "b"):
        call(monkeypatch, tmp_path / folder, "--shapes", "--shape-res=24", "--shape-format=ply,glb,mrc")
    for name in ("seed0003.ply", "seed0003.glb", "seed0003.mrc"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize(
    ("line", "G", "complaint"),
    [
        (["--shapes"], FlatGenerator(), "no field of densities"),
        (["--shapes", "--render-program=orbit"], FoggyBall(), "leave --render-program out"),
        (["--shape-res=32"], FoggyBall(), "belong to --shapes: add it"),
        (["--shapes", "--shape-res=2000"], FoggyBall(), "2000 must be a whole number from 8 to 1024"),
        (["--shapes", "--shape-res=1e3"], FoggyBall(), "not a whole number"),
        (["--shapes", "--shape-format=glp"], FoggyBall(), "no format glp; did you mean glb"),
        (["--shapes", "--shape-level=0"], FoggyBall(), "a finite number above 0"),
        (["--shapes", "--shape-level=nan"], FoggyBall(), "a finite number above 0"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_written(
    line: list[str], G: object, complaint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    with pytest.raises(ConfigError, match=complaint):
        call(monkeypatch, tmp_path, *line, G=G)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("line", "G", "complaint"),
    [
        ([], Thin(), r"seed 3 is so thin that no light.*its densities go from 0 to 0\.0\d+, give --shape-level"),
        (["--shape-level=300"], FoggyBall(), r"seed 3 has no surface where the density is 300: .*from 0 to 1\d\d"),
        ([], Diverged(), "densities of seed 3 are no finite numbers"),
    ],
)
def test_a_surface_that_is_not_there(
    line: list[str], G: object, complaint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    with pytest.raises(ConfigError, match=complaint):
        call(monkeypatch, tmp_path, "--shapes", "--shape-res=17", *line, G=G)
    assert [path.name for path in tmp_path.iterdir()] == ["seed0003.png"]


def test_the_cube_is_as_large_as_the_picture_shows_whole():
    half = cube_side(FoggyBall(), RIG) / 2
    corners = camera_rays(RIG.mean, torch.tensor([[[0.0, 0.0], [1.0, 1.0]]])).directions[0]
    seen = RIG.mean.position + corners * ((-half - RIG.radius) / corners[:, 2:])  # on the plane of the back face
    assert seen.tolist() == [pytest.approx([-half, half, -half]), pytest.approx([half, -half, -half])]


def test_the_cube_is_no_larger_than_the_field_nor_reaches_behind_the_camera():
    model = FoggyBall()
    assert cube_side(model, CameraRig(radius=2, focal=0.1)) == 4
    model.field = TriplaneField(features=1, hidden=1, colours=3, box_side=0.5)
    assert cube_side(model, RIG) == 0.5
