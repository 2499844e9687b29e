"""The way to a GPU's driver, with a driver that only writes down what it is told; and what a run is told."""

import ctypes
import shutil
import subprocess
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses import FakeTensorMode

from dnnlib.errors import ConfigError
from torch_utils.ops import cubins, gpu, native
from torch_utils.ops.builds import Unavailable
from torch_utils.ops.cubins import USUAL, Text

COMPILER = shutil.which("cc") or shutil.which("gcc")
DRIVER = r"""
#include <stdio.h>
#include <string.h>
#include <stdint.h>
char written[4096]; int refuse_module, refuse_launch, depth;
#define SAY(...) snprintf(written + strlen(written), sizeof written - strlen(written), __VA_ARGS__)
int cuInit(unsigned flags) { return 0; }
int cuDriverGetVersion(int *version) { *version = 13020; return 0; }
int cuDeviceGet(int *device, int index) { *device = index; return 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) {
    *context = (void *)(uintptr_t)(0x700000000000 + device); return 0;
}
int cuCtxPushCurrent_v2(void *context) { depth++; SAY("push %p;", context); return 0; }
int cuCtxPopCurrent_v2(void **context) { depth--; SAY("pop;"); return 0; }
int cuModuleLoadData(void **module, const char *image) {
    SAY("load %s;", image); *module = (void *)0x710000000000; return refuse_module;
}
int cuModuleGetFunction(void **function, void *module, const char *name) {
    SAY("find %s in %p;", name, module);
    *function = (void *)0x720000000000; return strcmp(name, "kernel") ? 500 : 0;
}
int cuLaunchKernel(void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void *stream, void **arguments, void **extra) {
    struct { void *pointer; int number; float part; } job;
    memcpy(&job, arguments[0], sizeof job);
    SAY("launch %p %u %u %u %u %u %u %u %p %p %d %g %p;", f, gx, gy, gz, bx, by, bz, shared, stream, job.pointer,
        job.number, job.part, (void *)extra);
    return refuse_launch;
}
int cuGetErrorName(int status, const char **name) { *name = status == 200 ? "INVALID_IMAGE" : 0; return 0; }
"""


class Job(ctypes.Structure):
    _fields_ = (("pointer", ctypes.c_void_p), ("number", ctypes.c_int), ("part", ctypes.c_float))


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """A machine with two GPUs, of which only the driver's library is there."""
    if COMPILER is None:
        pytest.skip("no C compiler on this machine")
    (tmp_path / "driver.c").write_text(DRIVER)
    target = tmp_path / "libdriver.so"
    subprocess.run([COMPILER, "-shared", "-fPIC", tmp_path / "driver.c", "-o", target], check=True)
    library = ctypes.CDLL(str(target))
    monkeypatch.setattr(gpu, "driver", lambda: library)
    monkeypatch.setattr(torch, "zeros", lambda *_, **__: None)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda index: SimpleNamespace(cuda_stream=0x730000000000 + index))
    caches = gpu._primary_context, gpu.program, gpu.why_not
    for cached in caches:
        cached.cache_clear()
    yield library
    for cached in caches:
        cached.cache_clear()


def written(library) -> list[str]:
    text = (ctypes.c_char * 4096).in_dll(library, "written")
    said = text.value.decode()
    text.value = b""
    return said.rstrip(";").split(";") if said else []


def refuse(library, what: str, status: int) -> None:
    ctypes.c_int.in_dll(library, f"refuse_{what}").value = status


def test_a_kernel_is_started_with_its_argument_on_torchs_stream_in_its_devices_context(driver, tmp_path):
    image = tmp_path / "x.cubin"
    image.write_bytes(b"machine code\0 and more")
    program = gpu.Program(image, 1)
    assert written(driver) == ["push 0x700000000001", "load machine code", "pop"]
    job = Job(0x123456789ABC, -7, 0.5)
    program.launch("kernel", job, 2**31 - 1, 256)
    found, push, launch, pop = written(driver)
    assert found == "find kernel in 0x710000000000"
    assert (push, pop) == ("push 0x700000000001", "pop")
    assert launch == (
        "launch 0x720000000000 2147483647 1 1 256 1 1 0 0x730000000001 0x123456789abc -7 0.5 (nil)"
    )  # fmt: skip
    program.launch("kernel", job, 1, 32)
    assert [word.partition(" ")[0] for word in written(driver)] == ["push", "launch", "pop"]  # found once


def test_what_the_driver_refuses_is_said_by_its_name_and_leaves_no_context_behind(driver, tmp_path):
    image = tmp_path / "x.cubin"
    image.write_bytes(b"x")
    refuse(driver, "module", 200)
    with pytest.raises(Unavailable, match=rf"{image} cannot be loaded \(INVALID_IMAGE\): delete it"):
        gpu.Program(image, 0)
    refuse(driver, "module", 0)
    program = gpu.Program(image, 0)
    with pytest.raises(RuntimeError, match="no kernel other: status 500"):
        program.launch("other", Job(), 1, 32)
    refuse(driver, "launch", 700)
    with pytest.raises(RuntimeError, match="kernel, an operator, cannot be started: status 700"):
        program.launch("kernel", Job(), 1, 32)
    assert ctypes.c_int.in_dll(driver, "depth").value == 0
    assert gpu.driver_version() == "for CUDA up to 13.2"


