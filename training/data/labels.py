"""dataset.json: what is known about the images of a zip or folder, in the form that StyleGAN2-ada and EG3D write.

{"labels": [[name, class index], ...]} or {"labels": [[name, [numbers]], ...]}; 25 numbers are EG3D's camera label. Ours
may hold "cameras": [[name, [25 numbers]], ...] beside classes. Everything is checked here, where it enters.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from reprlib import repr as short
from typing import Any

import numpy as np

from dnnlib.errors import DataError

from .archive import Archive

LABELS_FILE = "dataset.json"

CAMERA = 25
LARGEST = float(np.finfo(np.float32).max)  # what numbers are kept as
MAX_CLASS = 100_000  # a larger index is no class: its one-hot vector would not fit


@dataclass(frozen=True, kw_only=True)
class Known:
    """What dataset.json says about N images, in their order; None where it says nothing that was asked for."""

    cameras: np.ndarray | None = None  # float32 [N, 25]
    classes: np.ndarray | None = None  # int64 [N]
    vectors: np.ndarray | None = None  # float32 [N, length]: labels that are neither


def read_known(archive: Archive, names: Sequence[str], cond: bool, cameras: bool | None) -> Known:
    """Labels (with cond) and cameras (unless cameras is False) of these images. cameras=True insists on them."""
    where = f"{archive.path}: {LABELS_FILE}"
    content = read_json(archive.read(LABELS_FILE), where) if LABELS_FILE in archive.names else {}
    labels, poses = pairs(content, "labels", where), pairs(content, "cameras", where)
    label_is_camera = any(isinstance(value, list) and len(value) == CAMERA for value in labels.values())
    if not poses and cameras is not False and label_is_camera:
        labels, poses, source = {}, labels, "labels"
    else:
        source = "cameras"
    known: dict[str, Any] = {}
    if poses and cameras is not False:
        known["cameras"] = _cameras(_ordered(poses, source, names, where), names, where)
    elif cameras:
        raise DataError(f"{archive.path} holds no cameras: {_why_no_cameras(archive, labels)}.")
    if cond and not labels:
        reason = (
            "its labels are cameras, which are used without cond" if poses else "make them with apps/dataset_labels.py"
        )
        raise DataError(f"{archive.path} holds no class labels for cond=True: {reason}.")
    if cond:
        values = _ordered(labels, "labels", names, where)
        kind, read = ("classes", _classes) if isinstance(values[0], int) else ("vectors", _vectors)
        known[kind] = read(values, names, where)
    return Known(**known)


def _why_no_cameras(archive: Archive, labels: dict[str, Any]) -> str:
    if LABELS_FILE not in archive.names:
        return f"there is no {LABELS_FILE}"
    lengths = {len(value) for value in labels.values() if isinstance(value, list)}
    if lengths:
        return f"its labels have {min(lengths)} numbers where a camera has {CAMERA}"
    return f'{LABELS_FILE} has neither "cameras" nor labels of {CAMERA} numbers'


def read_json(text: bytes, where: str) -> dict[str, Any]:
    """The JSON object in a file's bytes."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is no JSON that can be read ({error}).") from None
    if not isinstance(content, dict):
        raise DataError(f'{where} must hold an object such as {{"labels": [["00000/img00000000.png", 0], ...]}}.')
    return content


def pairs(content: dict[str, Any], key: str, where: str) -> dict[str, Any]:
    """content[key], a list of [name, value], as a dictionary; empty where it is missing or null."""
    listed = content.get(key) or []
    known: dict[str, Any] = {}
    for i, pair in enumerate(listed if isinstance(listed, list) else [None]):
        if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str)):
            raise DataError(f'{where}: entry {i} of "{key}" is not of the form [name, value].')
        known[pair[0].replace("\\", "/")] = pair[1]
    return known


def _ordered(known: dict[str, Any], key: str, names: Sequence[str], where: str) -> list[Any]:
    """The values in the order of names."""
    missing = next((name for name in names if name not in known), None)
    if missing is not None:
        count = f"{len(known)} entries, {len(names)} images"
        raise DataError(f'{where}: "{key}" has no entry for image {missing} ({count}).')
    return [known[name] for name in names]


def _classes(values: Sequence[Any], names: Sequence[str], where: str) -> np.ndarray:
    """Class indices as int64 [N]."""
    for name, value in zip(names, values, strict=True):
        if type(value) is not int:
            raise DataError(f"{where}: the label of {name} is {short(value)}, not a class index.")
        if not 0 <= value <= MAX_CLASS:
            raise DataError(f"{where}: the label of {name} is {short(value)}, out of the range 0 to {MAX_CLASS}.")
    return np.asarray(values, dtype=np.int64)


def _vectors(values: Sequence[Any], names: Sequence[str], where: str) -> np.ndarray:
    """Number vectors of one length as float32 [N, length]."""
    length = len(values[0]) if isinstance(values[0], list) else CAMERA
    for name, value in zip(names, values, strict=True):
        if not isinstance(value, list):
            raise DataError(f"{where}: the label of {name} is {short(value)}, not a list of {length} numbers.")
        if len(value) != length:
            raise DataError(f"{where}: the label of {name} has {len(value)} numbers, that of {names[0]} {length}.")
        if not all(type(number) in (int, float) for number in value):
            raise DataError(f"{where}: the label of {name} holds something that is no number: {short(value)}.")
        if not all(abs(number) <= LARGEST for number in value):
            raise DataError(f"{where}: the label of {name} holds NaN or infinity or what is as large: {short(value)}.")
    return np.asarray(values, dtype=np.float32)


def _cameras(values: Sequence[Any], names: Sequence[str], where: str) -> np.ndarray:
    """Camera labels as float32 [N, 25], each a rotation (to 1e-3), a position and a normalised pinhole."""
    rows = _vectors(values, names, where)
    if rows.shape[1] != CAMERA:
        raise DataError(f"{where}: the camera of {names[0]} has {rows.shape[1]} numbers; it must have {CAMERA}.")
    pose, lens = rows[:, :16].reshape(-1, 4, 4).astype(np.float64), rows[:, 16:].reshape(-1, 3, 3)
    turn = pose[:, :3, :3]
    skew = np.abs(turn.transpose(0, 2, 1) @ turn - np.eye(3)).max(axis=(1, 2))
    no_rotation = (skew > 1e-3) | (np.linalg.det(turn) < 0) | (np.abs(pose[:, 3] - (0, 0, 0, 1)).max(axis=1) > 1e-3)
    _refuse(no_rotation, names, where, "camera of {} is no pose: its upper left 3x3 must be a rotation, to 1e-3")
    focal, centre = lens[:, (0, 1), (0, 1)], lens[:, :2, 2]
    in_pixels = (focal > 50).any(axis=1) | (np.abs(centre) > 10).any(axis=1)
    _refuse(in_pixels, names, where, "camera of {} has intrinsics in pixels: divide them by the image's size")
    wrong = (
        (focal <= 0).any(axis=1) | (np.abs(lens[:, 2] - (0, 0, 1)).max(axis=1) > 1e-3) | (np.abs(lens[:, 1, 0]) > 1e-3)
    )
    _refuse(wrong, names, where, "camera of {} has no pinhole matrix [[fx, s, cx], [0, fy, cy], [0, 0, 1]]")
    return rows


def _refuse(bad: Any, names: Sequence[str], where: str, sentence: str) -> None:
    if bad.any():
        raise DataError(f"{where}: the {sentence.format(names[int(bad.argmax())])} ({int(bad.sum())} such entries).")
