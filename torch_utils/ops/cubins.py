"""The CUDA texts of operators, compiled for GPUs of one architecture. It needs no GPU.

By NVRTC, the compiler that torch's own wheels bring, in a tenth of a second to a few; or by the nvcc of a CUDA toolkit,
of any version that knows the GPU, run by ninja. What either makes is a cubin: machine code for sm_90 and the like.
"""

import ctypes
import importlib.util
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import torch

from torch_utils.ops import builds
from torch_utils.ops.builds import CompilerError, Unavailable

Maker = Literal["nvrtc", "ninja"]
OPTIONS = ("-std=c++17",)
ELEMENTS = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}  # ELEMENT of kernel.cuh


@dataclass(frozen=True)
class Text:
    """A text, and what is known when it is compiled."""

    name: str  # NAME.cu
    macros: tuple[str, ...] = ()  # "KEY=VALUE", with nothing that a shell or compiler would take apart


# The texts as most runs need them: element types and sizes follow from what an operator is given.
USUAL = {
    "bias_act": Text("bias_act", ("ELEMENT=0",)),
    "upfirdn2d": Text("upfirdn2d", ("DOWN_X=1", "DOWN_Y=1", "ELEMENT=0", "TAPS_X=4", "TAPS_Y=4", "UP_X=2", "UP_Y=2")),
    "triplane_field": Text("triplane_field", ("FEATURES=32", "HIDDEN=64", "COLOURS=32", "AXES=0x010221")),
    "ray_march": Text("ray_march", ("FEATURES=32", "HIDDEN=64", "COLOURS=32", "AXES=0x010221")),
}


def cubins(texts: Sequence[Text], arch: str, maker: Maker = "nvrtc") -> list[Path]:
    """The compiled texts, from the cache folder or made now. arch is sm_90 and the like.

    Raises Unavailable with a reason to print.
    """
    with builds.cache_in_words():
        paths = [builds.cache_folder() / f"{text.name}-{arch}-{maker}-{key(text, arch, maker)}.cubin" for text in texts]
        wanted = dict(zip(paths, texts, strict=True))

        def make(draft: Path, missing: list[Path]) -> None:
            if maker == "ninja":
                _by_ninja(draft, {path.name: wanted[path] for path in missing}, arch)
                return
            for path in missing:
                (draft / path.name).write_bytes(_by_nvrtc(wanted[path], arch))

        builds.keep(paths, make)
        return paths


def key(text: Text, arch: str, maker: Maker) -> str:
    """A hash of all that a cubin depends on."""
    shared = [file.read_text(encoding="utf-8") for file in sorted(builds.TEXTS.glob("*.cuh"))]
    own = (builds.TEXTS / f"{text.name}.cu").read_text(encoding="utf-8")
    return builds.digest(own, *shared, *text.macros, *OPTIONS, arch, compiler(maker))


