"""EG3D's releases (NVlabs/eg3d): generator, dual discriminator, and the decoder of its renderer."""

import json
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from dnnlib.errors import CheckpointError
from training.importers.eg3d_fixtures import GENERATOR_PREFIXES, REPLAYS
from training.importers.eg3d_parts import (
    field_node,
    quirks_of,
    ray_arguments,
    ray_settings,
    shown_axes,
    upsampler_node,
)
from training.importers.eg3d_training import replay_losses
from training.importers.nvlabs_pickle import PickledNetwork
from training.importers.replaying import group, structured
from training.importers.rigs import rig_at
from training.importers.strict import Description
from training.importers.stylegan2_parts import (
    discriminator_arguments,
    mapping_node,
    shown_arguments,
    synthesis_node,
    taps,
    told_arguments,
)
from training.layers.labels import CAMERA_NUMBERS

RIGS = ("face", "ffhq", "cat", "cars")
RAW_RESOLUTION = 64  # of a generator before its training sets another
FROM_DATA = ("dataset_label_std",)  # a buffer that the reference's training loop adds
DISCRIMINATORS = {
    "DualDiscriminator": "training.discriminators.dual.DualDiscriminator",
    "SingleDiscriminator": "training.discriminators.dual.SingleDiscriminator",
    "DummyDualDiscriminator": "training.discriminators.dual.FadingDiscriminator",
}


def import_network(kind: str, metadata: Mapping[str, str], state: Mapping[str, Tensor]) -> nn.Module:
    """A TriplaneGenerator, one of DISCRIMINATORS, or the TriplaneField of a renderer.

    The generator keeps the quirks its weights were trained with.
    """
    calls = structured(metadata, "call_args") if "call_args" in metadata else {}
    axes, arguments = calls.get("plane_axes", "eg3d_legacy"), told_arguments(structured(metadata, "init_kwargs"))
    if kind == "eg3d_generator":
        found = describe_generator(state, arguments, axes, RAW_RESOLUTION)
    elif kind == "eg3d_discriminator":
        name = metadata.get("class", "DualDiscriminator").rpartition(".")[2]
        found = describe_discriminator(state, arguments, name)
    elif kind == "eg3d_renderer":
        options = arguments["options"] | {"decoder_lr_mul": arguments.get("decoder_lr_mul", 1)}
        found = Description(field_node(state, options, axes), {"decoder.": ""})
    else:
        raise CheckpointError(f"A file of the kind {kind!r} has no network.")
    return found.load(state)


def describe(net: PickledNetwork) -> Description | None:
    """What a pickled network is in our terms; None if it is none of EG3D's.

    Rendering options are those that the generator holds, which may have changed since it was made.
    """
    arguments = shown_arguments(net, "backbone.")
    if net.class_name == "TriPlaneGenerator":
        arguments["rendering_kwargs"] = net.attributes.get("rendering_kwargs") or arguments["rendering_kwargs"]
        rays = net.attributes.get("neural_rendering_resolution", RAW_RESOLUTION)
        return describe_generator(net.state, arguments, shown_axes(net), rays)
    if net.class_name in DISCRIMINATORS:
        return describe_discriminator(net.state, arguments, net.class_name)
    return None


def replay(kind: str, metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if kind == "eg3d_losses":
        nets, arguments = _nets(metadata, tensors), structured(metadata, "init_kwargs")
        options = arguments["G"]["rendering_kwargs"]
        return replay_losses(structured(metadata, "call_args"), tensors, nets, arguments["loss"], options)
    if kind not in REPLAYS:
        raise CheckpointError(f"Files of the kind {kind!r} cannot be replayed yet.")
    if kind == "eg3d_camera":
        return REPLAYS[kind](structured(metadata, "call_args"), tensors)
    net = import_network(kind, metadata, group(tensors, "state/"))
    if kind == "eg3d_renderer":
        arguments = structured(metadata, "init_kwargs")
        fixed = {"settings": ray_settings(arguments["options"]), "resolution": arguments["resolution"]}
        return REPLAYS[kind](structured(metadata, "call_args"), tensors, net, **fixed)
    return REPLAYS[kind](structured(metadata, "call_args"), tensors, net)


def _nets(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> dict[str, nn.Module]:
    """Generator and discriminator of a fixture that holds both."""
    arguments, nets = structured(metadata, "init_kwargs"), {}
    for net, kind, dual in (("G", "eg3d_generator", ""), ("D", "eg3d_discriminator", "DualDiscriminator")):
        if net == "D" and not arguments["loss"]["dual_discrimination"]:
            dual = "SingleDiscriminator"
        told = dict(metadata) | {"init_kwargs": json.dumps(arguments[net]), "class": dual}
        nets[net] = import_network(kind, told, group(tensors, f"state/{net}/"))
    return nets


def describe_generator(
    state: Mapping[str, Tensor], arguments: Mapping[str, Any], axes: str, raw_resolution: int
) -> Description:
    options = arguments["rendering_kwargs"]
    mapping = mapping_node(group(state, "backbone.mapping."), arguments.get("mapping_kwargs", {}))
    node = {
        "_target_": "training.generators.eg3d.TriplaneGenerator",
        "mapping": mapping,
        "backbone": synthesis_node(group(state, "backbone.synthesis."), arguments),
        "field": field_node(state, options, axes),
        "upsampler": upsampler_node(group(state, "superresolution."), arguments, options),
        "rays": {"_target_": "training.rendering.hierarchical.RaySettings", **ray_arguments(options)},
        "raw_resolution": raw_resolution,
        "pose_conditioning": not options.get("c_gen_conditioning_zero", False),
        "camera_scale": options.get("c_scale", 0),
    }
    facts = {
        "resolution": node["upsampler"]["img_resolution"], "num_channels": node["upsampler"]["img_channels"],
        "label_dim": max(mapping["c_dim"] - CAMERA_NUMBERS, 0),
    }  # fmt: skip
    rig = rig_at(options.get("avg_camera_radius", 2.7), options.get("avg_camera_pivot", [0, 0, 0]), RIGS)
    return Description(node, GENERATOR_PREFIXES, facts, rig, quirks_of(node), FROM_DATA)


def describe_discriminator(state: Mapping[str, Tensor], arguments: Mapping[str, Any], class_name: str) -> Description:
    """class_name: of DISCRIMINATORS, or it raises CheckpointError."""
    if class_name not in DISCRIMINATORS:
        raise CheckpointError(f"Discriminators of the class {class_name} are not supported.")
    embed = state.get("mapping.embed.weight")
    c_dim = 0 if embed is None else embed.shape[1]
    if 0 < c_dim < CAMERA_NUMBERS:
        raise CheckpointError(f"This discriminator is told {c_dim} numbers; a camera has {CAMERA_NUMBERS}.")
    body = discriminator_arguments(state, arguments)
    channels = state[f"b{body['img_resolution']}.fromrgb.weight"].shape[1]
    node = {
        "_target_": DISCRIMINATORS[class_name], "told": ["camera", "label"] if c_dim else [],
        "label_dim": max(c_dim - CAMERA_NUMBERS, 0), "img_channels": channels,
        "disc_c_noise": arguments.get("disc_c_noise", 0), **body,
    }  # fmt: skip
    if class_name != "SingleDiscriminator":
        node |= {"img_channels": channels // 2, "raw_taps": taps(state, "resample_filter")}
    facts = {"resolution": body["img_resolution"], "num_channels": node["img_channels"], "label_dim": node["label_dim"]}
    return Description(node, {}, facts)
