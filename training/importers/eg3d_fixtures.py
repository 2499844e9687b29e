"""Replay of EG3D's fixtures: camera, renderer, generator, discriminator."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from dnnlib.errors import CheckpointError
from torch_utils.draws import Draws
from torch_utils.ema import commit_averages
from torch_utils.ops.triplane import plane_coordinates, sample_each_plane
from training.contracts import Camera, Condition, GeneratorOutput, RenderOptions
from training.discriminators.dual import DualDiscriminator, FadingDiscriminator, SingleDiscriminator
from training.generators.eg3d import TriplaneCodes, TriplaneGenerator, TriplaneScene
from training.importers.replaying import listed_gradients, probed, squared_slopes
from training.importers.replaying_losses import layer_noise
from training.layers.fields import TriplaneField
from training.layers.labels import CAMERA_NUMBERS
from training.layers.resize import filtered_resizing
from training.rendering.conventions import eg3d_intrinsics, eg3d_pose
from training.rendering.hierarchical import RayDraws, RaySettings, ray_draws, render_rays
from training.rendering.rays import Rays, box_range, image_rays, marked_misses
from training.rendering.sampling import importance, stratified
from training.rendering.volume import composite, expected_depth, midpoint_weights, to_samples

GENERATOR_PREFIXES = {
    "backbone.mapping.": "mapping_network.", "backbone.synthesis.": "backbone.", "superresolution.": "upsampler.",
    "decoder.": "field.",
}  # fmt: skip
Tensors = Mapping[str, Tensor]


def replay_camera(call_args: Mapping[str, Any], tensors: Tensors) -> dict[str, Tensor]:
    if call_args["horizontal_stddev"] or call_args["vertical_stddev"]:
        raise CheckpointError("Random cameras cannot be replayed: the file does not hold what was drawn.")
    h, v, radius = tensors["in/h"], tensors["in/v"], tensors["in/radius"]
    made = {
        "lookat_cam2world": eg3d_pose(h, v, radius, tensors["in/pivot"]),
        "origin_cam2world": eg3d_pose(h, v, radius, h.new_tensor(call_args["origin_look_at"]).expand(len(h), 3)),
        "intrinsics": eg3d_intrinsics(tensors["in/fov_degrees"]),
    }
    video = call_args.get("video")
    if video:
        turn = video["full_turn"] * torch.arange(video["num_frames"], dtype=torch.float64) / video["num_frames"]
        yaw = video["yaw_centre"] + video["yaw_range"] * turn.sin()
        pitch = video["pitch_centre"] + video["pitch_range"] * turn.cos()
        pivot = torch.tensor(video["pivot"], dtype=torch.float64).expand(len(turn), 3)
        radii = torch.full_like(turn, video["radius"])
        made[video["out"]] = eg3d_pose(yaw, pitch, radii, pivot).float()
    return stored_as_said(made, call_args)


def replay_renderer(
    call_args: Mapping[str, Any], tensors: Tensors, field: TriplaneField, *, settings: RaySettings, resolution: int
) -> dict[str, Tensor]:
    field.train(call_args["train"])
    camera = Camera(tensors["in/cam2world"], tensors["in/intrinsics"])
    rays = image_rays(camera, resolution)
    draws = fixed_ray_draws(call_args["draws"], rays, settings)
    planes = tensors["in/planes"].permute(0, 3, 4, 1, 2).contiguous()
    ends = settings.range(rays, field.box_side)
    seen = render_rays(field, planes, rays, ends, settings, draws)
    near, far = marked_misses(*box_range(rays.origins, rays.directions, call_args["box_side_length"]))
    each = sample_each_plane(planes, tensors["in/points"], field.axes, field.box_side)
    made = {
        "rays_o": rays.origins, "rays_d": rays.directions, "box_near": near[..., None], "box_far": far[..., None],
        "rgb": seen.features, "depth": seen.depth[..., None], "weights_sum": seen.opacity[..., None],
        "plane_features": each, "plane_uv": plane_coordinates(tensors["in/points"], field.axes).flatten(0, 1),
        **_passes(field, planes, rays, ends, settings, draws), **_march(tensors, settings),
    }  # fmt: skip
    gradients = _gradients(made, call_args["grad_outputs"], tensors, field, "grad/", {"decoder.": ""})
    return detached(stored_as_said(made, call_args) | gradients)


def _passes(
    field: TriplaneField, planes: Tensor, rays: Rays, ends: tuple[Tensor, Tensor], settings: RaySettings,
    draws: RayDraws,
) -> dict[str, Tensor]:  # fmt: skip
    """What happens between the two passes."""
    depths = stratified(*ends, draws.coarse, settings.bins, settings.spacing)
    made = {"depths_coarse": depths[..., None]}
    if draws.fine.shape[-1]:
        raw, _ = field(planes, rays.at(depths))
        weights = midpoint_weights(raw, depths)
        fine = importance(weights, depths, draws.fine, settings.importance)
        made |= {"weights_coarse": weights[..., None], "depths_fine": fine[..., None]}
    return made


def _march(tensors: Tensors, settings: RaySettings) -> dict[str, Tensor]:
    """The marcher alone, on given samples with colours in [0, 1]."""
    if "in/m_depths" not in tensors:
        return {}
    depths, raw = tensors["in/m_depths"].squeeze(-1), tensors["in/m_densities"].squeeze(-1)
    weights = midpoint_weights(raw, depths)
    shares = to_samples(weights)
    rgb = composite([shares], [2 * tensors["in/m_colors"] - 1], 1.0 if settings.background == "white" else -1.0)
    depth = expected_depth(shares, depths).clamp(depths.min(), depths.max())
    return {"march_rgb": rgb, "march_depth": depth[..., None], "march_weights": weights[..., None]}


def replay_generator(call_args: Mapping[str, Any], tensors: Tensors, G: TriplaneGenerator) -> dict[str, Tensor]:
    G.train(call_args["train"])
    if G.upsampler is not None:
        G.upsampler.noise = layer_noise(G.upsampler.noise, call_args)
    codes = _map(G, call_args["mapping"], tensors)
    made, resolution = {"ws": codes.ws}, G.raw_resolution
    for render in call_args["renders"]:
        resolution = render["neural_rendering_resolution"] or resolution  # the reference remembers the last one
        options = RenderOptions(noise=layer_noise(render["noise_mode"], call_args), resolution=resolution)
        with torch.set_grad_enabled(not render["no_grad"]):
            made |= _render(G, codes, tensors[f"in/{render['c']}"], options, call_args, render["suffix"])
    query = call_args.get("point_query")
    if query:
        scene = G.scene(codes, RenderOptions(noise=layer_noise(query["noise_mode"], call_args)))
        found = G.query(scene, tensors[f"in/{query['points']}"])
        made |= {"sigma": found.raw_density[..., None], "rgb": (found.colour + 1) / 2}
    stored = stored_as_said(made, call_args)
    shown = {name.removeprefix("out/"): tensor for name, tensor in stored.items()}
    return detached(stored | _gradients(shown, call_args["grad_outputs"], tensors, G, "grad/", GENERATOR_PREFIXES))


def _map(G: TriplaneGenerator, call: Mapping[str, Any], tensors: Tensors) -> TriplaneCodes:
    """The reference's mapping call: take over the mean, repeat, truncate."""
    camera, label = camera_and_label(tensors[f"in/{call['c']}"])
    codes = G.mapping(tensors["in/z"], Condition(camera=camera, label=label), bool(call["update_emas"]))
    commit_averages(G)
    psi, cutoff = call["truncation_psi"], call["truncation_cutoff"]
    return codes if psi == 1 else G.mean_codes().lerp(codes, psi, slice(cutoff))


