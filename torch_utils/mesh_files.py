"""Meshes and volumes on disk: .ply, .glb and .mrc, written as their standards say, with no other library.

Files appear whole or not at all; raises ConfigError for one that cannot be written. Coordinates are written as they
are: y up, and what faces +z faces the viewer, as glTF has it too.
"""

import json
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int, UInt8

from dnnlib.files import whole_file


@dataclass(frozen=True)
class ColouredMesh:
    """Triangles, counter-clockwise as seen from outside."""

    vertices: Float32[np.ndarray, "V 3"]
    faces: Int[np.ndarray, "T 3"]
    normals: Float32[np.ndarray, "V 3"]  # unit length, outwards
    colours: UInt8[np.ndarray, "V 3"]  # sRGB


def write_ply(mesh: ColouredMesh, path: str | os.PathLike[str]) -> None:
    """Binary PLY: x y z, nx ny nz, red green blue of vertices; triangles."""
    lines = ["ply", "format binary_little_endian 1.0", "comment y is up", f"element vertex {len(mesh.vertices)}"]
    lines += [f"property float {name}" for name in ("x", "y", "z", "nx", "ny", "nz")]
    lines += [f"property uchar {name}" for name in ("red", "green", "blue")]
    lines += [f"element face {len(mesh.faces)}", "property list uchar int vertex_indices", "end_header\n"]
    vertices = np.empty(len(mesh.vertices), [("place", "<f4", 3), ("normal", "<f4", 3), ("colour", "u1", 3)])
    vertices["place"], vertices["normal"], vertices["colour"] = mesh.vertices, mesh.normals, mesh.colours
    faces = np.empty(len(mesh.faces), [("corners", "u1"), ("names", "<i4", 3)])
    faces["corners"], faces["names"] = 3, mesh.faces
    _write(path, ["\n".join(lines).encode(), vertices.tobytes(), faces.tobytes()])


def write_glb(mesh: ColouredMesh, path: str | os.PathLike[str]) -> None:
    """Binary glTF 2.0: one mesh of a dull material, coloured by vertex. glTF wants such colours in linear light."""
    srgb = np.arange(256) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    colours = linear.astype("<f4")[mesh.colours]  # 8 bits of it would be too few for dark tones
    parts = [mesh.vertices.astype("<f4"), mesh.normals.astype("<f4"), colours, mesh.faces.astype("<u4")]
    starts = np.cumsum([0, *(part.nbytes for part in parts)]).tolist()
    views = [
        {"buffer": 0, "byteOffset": start, "byteLength": part.nbytes, "target": 34963 if part is parts[-1] else 34962}
        for start, part in zip(starts, parts, strict=False)
    ]
    vertex = {"count": len(mesh.vertices), "componentType": 5126, "type": "VEC3"}
    ends = {"min": mesh.vertices.min(axis=0).tolist(), "max": mesh.vertices.max(axis=0).tolist()}
    accessors = [
        {**vertex, **ends, "bufferView": 0},
        {**vertex, "bufferView": 1},
        {**vertex, "bufferView": 2},
        {"bufferView": 3, "count": mesh.faces.size, "componentType": 5125, "type": "SCALAR"},
    ]
    primitive = {"attributes": {"POSITION": 0, "NORMAL": 1, "COLOR_0": 2}, "indices": 3, "material": 0}
    words = {
        "asset": {"version": "2.0", "generator": "Parallax"},
        "scene": 0, "scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0}], "meshes": [{"primitives": [primitive]}],
        "materials": [{"pbrMetallicRoughness": {"metallicFactor": 0, "roughnessFactor": 1}}],
        "buffers": [{"byteLength": starts[-1]}], "bufferViews": views, "accessors": accessors,
    }  # fmt: skip
    text = json.dumps(words).encode()
    text += b" " * (-len(text) % 4)
    size = 12 + 8 + len(text) + 8 + starts[-1]
    head = struct.pack("<4sII I4s", b"glTF", 2, size, len(text), b"JSON") + text
    _write(path, [head, struct.pack("<I4s", starts[-1], b"BIN\0"), *(part.tobytes() for part in parts)])


def write_mrc(grid: Float32[np.ndarray, "Z Y X"], side: float, path: str | os.PathLike[str]) -> None:
    """MRC2014, mode 2: a volume grid[z, y, x], x fastest, whose first and last nodes span `side` around the origin.

    What the format counts in Angstrom are scene units here.
    """
    count = len(grid)
    spacing = side / (count - 1)
    label = b"density, 1 / scene unit; y is up"
    header = b"".join([
        struct.pack("<10i", *(count,) * 3, 2, 0, 0, 0, *(count,) * 3),  # size, mode, start, intervals of the cell
        struct.pack("<6f", *(count * spacing,) * 3, 90, 90, 90),  # the cell's sides and angles
        struct.pack("<3i", 1, 2, 3),  # columns, rows and sections are x, y and z
        struct.pack("<3f", grid.min(), grid.max(), grid.mean(dtype=np.float64)),
        struct.pack("<2i 12x i 84x", 1, 0, 20140),  # a volume, no extended header; version of the format
        struct.pack("<3f", *(-side / 2,) * 3),  # where the first node lies
        struct.pack("<4s 4B", b"MAP ", 0x44, 0x44, 0, 0),  # little-endian
        struct.pack("<f i 800s", grid.std(dtype=np.float64), 1, label.ljust(80)),
    ])  # fmt: skip
    _write(path, [header, *(np.ascontiguousarray(section, "<f4").tobytes() for section in grid)])


def _write(path: str | os.PathLike[str], parts: Iterable[bytes]) -> None:
    with whole_file(path) as temporary, temporary.open("wb") as file:
        file.writelines(parts)
