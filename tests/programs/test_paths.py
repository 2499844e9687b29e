"""Every camera path against the formula that its reference publishes, written in the reference's own axes."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from dnnlib.errors import ConfigError, DataError
from training.build import build
from training.contracts import Camera, CameraRig, Codes
from training.programs.camera_file import CameraFile
from training.programs.load import load_program, program_names

FACE = CameraRig(radius=1.0, focal=4.757, yaw_spread=0.3, pitch_spread=0.155)
TILTED = CameraRig(
    radius=2.0, focal=1.5, kind="uniform", yaw_mean=0.4, yaw_spread=0.7, pitch_mean=0.2, pitch_spread=0.3
)
LOOPS = ["orbit", "rotation_camera3", "rotation_both", "trajectory_front", "trajectory_orbit"]


def cameras(name: str, rig: CameraRig = FACE, **options: object) -> list[Camera]:
    node = load_program(name, [(key, str(value)) for key, value in options.items()])
    return [shot.camera for shot in build(node, where=name).shots([Codes()], rig)]


def positions(path: list[Camera]) -> np.ndarray:
    return torch.cat([camera.position for camera in path]).double().numpy()


def poses(path: list[Camera]) -> np.ndarray:
    return torch.cat([camera.cam2world for camera in path]).double().numpy()


def looking_at_origin(eyes: np.ndarray, up: tuple[float, float, float]) -> np.ndarray:
    """OpenGL cam2world (right, up, back, eye) of cameras that look at the origin."""
    back = eyes / np.linalg.norm(eyes, axis=1, keepdims=True)
    right = np.cross(up, back)
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    world = np.tile(np.eye(4), (len(eyes), 1, 1))
    world[:, :3] = np.stack([right, np.cross(back, right), back, eyes], axis=2)
    return world


def from_stylenerf(theta: np.ndarray, phi: np.ndarray, radius: float) -> np.ndarray:
    """OpenCV cam2world in our world of StyleNeRF's camera: z up there, y up here, the front is +x there and +z here."""
    eyes = radius * np.stack([np.sin(phi) * np.cos(theta), np.sin(phi) * np.sin(theta), np.cos(phi)], axis=1)
    z_up = looking_at_origin(eyes, (0, 0, 1)) @ np.diag([1, -1, -1, 1])
    return np.array([[0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]]) @ z_up


def from_pigan(theta: np.ndarray, phi: np.ndarray) -> np.ndarray:
    eyes = np.stack([np.sin(phi) * np.cos(theta), np.cos(phi), np.sin(phi) * np.sin(theta)], axis=1)
    return looking_at_origin(eyes, (0, 1, 0)) @ np.diag([1, -1, -1, 1])


@pytest.mark.parametrize(("steps", "scale"), [(8, 1.0), (5, 0.5), (1, 1.0)])
def test_rotation_camera_is_stylenerfs_sweep(steps: int, scale: float):
    u = np.linspace(0.5 - scale / 2, 0.5 + scale / 2, steps)
    theta = TILTED.yaw_mean + TILTED.yaw_spread * (2 * u - 1)
    phi = np.full(steps, math.pi / 2 - TILTED.pitch_mean)
    ours = cameras("rotation_camera", TILTED, frames=steps, relative_range_u_scale=scale)
    assert np.abs(poses(ours) - from_stylenerf(theta, phi, 2.0)).max() < 1e-6


@pytest.mark.parametrize("name", ["rotation_camera3", "rotation_both"])
def test_rotation_camera3_is_stylenerfs_circle(name: str):
    t = np.linspace(0, 1, 36)
    theirs = from_stylenerf(0.4 * np.sin(t * 2 * np.pi), 0.2 * np.cos(t * 2 * np.pi) + np.pi / 2, 1.0)
    assert np.abs(poses(cameras(name)) - theirs).max() < 1e-6


def test_rotation_grid_is_stylenerfs_grid():
    places = [(a, b) for b in np.linspace(-0.2, 0.2, 3) * -1 for a in np.linspace(-0.4, 0.4, 6)]
    theirs = [(np.cos(b) * np.sin(a), np.sin(b), np.cos(b) * np.cos(a)) for a, b in places]
    assert np.abs(positions(cameras("rotation_grid")) - theirs).max() < 1e-6


def test_rotation_camera_grid_goes_round_at_three_heights():
    cars = CameraRig(radius=1.0, focal=3.0, kind="uniform", yaw_spread=math.pi, pitch_mean=0.3, pitch_spread=0.2)
    u, v = np.tile(np.arange(60) / 59 - 1, 3), np.repeat([0.15, 0.5, 1.05], 60)
    phi = math.pi / 2 - 0.3 + 0.2 * (2 * v - 1)  # of a range from the top of the rig down
    theirs = from_stylenerf(-math.pi + 2 * math.pi * u, phi, 1.0)
    assert np.abs(poses(cameras("rotation_camera_grid", cars)) - theirs).max() < 2e-6


