"""Manifests of published networks agree with our models, and what differs is named."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from apps.check_parity import main, read
from dnnlib.errors import CheckpointError
from training.importers.manifests import check_manifest, is_manifest

MANIFEST = Path(__file__).parent.parent / "parity" / "eg3d_manifest_shapenet128.safetensors"


def test_a_published_model_is_ours_tensor_by_tensor(capsys: pytest.CaptureFixture[str]):
    assert main([str(MANIFEST)]) == 0
    printed = capsys.readouterr().out
    assert "251 of 251 tensors agree" in printed
    assert "G/superresolution.block0.conv0.noise_const" in printed


def test_what_differs_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    metadata, tensors = read(MANIFEST)
    assert is_manifest(metadata["kind"])
    tensors["shape/G/decoder.extra"] = torch.tensor([3])
    tensors["shape/G/backbone.synthesis.b256.conv1.bias"] = torch.tensor([7])
    tensors["shape/D/b32.conv0.resample_filter"] = torch.tensor([2, 2])
    del tensors["shape/D/b4.out.bias"]
    save_file(tensors, tmp_path / "broken.safetensors", metadata)
    assert main([str(tmp_path / "broken.safetensors")]) == 1
    printed = capsys.readouterr().out
    for name in ("G/decoder.extra", "G/backbone.synthesis.b256.conv1.bias", "D/b4.out.bias"):
        assert f"failed: {name}\n" in printed
    assert "importer: decoder.extra has no place; model: decoder.extra has no place" in printed
    assert "nothing fills b4.out.bias" in printed


def test_a_manifest_that_cannot_be_judged_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    metadata, tensors = read(MANIFEST)
    kinds = (
        {"kind": "model_to_come_manifest_x"},
        {"class": "TriPlaneGenerator"},
        {"class": "Voxels + DualDiscriminator"},
    )
    for number, change in enumerate(kinds):
        path = tmp_path / f"{number}.safetensors"
        save_file(tensors, path, metadata | change)
        assert main([str(path)]) == 1
    printed = capsys.readouterr().out
    for said in ("no importer for the kind 'model_to_come_manifest_x'", "names 1 classes", "G is a Voxels"):
        assert said in printed
    with pytest.raises(CheckpointError, match="no importer"):
        check_manifest("stylenone_manifest_x", metadata, tensors)
