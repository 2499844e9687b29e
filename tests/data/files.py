"""Small data sets on disk, and the tools that make them, for tests."""

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from training.rendering.cameras import CameraRig

ROOT = Path(__file__).parent.parent.parent


def picture(seed: int = 0, side: int = 8, mode: str = "RGB", kind: str = "PNG", height: int | None = None) -> bytes:
    """A file with random pixels."""
    shape = (height or side, side) if mode in ("L", "I;16") else (height or side, side, len(mode))
    rng = np.random.RandomState(seed)
    pixels = rng.randint(0, 2**16, shape).astype(np.uint16) if mode == "I;16" else rng.randint(0, 256, shape, np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, format=kind)
    return data.getvalue()


def camera(yaw: float = 0.2) -> list[float]:
    return CameraRig(radius=2.7, focal=4.26).at(yaw, 0.1).label()[0].tolist()


def packed(path: Path, entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED, **content) -> str:
    """A zip of these entries with dataset.json made of `content` (none if there is none)."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
        if content:
            archive.writestr("dataset.json", json.dumps(content))
    return str(path)


def unpacked(path: Path, entries: dict[str, bytes], **content) -> str:
    """The same as a folder."""
    for name, data in entries.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    if content:
        (path / "dataset.json").write_text(json.dumps(content))
    return str(path)


def numbered(n: int, **options) -> dict[str, bytes]:
    return {f"00000/img{i:08d}.png": picture(i, **options) for i in range(n)}


def quietly(items, total, unit):
    return items


def app(name: str, *args: str) -> subprocess.CompletedProcess:
    """Run one of our command lines."""
    return subprocess.run([sys.executable, f"apps/{name}.py", *args], cwd=ROOT, capture_output=True, text=True)