def _render(
    G: TriplaneGenerator, codes: TriplaneCodes, c: Tensor, options: RenderOptions, call_args: Mapping[str, Any],
    suffix: str,
) -> dict[str, Tensor]:  # fmt: skip
    scene: TriplaneScene = G.scene(codes, options)
    camera, _ = camera_and_label(c)
    draws = fixed_ray_draws(call_args["draws"], image_rays(camera, options.resolution or G.raw_resolution), G.rays)
    recorded = Draws(0, items=range(len(c)), recorded={"jitter": draws.coarse, "importance": draws.fine})
    seen = G.render(scene, camera, replace(options, jitter="random", draws=recorded))
    assert seen.image_raw is not None
    assert seen.depth is not None
    assert seen.opacity is not None
    assert seen.features is not None
    return {
        "planes": scene.planes.flatten(3).permute(0, 3, 1, 2),
        f"image{suffix}": seen.image, f"image_raw{suffix}": seen.image_raw, f"image_depth{suffix}": seen.depth,
        f"features{suffix}": seen.features.flatten(2).transpose(1, 2),
        f"weights_sum{suffix}": seen.opacity.flatten(2).transpose(1, 2),
    }  # fmt: skip


def replay_discriminator(call_args: Mapping[str, Any], tensors: Tensors, D: SingleDiscriminator) -> dict[str, Tensor]:
    D.train(call_args["train"])
    images = {name: tensors[f"in/{name}"].clone().requires_grad_() for name in call_args["images"]}
    camera, label = camera_and_label(tensors["in/c"]) if D.c_dim else (None, None)
    output = GeneratorOutput(image=images["image"], image_raw=images.get("image_raw"))
    n = len(output.image)
    # Of the draws a fading discriminator takes the images seen: the reference's first pass has seen 32.
    draws = Draws(0, nimg=32, items=range(n), batch=n) if isinstance(D, FadingDiscriminator) else None
    score = D(output, Condition(camera=camera, label=label), draws).score
    made = {"logits": score[:, None]} | squared_slopes(score, images, call_args["r1_inputs"])
    if isinstance(D, DualDiscriminator):
        size, mode = images["image"].shape[-1], call_args["filter_mode"]
        made["image_raw_resized"] = filtered_resizing(images["image_raw"], size, D.resample_filter, mode)
    gradients = _gradients(made, call_args["grad_outputs"], tensors, D, "grad/")
    gradients |= _gradients(made, call_args["grad_r1_outputs"], tensors, D, "grad_r1/")
    return detached(stored_as_said(made, call_args) | gradients)