def test_a_sphere_rig_spreads_heights_evenly():
    globe = CameraRig(radius=1.0, focal=1.0, kind="sphere")
    heights = [positions(cameras("rotation_camera", globe, frames=1, heights=[v]))[0, 1] for v in (0.1, 0.5, 0.8)]
    assert heights == pytest.approx([0.8, 0.0, -0.6], abs=1e-6)


def test_orbit_is_the_path_of_eg3ds_videos():
    f = np.arange(120) / 120
    h, v = np.pi / 2 + 0.35 * np.sin(2 * np.pi * f), np.pi / 2 - 0.05 + 0.25 * np.cos(2 * np.pi * f)
    phi = np.arccos(1 - 2 * v / np.pi)
    theirs = np.stack([np.sin(phi) * np.cos(np.pi - h), np.cos(phi), np.sin(phi) * np.sin(np.pi - h)], axis=1)
    assert np.abs(positions(cameras("orbit")) - theirs).max() < 4e-4  # half of what EG3D's 3.14 for pi is off


def test_orbit_swings_around_the_mean_of_the_rig():
    yaw, pitch = zip(*(camera.angles() for camera in cameras("orbit", TILTED)), strict=True)
    assert torch.cat(yaw).mean().item() == pytest.approx(0.4, abs=1e-5)
    assert torch.cat(pitch).mean().item() == pytest.approx(0.232, abs=1e-5)


@pytest.mark.parametrize(("name", "shape"), [("trajectory_front", "front"), ("trajectory_orbit", "orbit")])
def test_trajectories_are_pigans(name: str, shape: str):
    t = np.linspace(0, 1, 36)
    if shape == "front":
        theta, phi = np.pi / 2 + 0.4 * np.sin(2 * np.pi * t), np.pi / 2 + 0.2 * np.cos(2 * np.pi * t)
        focal = 0.5 / np.tan(np.radians(17 + 5 * np.sin(2 * np.pi * t)) / 2)
    else:
        theta, phi, focal = 2 * np.pi * t, np.full(36, np.pi / 4), np.full(36, FACE.focal)
    ours = cameras(name)
    assert np.abs(poses(ours) - from_pigan(theta, phi)).max() < 2e-6
    assert [camera.intrinsics[0, 0, 0].item() for camera in ours] == pytest.approx(focal, rel=1e-5)


@pytest.mark.parametrize("name", LOOPS)
def test_loops_close_without_a_jump(name: str):
    path = positions(cameras(name))
    steps = np.linalg.norm(np.diff(path, axis=0, append=path[:1]), axis=1)
    assert steps[-1] <= steps[:-1].max() * 1.01


def test_every_seed_keeps_its_scene_for_all_its_cameras():
    program = build(load_program("rotation_camera3"), where="program")
    scenes = [shot.scene for shot in program.shots([Codes(), Codes()], FACE)]
    assert scenes == [scenes[0]] * 36 + [scenes[-1]] * 36
    assert scenes[0] != scenes[-1]


OURS = FACE.at(0.3, 0.2, roll=0.1)


def opengl(camera: Camera) -> list[list[float]]:
    return (camera.cam2world[0].double() @ torch.diag(torch.tensor([1.0, -1, -1, 1], dtype=torch.float64))).tolist()


def forms() -> dict[str, tuple[object, dict[str, str]]]:
    focal, pose = FACE.focal, opengl(OURS)
    to_z_up = np.array([[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]])  # (x, y, z) -> (x, -z, y)
    pixels = {"w": 640, "h": 480, "fl_x": focal * 640, "fl_y": focal * 480, "cx": 320, "cy": 240}
    angle = {"camera_angle_x": 2 * math.atan(0.5 / focal)}
    return {
        "ours": ([{"cam2world": OURS.cam2world[0].tolist(), "intrinsics": OURS.intrinsics[0].tolist()}], {}),
        "25 numbers": (OURS.label().tolist(), {}),
        "pixels for all": ({**pixels, "frames": [{"transform_matrix": pose}]}, {}),
        "pixels of each": ({"frames": [{"transform_matrix": pose, **pixels}]}, {}),
        "angle": ({**angle, "frames": [{"file_path": "a.png", "transform_matrix": pose}]}, {}),
        "z up": ({**angle, "frames": [{"transform_matrix": (to_z_up @ pose).tolist()}]}, {"up": "z"}),
    }


@pytest.mark.parametrize("form", forms())
def test_all_camera_files_say_the_same(form: str, tmp_path: Path):
    content, options = forms()[form]
    file = tmp_path / "my [best] cameras.json"
    file.write_text(json.dumps(content))
    (camera,) = cameras("from_file", path=file, **options)
    assert torch.allclose(camera.cam2world, OURS.cam2world, atol=1e-6)
    assert torch.allclose(camera.intrinsics, OURS.intrinsics, atol=1e-5)


