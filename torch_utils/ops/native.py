"""Which way operators go: C texts compiled for this CPU, CUDA texts compiled for this GPU, or their twins in torch.

All C texts become one shared library when one is first needed, a CUDA text becomes a cubin for each kind of GPU and
sizes (cubins.py). Without a compiler the twins serve.
"""

import ctypes
import os
import platform
import shutil
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast

import torch

from dnnlib.errors import ConfigError
from torch_utils.ops import builds, cubins, gpu
from torch_utils.ops.builds import CompilerError, Unavailable, cache_folder
from torch_utils.ops.cubins import USUAL, Text

FLAGS = ("-std=gnu11", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
THREADS = "-fopenmp"  # with a compiler that lacks it, one thread does all
CHOICES = ("auto", "torch", "ninja", "strict")
Choice = Literal["auto", "torch", "ninja", "strict"]

_choice: Choice = "auto"


def choose(ops: str, device: torch.device | None = None) -> None:
    """Which way operators may go. "auto": compiled where that can be had. "torch": the twins. "strict": compiled, or
    not at all. "ninja": as "strict" on a GPU, by nvcc and ninja instead of NVRTC; on a CPU as "auto".

    Raises ConfigError if something is asked for that this device cannot have; without a device nobody looks.
    """
    global _choice
    _choice = cast(Choice, ops)
    if device is None or not _demanding(device.type):
        return
    for name, reason in _reasons(device.type).items():
        if reason:
            raise ConfigError(f"ops={ops}, but {name} cannot be had, since {reason}; ops=auto does without.")


def _demanding(device: str) -> bool:
    """Whether the choice forbids twins there."""
    return _choice == "strict" or (_choice == "ninja" and device == "cuda")


def _maker() -> cubins.Maker:
    return "ninja" if _choice == "ninja" else "nvrtc"


def _reasons(device: str) -> dict[str, str | None]:
    """What there is to compile for that type of device, and why it cannot be had."""
    if device == "cpu":
        return {"the library of operators": why_not()}
    if _choice == "ninja" and torch.cuda.is_available():
        try:  # all at once
            cubins.cubins(list(USUAL.values()), gpu.architecture(torch.cuda.current_device()), "ninja")
        except Unavailable as reason:
            return dict.fromkeys(USUAL, str(reason))
    index = torch.cuda.current_device() if torch.cuda.is_available() else 0
    return {name: gpu.why_not(text, index, _maker()) for name, text in USUAL.items()}


def ready(*tensors: torch.Tensor) -> bool:
    """Whether operators are to use the library, which takes float32 on the CPU and nothing empty."""
    plain = all(t.device.type == "cpu" and t.dtype == torch.float32 and t.numel() for t in tensors)
    return plain and _choice != "torch" and why_not() is None


def kernel_ready(text: Text, *tensors: torch.Tensor) -> bool:
    """Whether operators are to use this CUDA text for these tensors, none of them empty, all on one GPU.

    Raises ConfigError if it cannot be had and the choice forbids its twin.
    """
    device = tensors[0].device
    if device.type != "cuda" or _choice == "torch" or any(t.device != device or not t.numel() for t in tensors):
        return False
    reason = gpu.why_not(text, device.index, _maker())
    if reason and _demanding("cuda"):
        raise ConfigError(f"ops={_choice}, but {text.name} cannot be had, since {reason}; ops=auto does without.")
    return reason is None


def launch(text: Text, kernel: str, job: ctypes.Structure, device: torch.device, blocks: int, threads: int) -> None:
    """Start a kernel of a CUDA text that is ready."""
    gpu.program(text, device.index, _maker()).launch(kernel, job, blocks, threads)


def call(function: str, *arguments: Any) -> None:
    """Call a function of the library: whole numbers are int64, tensors and structures go by address, None is null.

    Raises MemoryError if it says so.
    """
    if getattr(library(), function)(*map(_as_c, arguments)):
        raise MemoryError(f"{function}, an operator, has no memory for what it works with")


def _as_c(argument: Any) -> Any:
    if isinstance(argument, torch.Tensor):
        return ctypes.c_void_p(argument.data_ptr())
    if isinstance(argument, ctypes.Structure):
        return ctypes.byref(argument)
    return argument if argument is None else ctypes.c_int64(argument)


def in_words(device: str) -> str:
    """Which way operators go on that type of device, and why: one line for the start of a run."""
    if _choice == "torch":
        return "Operators: torch's own, as ops=torch says."
    if device == "cpu":
        if why_not():
            return f"Operators: torch's own, which is slower, since {why_not()}."
        return f"Operators: compiled for this CPU, {Path(library()._name).name}."
    reasons = _reasons(device)
    made = [name for name, reason in reasons.items() if reason is None]
    parts = []
    if made:
        where = f"{gpu.architecture(torch.cuda.current_device())} by {cubins.compiler(_maker())}"
        parts.append(f"{' '.join(made)} compiled for {where}")
    for reason in dict.fromkeys(filter(None, reasons.values())):
        without = " ".join(name for name in reasons if reasons[name] == reason) if made else ""
        parts.append(f"{without} torch's own, since {reason}".strip())
    return f"Operators: {'; '.join(parts)}."


def version(device: str) -> str:
    """What the last bits of the operators depend on, on that type of device."""
    if device == "cpu":
        return Path(library()._name).stem if ready() else "torch"
    if _choice == "torch":
        return "torch"
    made = [name for name, reason in _reasons(device).items() if reason is None]
    if not made:
        return "torch"
    arch = gpu.architecture(torch.cuda.current_device())
    keys = [f"{name} {cubins.key(USUAL[name], arch, _maker())}" for name in made]
    return f"kernels-{builds.digest(*keys)}"


@cache
def why_not() -> str | None:
    """Why there is no library; None if there is."""
    try:
        library()
    except Unavailable as reason:
        return str(reason)
    return None


@cache
def library() -> ctypes.CDLL:
    """The library of all texts. Raises Unavailable, with a reason to print, if it cannot be had."""
    with builds.cache_in_words():
        command, name = _command(), _name()
        try:
            return _loaded([*command, THREADS], cache_folder() / f"{name}.so")
        except CompilerError:
            return _loaded(command, cache_folder() / f"{name}-one-thread.so")


def workers_for(units: int) -> int:
    """How many threads a job of so many independent units is worth: at most those that torch may use."""
    return max(1, min(torch.get_num_threads(), units))


def _name() -> str:
    """Of the library, by all that it depends on."""
    texts = [text.read_text(encoding="utf-8") for text in _texts("*.[ch]")]
    key = builds.digest(*texts, *_command(), builds.run([compiler(), "--version"]), _processor())
    return f"operators-{key}"


def _texts(pattern: str) -> list[Path]:
    return sorted(builds.TEXTS.glob(pattern))


def _loaded(command: list[str], path: Path) -> ctypes.CDLL:
    def make(draft: Path, missing: list[Path]) -> None:
        builds.run([*command, *map(str, _texts("*.c")), "-o", str(draft / missing[0].name)])

    builds.keep([path], make)
    return ctypes.CDLL(str(path))


def compiler() -> str:
    """The C compiler. Raises Unavailable if there is none."""
    found = next(filter(None, map(shutil.which, (os.environ.get("CC") or "cc", "gcc", "clang"))), None)
    if found is None:
        raise Unavailable("there is no C compiler")
    return found


def _command() -> list[str]:
    return [compiler(), *FLAGS, "-march=native" if platform.machine() in ("x86_64", "AMD64") else "-mcpu=native"]


def _processor() -> str:
    """What -march=native depends on: a home folder may be shared by machines of several kinds."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    kinds = ("model name", "flags", "Features", "CPU part")
    return "\n".join(dict.fromkeys(line for line in lines if line.startswith(kinds))) or platform.processor()
