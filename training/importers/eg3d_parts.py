"""The parts that EG3D and its descendants release beside StyleGAN2's, as nodes, with the quirks of their renderer."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from dnnlib.errors import CheckpointError
from training.importers.nvlabs_pickle import PickledNetwork
from training.importers.stylegan2_parts import taps
from training.rendering.hierarchical import RaySettings

PLANE_AXES = {"eg3d_legacy": "legacy", "fixed": "fixed"}
XY, XZ = ((1, 0, 0), (0, 1, 0), (0, 0, 1)), ((1, 0, 0), (0, 0, 1), (0, 1, 0))
PLANES: dict[Any, str] = {  # the tensor that a renderer carries
    (XY, XZ, ((0, 0, 1), (1, 0, 0), (0, 1, 0))): "eg3d_legacy",
    (XY, XZ, ((0, 0, 1), (0, 1, 0), (1, 0, 0))): "fixed",
}
# The super-resolution classes by their ends: sides of the input and of the image.
SUPERRESOLUTION = {
    "Hybrid8XDC": (128, 512), "Hybrid8X": (128, 512), "Hybrid4X": (128, 256), "Hybrid2X": (64, 128),
    "HybridDeepfp32": (128, 256),
}  # fmt: skip
LEGACY = {"bins": "nodes", "importance": "legacy", "depth_clamp": "legacy", "misses": "legacy"}
QUIRKS = {
    "legacy": "plane axes: the third plane repeats the second, and none sees (y, z)",
    "bins": "samples: the last coarse one lies up to one bin beyond the far end",
    "importance": "samples: the fine ones never reach the far end",
    "depth_clamp": "depth is clamped to that of the whole batch",
    "misses": "rays that miss the box take the depths of others",
    "raw": "the raw image holds the first block of super-resolution where it is not resized",
}


def ray_settings(options: Mapping[str, Any]) -> RaySettings:
    """EG3D's rendering options, with the quirks of its renderer."""
    arguments = ray_arguments(options)
    arguments["samples"] = tuple(arguments["samples"])
    return RaySettings(**arguments)


def ray_arguments(options: Mapping[str, Any]) -> dict[str, Any]:
    """The same as arguments."""
    if options.get("clamp_mode", "softplus") != "softplus":
        raise CheckpointError(f"clamp_mode={options['clamp_mode']!r}: EG3D's marcher only knows 'softplus'.")
    near, far = (None if options[end] == "auto" else options[end] for end in ("ray_start", "ray_end"))
    return {
        "near": near, "far": far,
        "samples": [options["depth_resolution"], options["depth_resolution_importance"]],
        "spacing": "disparity" if options.get("disparity_space_sampling", False) else "depth",
        "background": "white" if options.get("white_back", False) else "black",
        "density_noise": options.get("density_noise", 0), **LEGACY,
    }  # fmt: skip


def field_node(state: Mapping[str, Tensor], options: Mapping[str, Any], axes: str) -> dict[str, Any]:
    """The field whose decoder's tensors stand under "decoder."; axes as PLANE_AXES names them."""
    if axes not in PLANE_AXES:
        raise CheckpointError(f"plane_axes={axes!r} is none of {', '.join(PLANE_AXES)}.")
    first, last = state["decoder.net.0.weight"], state["decoder.net.2.weight"]
    return {
        "_target_": "training.layers.fields.TriplaneField",
        "features": first.shape[1], "hidden": first.shape[0], "colours": last.shape[0] - 1,
        "box_side": options["box_warp"], "axes": PLANE_AXES[axes], "lr_multiplier": options.get("decoder_lr_mul", 1),
    }  # fmt: skip


def shown_axes(net: PickledNetwork) -> str:
    """The plane axes of a pickled generator, from the tensor of its renderer. Files without one are old."""
    planes = net.attributes.get("renderer.plane_axes")
    if planes is None:
        return "eg3d_legacy"
    found = tuple(tuple(tuple(row) for row in plane) for plane in planes.tolist())
    if found not in PLANES:
        raise CheckpointError(f"the renderer's plane_axes {planes.tolist()} are none of EG3D's")
    return PLANES[found]


def upsampler_node(
    state: Mapping[str, Tensor], arguments: Mapping[str, Any], options: Mapping[str, Any]
) -> dict[str, Any]:
    """Super-resolution to load the tensors under "superresolution." into. Reads sr_kwargs, sr_num_fp16_res."""
    how = arguments.get("sr_kwargs", {})
    name = str(options["superresolution_module"]).rpartition(".")[2].removeprefix("Superresolution")
    if name not in SUPERRESOLUTION:
        raise CheckpointError(f"Super-resolution {options['superresolution_module']!r:.100} is none of EG3D's.")
    input_resolution, img_resolution = SUPERRESOLUTION[name]
    return {
        "_target_": "training.layers.upsample.SuperResolution",
        "w_dim": state["block0.conv0.affine.weight"].shape[1], "input_resolution": input_resolution,
        "img_resolution": img_resolution, "widths": [state[f"block{i}.conv1.weight"].shape[0] for i in (0, 1)],
        "features": state["block0.conv0.weight"].shape[1], "img_channels": state["block0.torgb.weight"].shape[0],
        "antialias": options.get("sr_antialias", True) and name != "HybridDeepfp32",
        "noise": options.get("superresolution_noise_mode", "none"), "raw_in_place": True,
        "conv_clamp": 256 if arguments.get("sr_num_fp16_res", 0) > 0 else None,
        "use_noise": "block0.conv0.noise_strength" in state, "resample_filter": taps(state, "block1.resample_filter"),
        **({"activation": how["activation"]} if "activation" in how else {}),
    }  # fmt: skip


def quirks_of(node: Mapping[str, Any]) -> tuple[str, ...]:
    """The quirks that a generator's node asks for, in words."""
    rays, upsampler = node["rays"], node["upsampler"]
    asked = [node["field"]["axes"], *LEGACY]
    if rays["near"] is not None:
        asked.remove("misses")
    if upsampler["img_resolution"] < 4 * upsampler["input_resolution"]:  # its first block keeps the size
        asked.append("raw")
    return tuple(QUIRKS[name] for name in asked if name in QUIRKS)