def test_a_program_is_made_once_for_each_device_and_size(driver, tmp_path, monkeypatch):
    asked = []

    def made(texts, arch, maker):
        asked.append((texts[0].macros, arch, maker))
        path = tmp_path / "x.cubin"
        path.write_bytes(b"x")
        return [path]

    monkeypatch.setattr(gpu, "cubins", made)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (9, index))
    for index in (0, 1, 0):
        for size in ("A=1", "A=2"):
            assert gpu.why_not(Text("x", (size,)), index, "nvrtc") is None
            gpu.program(Text("x", (size,)), index, "nvrtc")
    assert sorted(asked) == [((size,), arch, "nvrtc") for size in ("A=1", "A=2") for arch in ("sm_90", "sm_91")]


def test_a_machine_without_a_gpu_or_driver_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    gpu.why_not.cache_clear()
    assert gpu.why_not(USUAL["bias_act"], 0, "nvrtc") == "torch finds no GPU"
    gpu.why_not.cache_clear()
    gpu.driver.cache_clear()
    monkeypatch.setattr(gpu.ctypes, "CDLL", lambda name: exec("raise OSError"))
    with pytest.raises(Unavailable, match="no driver"):
        gpu.driver()
    gpu.driver.cache_clear()


@pytest.fixture
def machine(monkeypatch):
    """One with a GPU, where texts are in reach unless a reason is given."""
    reasons = dict.fromkeys(USUAL)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (9, 0))
    monkeypatch.setattr(gpu, "why_not", lambda text, index, maker: reasons[text.name])
    monkeypatch.setattr(cubins, "compiler", lambda maker: {"nvrtc": "NVRTC 13.2", "ninja": "nvcc 13.0"}[maker])
    monkeypatch.setattr(cubins, "cubins", lambda texts, arch, maker: [])
    yield reasons
    native.choose("auto")


def test_a_run_is_told_which_way_each_operator_goes_on_a_gpu(machine):
    everything = "bias_act upfirdn2d triplane_field ray_march"
    assert native.in_words("cuda") == f"Operators: {everything} compiled for sm_90 by NVRTC 13.2."
    name = native.version("cuda")
    assert name.startswith("kernels-")
    machine["upfirdn2d"] = "it is odd"
    said = native.in_words("cuda")
    assert "bias_act triplane_field ray_march compiled for sm_90" in said
    assert "; upfirdn2d torch's own, since it is odd." in said
    assert native.version("cuda") not in (name, "torch")
    machine.update(dict.fromkeys(USUAL, "there is no NVRTC"))
    assert native.in_words("cuda") == "Operators: torch's own, since there is no NVRTC."
    assert native.version("cuda") == "torch"
    native.choose("torch", torch.device("cuda"))
    assert native.in_words("cuda") == "Operators: torch's own, as ops=torch says."
    native.choose("ninja")
    machine.update(dict.fromkeys(USUAL))
    assert "by nvcc 13.0" in native.in_words("cuda")


@pytest.mark.parametrize("ops", ["strict", "ninja"])
def test_what_is_demanded_and_cannot_be_had_is_one_sentence(ops, machine):
    native.choose(ops, torch.device("cuda"))
    machine["ray_march"] = "it is odd"
    with pytest.raises(ConfigError, match=f"ops={ops}, but ray_march cannot be had, since it is odd; ops=auto does"):
        native.choose(ops, torch.device("cuda"))
    native.choose("auto", torch.device("cuda"))


def test_strict_is_for_cpus_as_well_and_ninja_is_not(monkeypatch):
    monkeypatch.setattr(native, "why_not", lambda: "there is no C compiler")
    try:
        native.choose("ninja", torch.device("cpu"))
        assert "no C compiler" in native.in_words("cpu")
        with pytest.raises(ConfigError, match="the library of operators cannot be had, since there is no C compiler"):
            native.choose("strict", torch.device("cpu"))
    finally:
        native.choose("auto")


def test_a_missing_toolkit_is_said_once_for_all_texts(machine, monkeypatch):
    def missing(texts, arch, maker):
        raise Unavailable("there is no nvcc: install a CUDA toolkit")

    monkeypatch.setattr(cubins, "cubins", missing)
    with pytest.raises(ConfigError, match="ops=ninja, but bias_act cannot be had, since there is no nvcc"):
        native.choose("ninja", torch.device("cuda"))


def test_kernels_are_for_what_lies_on_one_gpu_and_is_not_empty(machine):
    text = USUAL["bias_act"]

    def tensor(device: str, size: int = 1) -> torch.Tensor:
        with FakeTensorMode():
            return torch.empty(size, device=device)

    assert native.kernel_ready(text, tensor("cuda:0"), tensor("cuda:0"))
    assert not native.kernel_ready(text, tensor("cpu"))
    assert not native.kernel_ready(text, tensor("cuda:0"), tensor("cuda:1"))
    assert not native.kernel_ready(text, tensor("cuda:0"), tensor("cpu"))
    assert not native.kernel_ready(text, tensor("cuda:0"), tensor("cuda:0", 0))
    machine["bias_act"] = "it is odd"
    assert not native.kernel_ready(text, tensor("cuda:0"))
    native.choose("strict")
    with pytest.raises(ConfigError, match="bias_act cannot be had, since it is odd"):
        native.kernel_ready(text, tensor("cuda:0"))
    native.choose("torch")
    machine["bias_act"] = None
    assert not native.kernel_ready(text, tensor("cuda:0"))