SKEWED = [[1, 0, 0, 0], [0.1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
LENS = [[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]]


def film(**lens: object) -> str:
    return json.dumps({**lens, "frames": [{"transform_matrix": np.eye(4).tolist()}]})


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("not json", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ("[]", "holds no cameras"),
        ('{"frames": 3}', "holds no cameras"),
        ("[[1, 2, 3]]", "camera 0: a row has 25 numbers"),
        ('[{"cam2world": [1, 2]}]', "camera 0: cam2world is not 4 x 4 numbers"),
        ('[{"cam2world": [[1, 0, 0, 0, 0], [1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]}]', "cam2world is not 4 x 4 numbers"),
        ('[{"cam2world": [[[1]], 1, 1, 1]}]', "cam2world is not 4 x 4 numbers"),
        (json.dumps([["1"] * 25]), "every entry of cam2world must be a number"),
        (json.dumps([[10**400] * 25]), "every entry of cam2world must be a number between -1e+09 and 1e+09"),
        (json.dumps([[math.nan] * 25]), "every entry of cam2world must be a number"),
        (json.dumps([{"cam2world": np.eye(4).tolist()}]), "'intrinsics' is missing"),
        (json.dumps([{"cam2world": SKEWED, "intrinsics": LENS}]), "is no rotation"),
        (json.dumps([{"cam2world": np.diag([1, 1, -1, 1]).tolist(), "intrinsics": LENS}]), "is no rotation"),
        (json.dumps({"fl_x": 500, "w": 1, "h": 1, "frames": [{"transform_matrix": np.eye(4).tolist()}]}), "divide"),
        (json.dumps({"frames": [{"transform_matrix": np.eye(4).tolist()}]}), "'camera_angle_x' is missing"),
        (film(camera_angle_x=0), "camera_angle_x must be a number between 0.001 and 3.14159"),
        (film(camera_angle_x=5e-324), "camera_angle_x must be"),
        (film(camera_angle_x=math.inf), "camera_angle_x must be"),
        (film(camera_angle_x=0.2, w=0), "w must be a number between 0 and"),
        (film(fl_x=5, w=0, h=1), "w must be a number between 0 and"),
        (film(fl_x=5, w=10**400, h=1), "w must be"),
        (film(fl_x=5, w="9", h=1), "w must be"),
        (film(fl_x=5, w=1e-320, h=1), "not finite in image widths"),
        ("[5]", "camera 0: a camera is a row of 25 numbers, or an object"),
        ('["transform_matrix"]', "camera 0: a camera is a row"),
    ],
)
def test_a_file_without_cameras_is_refused(text: str, complaint: str, tmp_path: Path):
    file = tmp_path / "cameras.json"
    file.write_text(text)
    with pytest.raises(DataError, match="cameras.json.*" + re.escape(complaint)):
        CameraFile(path=str(file)).cameras(FACE)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(DataError, match=r"cannot read the cameras in .*gone\.json"):
        CameraFile(path=str(tmp_path / "gone.json")).cameras(FACE)


@pytest.mark.parametrize(
    ("name", "options", "complaint"),
    [
        ("rotation_camra", [], "no render program rotation_camra; did you mean rotation_camera"),
        ("orbit", [("frame", "3")], "orbit has no option frame; did you mean frames"),
        ("rotation_camera", [("heights", "0.5")], r"heights=0.5 is no list such as \[0.5\]"),
        ("rotation_camera", [("heights", "[a]")], r"heights=\[a\] is no list"),
        ("orbit", [("yaw", "[")], r"yaw=\[ cannot be read"),
        ("from_file", [], "needs --program-option path"),
    ],
)
def test_a_wrong_program_is_refused(name: str, options: list[tuple[str, str]], complaint: str):
    with pytest.raises(ConfigError, match=complaint):
        load_program(name, options)


@pytest.mark.parametrize(
    ("name", "option"),
    [("orbit", "frames=many"), ("orbit", "frames=0"), ("rotation_camera", "frames=-1"), ("interpolation", "frames=0"),
     ("rotation_grid", "rows=0"), ("from_file", "up=x")],
)  # fmt: skip
def test_a_wrong_value_is_refused(name: str, option: str):
    given = [("path", "cameras.json")] if name == "from_file" else []
    key, _, value = option.partition("=")
    with pytest.raises(ConfigError, match=rf"{key}={value}"):
        build(load_program(name, [*given, (key, value)]), where=name)


@pytest.mark.parametrize(("fov", "swing"), [(17, 100), (17, -17), (100, 90), (0.1, 0.05)])
def test_a_field_of_view_stays_one_while_it_swings(fov: float, swing: float):
    with pytest.raises(ConfigError, match=rf"fov={fov} and fov_swing={swing}: .* leave 0\.1 to 179 degrees"):
        build(load_program("trajectory_front", [("fov", str(fov)), ("fov_swing", str(swing))]), where="film")
    assert len(cameras("trajectory_front", fov="null", fov_swing=swing)) == 36  # the rig's lens does not swing


def test_there_is_a_test_for_every_program():
    tested = {*LOOPS, "rotation_camera", "rotation_grid", "rotation_camera_grid", "from_file", "interpolation"}
    assert tested == set(program_names())