def _gradients(
    made: Tensors, names: Sequence[str], tensors: Tensors, net: nn.Module, prefix: str,
    prefixes: Mapping[str, str] | None = None,
) -> dict[str, Tensor]:  # fmt: skip
    """The listed gradients of the probed outputs of these names."""
    return listed_gradients(probed(made, names, tensors), net, tensors, prefix, prefixes) if names else {}


def detached(tensors: Tensors) -> dict[str, Tensor]:
    return {name: tensor.detach() for name, tensor in tensors.items()}


def camera_and_label(c: Tensor) -> tuple[Camera, Tensor | None]:
    """Camera and class label of the reference's conditioning vector."""
    return Camera.from_label(c[:, :CAMERA_NUMBERS]), c[:, CAMERA_NUMBERS:] if c.shape[1] > CAMERA_NUMBERS else None


def fixed_ray_draws(said: Mapping[str, Any], rays: Rays, settings: RaySettings) -> RayDraws:
    if said["importance"] != "midpoints":
        raise CheckpointError(f"draws.importance={said['importance']!r} is no rule that can be replayed.")
    draws = ray_draws(rays, settings.samples)
    return replace(draws, coarse=torch.full_like(draws.coarse, said["stratified_jitter"]))


def stored_as_said(made: Tensors, call_args: Mapping[str, Any]) -> dict[str, Tensor]:
    """The outputs as the file has them: every step-th entry of some axes."""
    out = {}
    for name, tensor in made.items():
        axes, step = call_args.get("stored", {}).get(name, ((), 1))
        out[f"out/{name}"] = tensor[_every(axes, step, tensor.ndim)]
    return out


def _every(axes: Sequence[int], step: int, ndim: int) -> tuple[slice, ...]:
    return tuple(slice(None, None, step if axis in axes else 1) for axis in range(ndim))


REPLAYS: dict[str, Callable[..., dict[str, Tensor]]] = {
    "eg3d_camera": replay_camera, "eg3d_renderer": replay_renderer, "eg3d_generator": replay_generator,
    "eg3d_discriminator": replay_discriminator,
}  # fmt: skip
