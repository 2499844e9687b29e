"""Published pickles are read bit for bit, by their content, and not if they were cut short."""

import os
import pickle
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from dnnlib.errors import CheckpointError
from tests.importers.published_files import fixture, known_modules, network, stylegan2_file
from training.importers.nvlabs_pickle import is_pickle, read_networks


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_file_is_read_bit_for_bit(protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    _, G, told = fixture("stylegan2_core_generator")
    path = stylegan2_file(tmp_path / "x.pkl", monkeypatch, protocol)
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    found = read_networks(path)
    assert list(found) == ["G", "D", "G_ema"]
    net = found["G"]
    assert (net.class_name, net.args, net.kwargs) == ("Generator", (), told)
    assert net.state.keys() == G.keys()
    assert all(torch.equal(net.state[name], tensor) for name, tensor in G.items())
    weights = [t for t in net.state.values() if t.ndim == 4]
    assert all(t.is_contiguous(memory_format=torch.channels_last) for t in weights)
    assert net.attributes["mapping.weight_gain"] == 0.25
    assert net.attributes["size"] == (1, 2)
    assert net.source.startswith("import os")
    assert os.listdir(tmp_path) == ["x.pkl"]  # its source was not run
    assert list(read_networks(path, ["G_ema"])) == ["G_ema"]


def test_plain_attributes_and_small_tensors_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    axes = torch.arange(27.0).reshape(3, 3, 3)
    known_modules(monkeypatch, "training.volumetric_rendering.renderer.ImportanceRenderer")
    renderer = sys.modules["training.volumetric_rendering.renderer"].ImportanceRenderer()
    renderer.__dict__ |= {"_modules": {}, "_parameters": {}, "_buffers": {}, "plane_axes": axes, "big": torch.ones(999)}
    net = network("TriPlaneGenerator", {}, {"a": [1, (2.5, "x")]}, {"rendering_kwargs": {"box_warp": 1, "r": None}})
    net.meta["state"]["_modules"]["renderer"] = renderer
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"G_ema": net}))
    found = read_networks(tmp_path / "x.pkl")["G_ema"]
    assert torch.equal(found.attributes["renderer.plane_axes"], axes)
    assert found.attributes["renderer.big"] is None
    assert found.attributes["rendering_kwargs"] == {"box_warp": 1, "r": None}
    assert found.kwargs == {"a": [1, (2.5, "x")]}
    assert found.state == {}


def test_views_of_one_storage_stay_views(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    known_modules(monkeypatch)
    numbers = torch.arange(12.0)
    state = {"weight": numbers[2:8].view(2, 3).t(), "bias": numbers[6:9]}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"G": network("N", state, {})}))
    found = read_networks(tmp_path / "x.pkl")["G"].state
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())
    assert found["weight"].stride() == (1, 3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8])
def test_types_of_numbers(dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    known_modules(monkeypatch)
    kept = torch.arange(6).to(dtype)
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"G": network("N", {"w_avg": kept, "empty": kept[:0].float()}, {})}))
    found = read_networks(tmp_path / "x.pkl")["G"].state
    assert found["w_avg"].dtype == dtype
    assert torch.equal(found["w_avg"], kept)
    assert found["empty"].shape == (0,)


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_file_that_was_cut_short_is_told(protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = stylegan2_file(tmp_path / "x.pkl", monkeypatch, protocol)
    whole = path.read_bytes()
    for length in range(0, len(whole), len(whole) // 5):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"cut short|cannot be read"):
            read_networks(path)
    path.write_bytes(whole[: len(whole) - 1])
    with pytest.raises(CheckpointError, match="cut short"):
        read_networks(path)


def test_every_thousandth_byte_of_a_small_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    known_modules(monkeypatch)
    whole = pickle.dumps({"G": network("N", {f"w{i}": torch.ones(100) for i in range(40)}, {})}, 4)
    for length in range(0, len(whole), 1000):
        (tmp_path / "x.pkl").write_bytes(whole[:length])
        with pytest.raises(CheckpointError):
            read_networks(tmp_path / "x.pkl")


def test_pickles_are_known_by_their_content(tmp_path: Path):
    for head, known in ((b"\x80\x04\x95", True), (b"\x80\x02}q\x00", True), (b"PK\x03\x04", False), (b"", False)):
        (tmp_path / "x").write_bytes(head)
        assert is_pickle(tmp_path / "x") is known
    for size in range(2000):  # some headers' lengths begin with a pickle's first byte
        data = save({"a": torch.zeros(1)}, {"m": "x" * size})
        if data[0] == 0x80:
            (tmp_path / "x").write_bytes(data)
            assert not is_pickle(tmp_path / "x")
            return
    raise AssertionError("no such length was met")