@cache
def compiler(maker: Maker) -> str:
    """Its name and version. Raises Unavailable if there is none."""
    if maker == "ninja":
        said = builds.run([nvcc(), "--version"]).strip().splitlines()
        return next((f"nvcc {line.rpartition('V')[2]}" for line in said if "release" in line), said[-1])
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check(nvrtc().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
    return f"NVRTC {major.value}.{minor.value}"


def architectures() -> list[str]:
    """All that NVRTC knows, the newest last."""
    count = ctypes.c_int()
    _check(nvrtc().nvrtcGetNumSupportedArchs(ctypes.byref(count)))
    found = (ctypes.c_int * count.value)()
    _check(nvrtc().nvrtcGetSupportedArchs(found))
    return [f"sm_{number}" for number in found]


@cache
def nvrtc() -> ctypes.CDLL:
    """The library. Raises Unavailable if there is none."""
    if torch.version.cuda is None:
        raise Unavailable("this torch is built without CUDA")
    names = [str(path) for folder in _library_folders() for path in sorted(folder.glob("libnvrtc.so.[0-9]*"))]
    for name in [*names, f"libnvrtc.so.{torch.version.cuda.partition('.')[0]}", "libnvrtc.so"]:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise Unavailable("there is no NVRTC, which pip installs with torch's CUDA wheels")


def _library_folders() -> list[Path]:
    """Where torch's wheels put NVIDIA's libraries, then a toolkit's."""
    spec = importlib.util.find_spec("nvidia")
    wheels = [Path(place) for place in (spec and spec.submodule_search_locations) or ()]
    folders = [folder for place in wheels for folder in sorted(place.glob("*/lib"))]
    home = os.environ.get("CUDA_HOME")
    return [*folders, Path(home) / "lib64"] if home else folders


def _check(status: int) -> None:
    if status:
        said = nvrtc().nvrtcGetErrorString
        said.restype = ctypes.c_char_p
        raise Unavailable(f"NVRTC failed: {said(status).decode()}")


def _by_nvrtc(text: Text, arch: str) -> bytes:
    if arch not in architectures():
        raise Unavailable(f"{compiler('nvrtc')} knows no {arch}")
    library, program, size = nvrtc(), ctypes.c_void_p(), ctypes.c_size_t()
    source = (builds.TEXTS / f"{text.name}.cu").read_bytes()
    _check(library.nvrtcCreateProgram(ctypes.byref(program), source, f"{text.name}.cu".encode(), 0, None, None))
    try:
        words = [f"--gpu-architecture={arch}", f"--include-path={builds.TEXTS}", *OPTIONS]
        words += [f"--define-macro={macro}" for macro in text.macros]
        options = (ctypes.c_char_p * len(words))(*(word.encode() for word in words))
        if library.nvrtcCompileProgram(program, len(words), options):
            _check(library.nvrtcGetProgramLogSize(program, ctypes.byref(size)))
            log = ctypes.create_string_buffer(size.value)
            _check(library.nvrtcGetProgramLog(program, log))
            lines = log.value.decode(errors="replace").strip().splitlines() or ["without a word"]
            raise CompilerError(f"{compiler('nvrtc')} failed: {builds.first_error(lines)}")
        _check(library.nvrtcGetCUBINSize(program, ctypes.byref(size)))
        cubin = ctypes.create_string_buffer(size.value)
        _check(library.nvrtcGetCUBIN(program, cubin))
        return cubin.raw
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def nvcc() -> str:
    """The compiler of the CUDA toolkit. Raises Unavailable if there is none."""
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    found = [shutil.which("nvcc", path=f"{home}/bin") for home in homes[:2] if home]
    found += [shutil.which("nvcc"), shutil.which("nvcc", path=f"{homes[2]}/bin")]
    path = next(filter(None, found), None)
    if path is None:
        raise Unavailable("there is no nvcc: install a CUDA toolkit, or let CUDA_HOME name its folder")
    return path


def ninja() -> list[str]:
    """How to start it. Raises Unavailable if it is not there."""
    if importlib.util.find_spec("ninja"):
        return [sys.executable, "-m", "ninja"]
    path = shutil.which("ninja")
    if path is None:
        raise Unavailable("there is no ninja: pip install ninja")
    return [path]


def _by_ninja(draft: Path, texts: dict[str, Text], arch: str) -> None:
    """All texts at once, in copies, so that no path needs quoting but the compiler's."""
    for file in [*builds.TEXTS.glob("*.cuh"), *(builds.TEXTS / f"{text.name}.cu" for text in texts.values())]:
        shutil.copyfile(file, draft / file.name)
    command = " ".join(map(shlex.quote, [nvcc(), "-cubin", f"-arch={arch}", *OPTIONS])).replace("$", "$$")
    lines = ["rule cubin", f"  command = {command} $macros -o $out $in"]
    for name, text in texts.items():
        lines += [f"build {name}: cubin {text.name}.cu", f"  macros = {' '.join(f'-D{m}' for m in text.macros)}"]
    (draft / "build.ninja").write_text("\n".join([*lines, ""]))
    builds.run([*ninja(), "--quiet", "-C", str(draft)], "ninja")
