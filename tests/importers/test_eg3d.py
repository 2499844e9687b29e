"""Import and replay of EG3D's networks."""

import json
from pathlib import Path

import pytest
import torch

from apps.check_parity import read
from dnnlib.errors import CheckpointError
from training.contracts import Camera, Condition, RenderOptions
from training.discriminators.dual import DualDiscriminator, FadingDiscriminator, SingleDiscriminator
from training.generators.eg3d import TriplaneGenerator
from training.importers import import_network, replay
from training.importers.bounds import compare, replayed_names
from training.importers.eg3d import ray_settings
from training.importers.replaying import group
from training.layers.fields import TriplaneField

FIXTURES = {path.stem: path for path in sorted((Path(__file__).parent.parent / "parity").glob("eg3d_*.safetensors"))}
COUNTS = {"eg3d_camera": 4, "eg3d_renderer": 19, "eg3d_generator": 21, "eg3d_discriminator": 25, "eg3d_losses": 47}


def changed(metadata: dict[str, str], key: str, **values) -> dict[str, str]:
    """The metadata with entries of a structured one replaced."""
    return metadata | {key: json.dumps(json.loads(metadata[key]) | values)}


@pytest.fixture(scope="module")
def fixtures():
    return {name: read(path) for name, path in FIXTURES.items() if name in COUNTS}


@pytest.mark.parametrize("kind", COUNTS)
def test_our_networks_give_the_references_numbers(fixtures, kind: str):
    metadata, tensors = fixtures[kind]
    ours = replay(metadata["kind"], metadata, tensors)
    verdicts = [compare(name, ours.get(name), tensors[name], metadata) for name in replayed_names(tensors)]
    assert len(verdicts) == COUNTS[kind]
    assert [verdict for verdict in verdicts if not verdict.passed] == []


def test_several_renders_with_and_without_gradient(fixtures):
    """A second camera, another resolution, no gradient: the first render stays what it was."""
    metadata, tensors = fixtures["eg3d_generator"]
    calls = json.loads(metadata["call_args"])
    first = calls["renders"][0]
    second = first | {"suffix": "_other", "c": "c_cond", "neural_rendering_resolution": None, "no_grad": True}
    told = changed(metadata, "call_args", renders=[first, second], grad_outputs=["image", "sigma"])
    ours = replay("eg3d_generator", told, tensors)
    for name in ("image", "image_raw", "image_depth", "features", "weights_sum"):
        assert compare(f"out/{name}", ours[f"out/{name}"], tensors[f"out/{name}"], metadata).passed
        assert ours[f"out/{name}_other"].shape[0] == 2
    assert ours["out/image_raw_other"].shape == ours["out/image_raw"].shape  # null: the last one's resolution
    assert (ours["out/image_raw_other"] - ours["out/image_raw"]).abs().max() > 1e-3
    alone = replay("eg3d_generator", changed(metadata, "call_args", renders=[second], grad_outputs=[]), tensors)
    assert alone["out/image_raw_other"].shape == (2, 3, 64, 64)  # null at first: the reference's 64
    assert not [name for name in alone if name.startswith("grad/")]


def test_the_imported_generator_keeps_its_quirks(fixtures):
    metadata, tensors = fixtures["eg3d_generator"]
    G = import_network("eg3d_generator", metadata, group(tensors, "state/"))
    assert isinstance(G, TriplaneGenerator)
    assert G.upsampler is not None
    assert (G.field.axes, G.rays.importance, G.rays.bins, G.rays.depth_clamp) == ("legacy", "legacy", "nodes", "legacy")
    assert G.upsampler.raw_in_place
    assert (G.z_dim, G.img_resolution, G.raw_resolution) == (16, 128, 64)
    codes = G.mapping(tensors["in/z"], Condition(camera=Camera.from_label(tensors["in/c"])))
    camera = Camera.from_label(tensors["in/c"])
    few = RenderOptions(samples=(4, 2))
    with torch.no_grad():
        out = G.synthesis(codes, camera, few)  # raw 64 px: no resize, so the raw image is altered
        assert out.features is not None
        assert out.image_raw is not None
        assert (out.image_raw - out.features[:, :3]).abs().max() > 1e-3
        out = G.synthesis(codes, camera, RenderOptions(samples=(4, 2), resolution=16))
    assert out.features is not None
    assert out.image_raw is not None
    assert torch.equal(out.image_raw, out.features[:, :3])


