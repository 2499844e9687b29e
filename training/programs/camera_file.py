"""Cameras read from a JSON file: our own form, 25-number rows, or nerfstudio's transforms.json."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from dnnlib.errors import ConfigError, DataError
from training.contracts import Camera, CameraRig

HUGE = 1e9  # no length, angle or number of pixels reaches it
OPENGL_TO_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])  # camera axes: (right, up, back) to (right, down, forward)
Z_UP_TO_Y_UP = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])  # front -y becomes front +z


@dataclass(frozen=True, kw_only=True)
class CameraFile:
    """The cameras of one of these, in file order:

    - a list of {"cam2world": 4x4, "intrinsics": 3x3}, axes and units as in Camera;
    - a list of rows of 25 numbers, the labels of EG3D's data sets;
    - {"frames": [{"transform_matrix": 4x4}, ...]} with OpenGL camera axes and a lens in pixels (fl_x, fl_y, cx, cy, w,
      h) or camera_angle_x in radians, for all frames or for each.

    Positions are in scene units. up says which axis of the file's world points up: "y" as here, or "z" as in Blender.
    """

    path: str
    up: Literal["y", "z"] = "y"

    def __post_init__(self) -> None:
        if self.up not in ("y", "z"):
            raise ConfigError(f'up={self.up} is no axis that can point up: write "y" or "z"')

    def cameras(self, rig: CameraRig) -> list[Camera]:
        """Raises DataError naming the file and the first entry that is no camera."""
        file = Path(self.path).expanduser()
        try:
            content = json.loads(file.read_text())
        except OSError as error:
            raise DataError(f"cannot read the cameras in {file}: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise DataError(f"{file} cannot be read as JSON: {error}") from error
        shared = content if isinstance(content, Mapping) else {}
        entries = shared.get("frames") if isinstance(content, Mapping) else content
        if not isinstance(entries, list) or not entries:
            raise DataError(f'{file} holds no cameras: a list, or "frames" with a list, is expected')
        turn = Z_UP_TO_Y_UP if self.up == "z" else np.eye(4)
        cameras = []
        for index, entry in enumerate(entries):
            try:
                pose, lens = _read(entry, shared)
                cameras.append(_checked(turn @ pose, lens))
            except (ValueError, KeyError) as error:
                reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
                raise DataError(f"{file}, camera {index}: {reason}") from error
        return cameras


def _read(entry: Any, shared: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """cam2world in our camera axes and normalised intrinsics, whatever the form."""
    if isinstance(entry, list):
        if len(entry) != 25:
            raise ValueError(f"a row has 25 numbers (cam2world, then intrinsics), this one {len(entry)}")
        return _matrix(entry[:16], 4, "cam2world"), _matrix(entry[16:], 3, "intrinsics")
    if not isinstance(entry, Mapping):
        raise ValueError("a camera is a row of 25 numbers, or an object with cam2world or transform_matrix")
    if "transform_matrix" in entry:
        return _matrix(entry["transform_matrix"], 4, "transform_matrix") @ OPENGL_TO_OPENCV, _lens({**shared, **entry})
    return _matrix(entry["cam2world"], 4, "cam2world"), _matrix(entry["intrinsics"], 3, "intrinsics")


def _matrix(numbers: Any, side: int, name: str) -> np.ndarray:
    """Row by row in one list, or in a list for each row."""
    rows = numbers if isinstance(numbers, list) else []
    if len(rows) == side and all(isinstance(row, list) and len(row) == side for row in rows):
        rows = [entry for row in rows for entry in row]
    if len(rows) != side * side:
        raise ValueError(f"{name} is not {side} x {side} numbers")
    return np.array([_number(entry, f"every entry of {name}") for entry in rows]).reshape(side, side)


def _number(value: Any, name: str, above: float = -HUGE, below: float = HUGE) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not above < value < below:
        raise ValueError(f"{name} must be a number between {above:g} and {below:g}")
    return float(value)


def _lens(frame: Mapping[str, Any]) -> np.ndarray:
    """Intrinsics of an image that spans [0, 1], from pixels or from the angle of view. Pixels are square if unsaid."""

    def pixels(name: str) -> float:
        return _number(frame[name], name, above=0)

    def focal(name: str) -> float:
        return 0.5 / math.tan(_number(frame[name], name, above=1e-3, below=math.pi) / 2)

    if "fl_x" in frame:
        width, height = pixels("w"), pixels("h")
        fx, fy = pixels("fl_x") / width, pixels("fl_y" if "fl_y" in frame else "fl_x") / height
    else:
        width, height = (pixels(name) if name in frame else 1.0 for name in "wh")
        fx = focal("camera_angle_x")
        fy = focal("camera_angle_y") if "camera_angle_y" in frame else fx * width / height
    cx, cy = (_number(frame.get(name, side / 2), name) / side for name, side in (("cx", width), ("cy", height)))
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])


def _checked(pose: np.ndarray, lens: np.ndarray) -> Camera:
    rotation = pose[:3, :3]
    if not np.isfinite(lens).all():
        raise ValueError("its focal length or centre is not finite in image widths")
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-3 or np.linalg.det(rotation) < 0:
        raise ValueError("the upper left 3 x 3 of its pose is no rotation")
    if np.abs(pose[3] - [0, 0, 0, 1]).max() > 1e-6:
        raise ValueError("the last row of its pose is not 0 0 0 1")
    if not (0 < lens[0, 0] < 50 and 0 < lens[1, 1] < 50):
        raise ValueError(f"a focal length of {lens[0, 0]:g} is not in image widths; divide pixels by the image's width")
    return Camera(torch.tensor(pose[None], dtype=torch.float32), torch.tensor(lens[None], dtype=torch.float32))
