"""Kernels on NVIDIA GPUs: cubins are loaded and started through the driver, on the stream that torch works on.

libcuda is called by ctypes: it comes with the driver, whatever torch is there. Nothing of it is touched before
something asks for a kernel.
"""

import ctypes
from functools import cache
from pathlib import Path

import torch

from torch_utils.ops.builds import Unavailable
from torch_utils.ops.cubins import Maker, Text, cubins

BLOCKS_OF_PROCESSOR = 8  # of kernels whose blocks take all work in turn: as many as may be at work at once


class Program:
    """A text on one device, ready to run."""

    def __init__(self, path: Path, index: int) -> None:
        self._index, self._module = index, ctypes.c_void_p()
        with _Context(index):
            status = driver().cuModuleLoadData(ctypes.byref(self._module), path.read_bytes())
        if status:
            raise Unavailable(f"{path} cannot be loaded ({error_name(status)}): delete it")
        self._kernels: dict[str, ctypes.c_void_p] = {}

    def launch(self, kernel: str, job: ctypes.Structure, blocks: int, threads: int) -> None:
        """Start a kernel with its one argument on torch's current stream. Raises RuntimeError if the driver refuses."""
        if kernel not in self._kernels:
            self._kernels[kernel] = self._find(kernel)
        stream = ctypes.c_void_p(torch.cuda.current_stream(self._index).cuda_stream)
        arguments = (ctypes.c_void_p * 1)(ctypes.addressof(job))
        with _Context(self._index):
            status = driver().cuLaunchKernel(
                self._kernels[kernel], blocks, 1, 1, threads, 1, 1, 0, stream, arguments, None
            )  # fmt: skip
        if status:
            raise RuntimeError(f"CUDA error: {kernel}, an operator, cannot be started: {error_name(status)}")

    def _find(self, kernel: str) -> ctypes.c_void_p:
        found = ctypes.c_void_p()
        status = driver().cuModuleGetFunction(ctypes.byref(found), self._module, kernel.encode())
        if status:
            raise RuntimeError(f"CUDA error: there is no kernel {kernel}: {error_name(status)}")
        return found


class _Context:
    """The device's primary context, which is torch's own, is the current one inside."""

    def __init__(self, index: int) -> None:
        self.handle = _primary_context(index)

    def __enter__(self) -> None:
        status = driver().cuCtxPushCurrent_v2(self.handle)
        if status:
            raise RuntimeError(f"CUDA error: {error_name(status)}")

    def __exit__(self, *_: object) -> None:
        driver().cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))


@cache
def driver() -> ctypes.CDLL:
    """The driver's library. Raises Unavailable if there is none."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise Unavailable("there is no driver for NVIDIA GPUs") from error
    if status := library.cuInit(0):
        raise Unavailable(f"the driver for NVIDIA GPUs does not start (status {status})")
    return library


@cache
def _primary_context(index: int) -> ctypes.c_void_p:
    torch.zeros(1, device=f"cuda:{index}")  # by now torch has made it
    device, context = ctypes.c_int(), ctypes.c_void_p()
    status = driver().cuDeviceGet(ctypes.byref(device), index)
    status = status or driver().cuDevicePrimaryCtxRetain(ctypes.byref(context), device)
    if status:
        raise Unavailable(f"the driver refuses GPU {index}: {error_name(status)}")
    return context


def error_name(status: int) -> str:
    """What the driver calls it."""
    name = ctypes.c_char_p()
    driver().cuGetErrorName(status, ctypes.byref(name))
    return name.value.decode() if name.value else f"status {status}"


def architecture(index: int) -> str:
    """sm_90 and the like."""
    major, minor = torch.cuda.get_device_capability(index)
    return f"sm_{major}{minor}"


@cache
def program(text: Text, index: int, maker: Maker) -> Program:
    """The text, compiled for the device and loaded there. Raises Unavailable with a reason to print."""
    if not torch.cuda.is_available():
        raise Unavailable("torch finds no GPU")
    return Program(cubins([text], architecture(index), maker)[0], index)


@cache
def why_not(text: Text, index: int, maker: Maker) -> str | None:
    """Why there is no such program; None if there is."""
    try:
        program(text, index, maker)
    except Unavailable as reason:
        return str(reason)
    return None


@cache
def blocks_for(index: int | None, wanted: int) -> int:
    """How many blocks to start, of kernels whose blocks take all work in turn."""
    return max(1, min(wanted, BLOCKS_OF_PROCESSOR * torch.cuda.get_device_properties(index).multi_processor_count))


def driver_version() -> str:
    """The newest CUDA that the driver can do. Raises Unavailable if there is no driver."""
    found = ctypes.c_int()
    driver().cuDriverGetVersion(ctypes.byref(found))
    return f"for CUDA up to {found.value // 1000}.{found.value % 1000 // 10}"