def test_plane_axes_are_read_from_the_file(fixtures):
    metadata, tensors = fixtures["eg3d_renderer"]
    field = import_network(
        "eg3d_renderer", changed(metadata, "call_args", plane_axes="fixed"), group(tensors, "state/")
    )
    assert isinstance(field, TriplaneField)
    assert field.axes == "fixed"
    with pytest.raises(CheckpointError, match="plane_axes"):
        import_network("eg3d_renderer", changed(metadata, "call_args", plane_axes="new"), group(tensors, "state/"))


def test_rendering_options_become_settings():
    options = {"depth_resolution": 9, "depth_resolution_importance": 0, "ray_start": "auto", "ray_end": "auto"}
    settings = ray_settings(options | {"white_back": True, "disparity_space_sampling": True})
    assert (settings.near, settings.far, settings.samples) == (None, None, (9, 0))
    assert (settings.background, settings.spacing) == ("white", "disparity")
    settings = ray_settings(options | {"ray_start": 0.1, "ray_end": 2.6})
    assert (settings.near, settings.far, settings.background) == (0.1, 2.6, "black")
    with pytest.raises(CheckpointError, match="clamp_mode"):
        ray_settings(options | {"clamp_mode": "relu"})


def test_a_conditioning_that_is_off_hides_the_camera(fixtures):
    metadata, tensors = fixtures["eg3d_generator"]
    rendering = json.loads(metadata["init_kwargs"])["rendering_kwargs"]
    scale_left_out = {key: value for key, value in rendering.items() if key != "c_scale"}
    for options in (rendering | {"c_gen_conditioning_zero": True}, scale_left_out):
        told = changed(metadata, "init_kwargs", rendering_kwargs=options)
        G = import_network("eg3d_generator", told, group(tensors, "state/"))
        assert isinstance(G, TriplaneGenerator)
        z, camera = tensors["in/z"], Camera.from_label(tensors["in/c"])
        assert torch.equal(G.mapping(z, Condition(camera=camera)).ws, G.mapping(z, Condition()).ws)


def test_a_tensor_too_many_or_too_few_is_named(fixtures):
    metadata, tensors = fixtures["eg3d_generator"]
    state = group(tensors, "state/")
    import_network("eg3d_generator", metadata, state | {"dataset_label_std": torch.ones(25)})
    with pytest.raises(CheckpointError, match=r"decoder\.extra has no place"):
        import_network("eg3d_generator", metadata, state | {"decoder.extra": torch.zeros(1)})
    del state["superresolution.block1.conv1.bias"]
    with pytest.raises(CheckpointError, match=r"nothing fills upsampler\.block1\.conv1\.bias"):
        import_network("eg3d_generator", metadata, state)


def test_discriminators_by_class(fixtures):
    metadata, tensors = fixtures["eg3d_discriminator"]
    state = group(tensors, "state/")
    D = import_network("eg3d_discriminator", metadata, state)
    assert isinstance(D, DualDiscriminator)
    single = metadata | {"class": "training.dual_discriminator.SingleDiscriminator"}
    D = import_network("eg3d_discriminator", single, state)  # this one sees six channels as one image
    assert type(D) is SingleDiscriminator
    dummy = metadata | {"class": "training.dual_discriminator.DummyDualDiscriminator"}
    assert isinstance(import_network("eg3d_discriminator", dummy, state), FadingDiscriminator)
    other = metadata | {"class": "training.dual_discriminator.TripleDiscriminator"}
    with pytest.raises(CheckpointError, match="TripleDiscriminator"):
        import_network("eg3d_discriminator", other, state)


@pytest.mark.parametrize(
    ("kind", "change", "reason"),
    [
        ("eg3d_camera", {"horizontal_stddev": 0.1}, "Random cameras"),
        ("eg3d_renderer", {"draws": {"importance": "linspace", "stratified_jitter": 0.5}}, "importance"),
        ("eg3d_generator", {"renders": [{"noise_mode": "random", "neural_rendering_resolution": 8}]}, "Random noise"),
    ],
)
def test_what_cannot_be_replayed_is_said(fixtures, kind, change, reason):
    metadata, tensors = fixtures[kind]
    with pytest.raises(CheckpointError, match=reason):
        replay(kind, changed(metadata, "call_args", **change), tensors)


def test_kinds_without_network_or_replay():
    with pytest.raises(CheckpointError, match="no network"):
        import_network("eg3d_camera", {"init_kwargs": "{}"}, {})
    with pytest.raises(CheckpointError, match="cannot be replayed"):
        replay("eg3d_manifest_ffhq512", {}, {})
