"""EG3D's releases (NVlabs/eg3d): generator, dual discriminator, and the decoder of its renderer."""

import json
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from dnnlib.errors import CheckpointError
from torch_utils.ops.triplane import PlaneAxes
from training.discriminators.dual import DualDiscriminator
from training.discriminators.stylegan2 import StyleGAN2Discriminator
from training.generators.eg3d import TriplaneGenerator
from training.importers.eg3d_fixtures import GENERATOR_PREFIXES, REPLAYS
from training.importers.eg3d_training import replay_losses
from training.importers.replaying import group, structured
from training.importers.strict import load_strictly
from training.importers.stylegan2_parts import discriminator_arguments, mapping_of, synthesis_of
from training.layers.fields import TriplaneField
from training.layers.labels import CAMERA_NUMBERS
from training.layers.upsample import SuperResolution
from training.rendering.hierarchical import RaySettings

PLANE_AXES: dict[str, PlaneAxes] = {"eg3d_legacy": "legacy", "fixed": "fixed"}
# The super-resolution classes by their ends: sides of the input and of the image.
SUPERRESOLUTION = {
    "Hybrid8XDC": (128, 512), "Hybrid8X": (128, 512), "Hybrid4X": (128, 256), "Hybrid2X": (64, 128),
    "HybridDeepfp32": (128, 256),
}  # fmt: skip
FROM_DATA = "dataset_label_std"  # a buffer that the reference's training loop adds


def import_network(kind: str, metadata: Mapping[str, str], state: Mapping[str, Tensor]) -> nn.Module:
    """TriplaneGenerator, DualDiscriminator (or StyleGAN2Discriminator for a single one), or a renderer's TriplaneField.

    The generator keeps the quirks its weights were trained with.
    """
    state = {name: tensor for name, tensor in state.items() if name != FROM_DATA}
    arguments = structured(metadata, "init_kwargs")
    if kind == "eg3d_generator":
        net: nn.Module = _generator(state, arguments, metadata)
        load_strictly(net, state, GENERATOR_PREFIXES)
    elif kind == "eg3d_discriminator":
        net = _discriminator(state, arguments, metadata)
        load_strictly(net, state)
    elif kind == "eg3d_renderer":
        options = arguments["options"] | {"decoder_lr_mul": arguments.get("decoder_lr_mul", 1)}
        net = _field(state, options, metadata)
        load_strictly(net, state, {"decoder.": ""})
    else:
        raise CheckpointError(f"A file of the kind {kind!r} has no network.")
    return net.eval()


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


def ray_settings(options: Mapping[str, Any]) -> RaySettings:
    """EG3D's rendering options, with the quirks of its renderer."""
    if options.get("clamp_mode", "softplus") != "softplus":
        raise CheckpointError(f"clamp_mode={options['clamp_mode']!r}: EG3D's marcher only knows 'softplus'.")
    near, far = (None if options[end] == "auto" else options[end] for end in ("ray_start", "ray_end"))
    return RaySettings(
        near=near, far=far,
        samples=(options["depth_resolution"], options["depth_resolution_importance"]),
        spacing="disparity" if options.get("disparity_space_sampling", False) else "depth",
        background="white" if options.get("white_back", False) else "black",
        density_noise=options.get("density_noise", 0), bins="nodes", importance="legacy", depth_clamp="legacy",
        misses="legacy",
    )  # fmt: skip


def _generator(
    state: Mapping[str, Tensor], arguments: Mapping[str, Any], metadata: Mapping[str, str]
) -> TriplaneGenerator:
    options = arguments["rendering_kwargs"]
    return TriplaneGenerator(
        mapping=mapping_of(group(state, "backbone.mapping."), arguments.get("mapping_kwargs", {})),
        backbone=synthesis_of(group(state, "backbone.synthesis."), arguments),
        field=_field(state, options, metadata),
        upsampler=_upsampler(group(state, "superresolution."), arguments),
        rays=ray_settings(options),
        pose_conditioning=not options.get("c_gen_conditioning_zero", False),
        camera_scale=options.get("c_scale", 0),
    )


def _field(state: Mapping[str, Tensor], options: Mapping[str, Any], metadata: Mapping[str, str]) -> TriplaneField:
    first, last = state["decoder.net.0.weight"], state["decoder.net.2.weight"]
    calls = structured(metadata, "call_args") if "call_args" in metadata else {}
    axes = calls.get("plane_axes", "eg3d_legacy")
    if axes not in PLANE_AXES:
        raise CheckpointError(f"plane_axes={axes!r} is none of {', '.join(PLANE_AXES)}.")
    return TriplaneField(
        features=first.shape[1], hidden=first.shape[0], colours=last.shape[0] - 1, box_side=options["box_warp"],
        axes=PLANE_AXES[axes], lr_multiplier=options.get("decoder_lr_mul", 1),
    )  # fmt: skip


def _upsampler(state: Mapping[str, Tensor], arguments: Mapping[str, Any]) -> SuperResolution:
    options, how = arguments["rendering_kwargs"], arguments.get("sr_kwargs", {})
    name = options["superresolution_module"].rpartition(".")[2].removeprefix("Superresolution")
    if name not in SUPERRESOLUTION:
        raise CheckpointError(f"Super-resolution {options['superresolution_module']} is none of EG3D's.")
    input_resolution, img_resolution = SUPERRESOLUTION[name]
    taken = ({"activation": how["activation"]}) if "activation" in how else {}
    return SuperResolution(
        w_dim=state["block0.conv0.affine.weight"].shape[1], input_resolution=input_resolution,
        img_resolution=img_resolution, widths=[state[f"block{i}.conv1.weight"].shape[0] for i in (0, 1)],
        features=state["block0.conv0.weight"].shape[1], img_channels=state["block0.torgb.weight"].shape[0],
        antialias=options.get("sr_antialias", True) and name != "HybridDeepfp32",
        noise=options.get("superresolution_noise_mode", "none"), raw_in_place=True,
        conv_clamp=256 if arguments.get("sr_num_fp16_res", 0) > 0 else None,
        use_noise="block0.conv0.noise_strength" in state, resample_filter=state["block1.resample_filter"].tolist(),
        **taken,
    )  # fmt: skip


def _discriminator(
    state: Mapping[str, Tensor], arguments: Mapping[str, Any], metadata: Mapping[str, str]
) -> DualDiscriminator | StyleGAN2Discriminator:
    embed = state.get("mapping.embed.weight")
    c_dim = 0 if embed is None else embed.shape[1]
    if 0 < c_dim < CAMERA_NUMBERS:
        raise CheckpointError(f"This discriminator is told {c_dim} numbers; a camera has {CAMERA_NUMBERS}.")
    body = discriminator_arguments(state, arguments)
    channels = state[f"b{body['img_resolution']}.fromrgb.weight"].shape[1]
    told = {"told": ("camera", "label") if c_dim else (), "label_dim": max(c_dim - CAMERA_NUMBERS, 0)}
    name = metadata.get("class", "DualDiscriminator").rpartition(".")[2]
    if name == "SingleDiscriminator":
        return StyleGAN2Discriminator(img_channels=channels, **told, **body)
    if name != "DualDiscriminator":
        raise CheckpointError(f"Discriminators of the class {name} are not supported.")
    return DualDiscriminator(
        img_channels=channels // 2, raw_taps=state["resample_filter"].tolist(),
        disc_c_noise=arguments.get("disc_c_noise", 0), **told, **body,
    )  # fmt: skip
