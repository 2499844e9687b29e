"""CUDA texts compiled for GPUs that are not here, by NVRTC and by nvcc with ninja; kept, and what can go wrong."""

import re
from pathlib import Path

import pytest

from torch_utils.ops import builds, cubins, native
from torch_utils.ops.builds import Unavailable
from torch_utils.ops.cubins import USUAL, Text
from torch_utils.ops.triplane_field import WIDENING

SMALL = [
    *(Text("bias_act", (f"ELEMENT={element}",)) for element in range(3)),
    Text("upfirdn2d", ("DOWN_X=3", "DOWN_Y=2", "ELEMENT=1", "TAPS_X=12", "TAPS_Y=1", "UP_X=1", "UP_Y=2")),
    *(Text(name, ("FEATURES=5", "HIDDEN=9", "COLOURS=3", "AXES=0x010220")) for name in ("triplane_field", "ray_march")),
]
KERNEL = re.compile(rb"\.text\.(\w+)")
KERNELS = {
    "bias_act": {b"bias_act_forward", b"bias_act_backward"},
    "upfirdn2d": {b"upfirdn2d"},
    "triplane_field": {b"field_forward", b"field_backward"},
    "ray_march": {b"march_forward", b"march_backward"},
}


def why_not(maker) -> str | None:
    try:
        cubins.compiler(maker)
        if maker == "ninja":
            cubins.ninja()
    except Unavailable as reason:
        return str(reason)
    return None


needs_nvrtc = pytest.mark.skipif(why_not("nvrtc") is not None, reason=str(why_not("nvrtc")))
needs_nvcc = pytest.mark.skipif(why_not("ninja") is not None, reason=str(why_not("ninja")))


def newest() -> str:
    return cubins.architectures()[-1]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("PARALLAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@needs_nvrtc
@pytest.mark.parametrize("arch", ["sm_75", "sm_80", "sm_90", "newest"])
def test_all_texts_compile_for_gpus_old_and_new(arch):
    """In all precisions, at small sizes; without a GPU."""
    arch = newest() if arch == "newest" else arch
    for path, text in zip(cubins.cubins(SMALL, arch), SMALL, strict=True):
        assert path.name.startswith(f"{text.name}-{arch}-nvrtc-")
        assert set(KERNEL.findall(path.read_bytes())) >= KERNELS[text.name]


@needs_nvrtc
def test_texts_compile_at_the_usual_sizes():
    for path, name in zip(cubins.cubins(list(USUAL.values()), "sm_90"), USUAL, strict=True):
        assert set(KERNEL.findall(path.read_bytes())) >= KERNELS[name]


@needs_nvcc
def test_nvcc_and_ninja_make_the_same_kernels_of_the_same_texts(cache):
    paths = cubins.cubins(SMALL, "sm_90", "ninja")
    for path, text in zip(paths, SMALL, strict=True):
        assert set(KERNEL.findall(path.read_bytes())) >= KERNELS[text.name]
    assert sorted(cache.iterdir()) == sorted(paths)  # no drafts
    before = [path.stat().st_mtime_ns for path in paths]
    assert [path.stat().st_mtime_ns for path in cubins.cubins(SMALL, "sm_90", "ninja")] == before


@needs_nvrtc
def test_a_cubin_is_kept_and_another_text_size_or_gpu_makes_another(tmp_path, monkeypatch, cache):
    folder = tmp_path / "texts"
    folder.mkdir()
    monkeypatch.setattr(builds, "TEXTS", folder)
    (folder / "tiny.cu").write_text('#include "own.cuh"\nextern "C" __global__ void f(int *x) { *x = SIZE + OWN; }\n')
    (folder / "own.cuh").write_text("#define OWN 1\n")
    made = set()

    def make(size=1, arch="sm_80") -> Path:
        (path,) = cubins.cubins([Text("tiny", (f"SIZE={size}",))], arch)
        made.add(path)
        return path

    first = make()
    time = first.stat().st_mtime_ns
    assert make() == first
    assert first.stat().st_mtime_ns == time
    make(size=2)
    make(arch="sm_90")
    (folder / "own.cuh").write_text("#define OWN 2\n")
    make()
    monkeypatch.setattr(cubins, "compiler", lambda maker: "NVRTC 99.0")
    make()
    assert len(made) == 5
    assert sorted(cache.iterdir()) == sorted(made)


@pytest.mark.parametrize("maker", ["nvrtc", "ninja"])
def test_an_error_in_a_text_is_one_line(maker, tmp_path, monkeypatch, cache):
    if why_not(maker):
        pytest.skip(str(why_not(maker)))
    monkeypatch.setattr(builds, "TEXTS", tmp_path)
    (tmp_path / "tiny.cu").write_text('extern "C" __global__ void f(int *x) { *x = nothing; }\n')
    with pytest.raises(Unavailable, match=r'tiny\.cu.*error.*"nothing" is undefined') as caught:
        cubins.cubins([Text("tiny")], "sm_90", maker)
    assert "\n" not in str(caught.value)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("maker", ["nvrtc", "ninja"])
def test_a_gpu_that_the_compiler_does_not_know_is_named(maker):
    if why_not(maker):
        pytest.skip(str(why_not(maker)))
    with pytest.raises(Unavailable, match="sm_10"):
        cubins.cubins([SMALL[0]], "sm_10", maker)


@needs_nvrtc
def test_a_cubin_that_others_can_write_is_refused():
    (path,) = cubins.cubins([SMALL[0]], "sm_90")
    path.chmod(0o666)
    with pytest.raises(Unavailable, match="others can write"):
        cubins.cubins([SMALL[0]], "sm_90")


def test_without_compilers_it_says_what_to_install(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CUDA_HOME", "/nowhere")
    monkeypatch.setattr(cubins.shutil, "which", lambda *_, **__: None)
    with pytest.raises(Unavailable, match="there is no nvcc: install a CUDA toolkit"):
        cubins.nvcc()
    monkeypatch.setattr(cubins.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Unavailable, match="pip install ninja"):
        cubins.ninja()
    cubins.nvrtc.cache_clear()
    try:
        monkeypatch.setattr(cubins.torch.version, "cuda", None)
        with pytest.raises(Unavailable, match="without CUDA"):
            cubins.nvrtc()
        monkeypatch.setattr(cubins.torch.version, "cuda", "99.0")
        monkeypatch.setattr(cubins.ctypes, "CDLL", lambda name: exec("raise OSError"))
        with pytest.raises(Unavailable, match="no NVRTC"):
            cubins.nvrtc()
    finally:
        cubins.nvrtc.cache_clear()


def test_texts_need_no_header_of_torch_or_of_a_toolkit():
    for path in [*builds.TEXTS.glob("*.cu"), *builds.TEXTS.glob("*.cuh")]:
        included = re.findall(r'#include ["<](.*)[">]', path.read_text())
        assert all((builds.TEXTS / name).exists() for name in included), path.name
    assert set(USUAL) == {path.stem for path in builds.TEXTS.glob("*.cu")}
    assert WIDENING == 1.002
    assert native.CHOICES == ("auto", "torch", "ninja", "strict")
