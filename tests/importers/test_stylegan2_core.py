"""Import and replay of StyleGAN2's networks and operators."""

import json
from pathlib import Path

import pytest
import torch

from apps.check_parity import read
from dnnlib.errors import CheckpointError
from torch_utils.ops.upfirdn2d import setup_filter
from training.contracts import Condition, GeneratorOutput, RenderOptions
from training.discriminators.stylegan2 import StyleGAN2Discriminator
from training.generators.stylegan2 import StyleGAN2Generator
from training.importers import import_network, replay
from training.importers.bounds import compare, replayed_names
from training.layers.mapping import MappingNetwork
from training.layers.synthesis import SynthesisNetwork

FIXTURES = sorted((Path(__file__).parent.parent / "parity").glob("stylegan2_core_*.safetensors"))


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_our_networks_give_the_references_numbers(path: Path):
    metadata, tensors = read(path)
    ours = replay(metadata["kind"], metadata, tensors)
    verdicts = [compare(name, ours.get(name), tensors[name], metadata) for name in replayed_names(tensors)]
    assert len(verdicts) >= 18
    assert [verdict for verdict in verdicts if not verdict.passed] == []


def released(net: torch.nn.Module, prefixes: dict[str, str]) -> dict[str, torch.Tensor]:
    """The state as a reference would release it: its own names, and a filter in every layer, used or not."""
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    for name, module in net.named_modules():
        if hasattr(module, "resample_filter"):
            unused = setup_filter([1, 3, 3, 1])
            state[f"{name}.resample_filter"] = unused if module.resample_filter is None else module.resample_filter
    for ours, theirs in prefixes.items():
        state = {name.replace(ours, theirs): tensor for name, tensor in state.items()}
    return state


def scrambled(net: torch.nn.Module) -> torch.nn.Module:
    with torch.no_grad():
        for tensor in [*net.parameters(), *(b for n, b in net.named_buffers() if n.endswith("w_avg"))]:
            tensor.add_(0.3 * torch.randn_like(tensor))
    return net.eval()


GENERATORS = [
    ({}, {}),
    (
        {"c_dim": 4, "embed_features": 5, "layer_features": 6, "num_layers": 3, "activation": "relu"},
        {"img_channels": 1},
    ),
    ({"num_layers": 1, "w_avg_beta": None}, {"architecture": "resnet", "conv_clamp": 0.3}),
    ({"lr_multiplier": 0.5}, {"architecture": "orig", "use_noise": False, "activation": "swish", "img_channels": 4}),
    ({}, {"resample_filter": [1, 2, 1], "channels": {4: 5, 8: 3, 16: 4}, "img_resolution": 16}),
    ({}, {"resample_filter": list(range(1, 10)), "architecture": "resnet"}),
    ({}, {"img_resolution": 4}),
]


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(("mapping", "synthesis"), GENERATORS)
def test_a_generator_is_rebuilt_from_its_tensors(mapping: dict, synthesis: dict, nested: bool):
    sizes = {"w_dim": 6, "img_resolution": 8, "img_channels": 3, "channel_max": 5, "conv_clamp": 256}
    G = scrambled(
        StyleGAN2Generator(
            mapping=MappingNetwork(**{"z_dim": 7, "c_dim": 0, "w_dim": 6, "num_layers": 2} | mapping),
            synthesis=SynthesisNetwork(**sizes | synthesis),
        )
    )
    state = released(G, {"mapping_network.": "mapping.", "synthesis_network.": "synthesis."})
    last = synthesis.get("img_resolution", 8)  # the block's buffer follows the option, even where nothing is filtered
    state.setdefault(f"synthesis.b{last}.resample_filter", setup_filter([1, 3, 3, 1]))
    told = {k: v for k, v in synthesis.items() if k in ("activation", "conv_clamp")}
    told = {"mapping_kwargs": {k: mapping[k] for k in ("activation", "lr_multiplier") if k in mapping}} | (
        {"synthesis_kwargs": told} if nested else told
    )
    copy = import_network("stylegan2_core_generator", {"init_kwargs": json.dumps(told)}, state)
    z, condition = (
        torch.randn(2, 7),
        Condition(label=torch.randn(2, mapping["c_dim"]) if mapping.get("c_dim") else None),
    )
    images = [net.synthesis(net.mapping(z, condition), None, RenderOptions()).image for net in (G, copy)]
    assert torch.allclose(*images, atol=1e-6)
    assert copy.state_dict().keys() == G.state_dict().keys()


DISCRIMINATORS = [
    {},
    {"label_dim": 3, "cmap_dim": 4, "mapping": {"num_layers": 2, "embed_features": 7, "layer_features": 3}},
    {"architecture": "skip", "img_channels": 1, "conv_clamp": 0.2, "label_dim": 2},
    {"architecture": "orig", "mbstd_num_channels": 0, "activation": "relu"},
    {"mbstd_group_size": None, "mbstd_num_channels": 5, "freeze_layers": 5},
    {"resample_filter": [1, 2, 1], "mbstd_group_size": 2, "head_activation": "swish"},
    {"activation": "relu", "head_activation": "lrelu"},  # the reference's head does not follow its blocks
]


@pytest.mark.parametrize("options", DISCRIMINATORS)
def test_a_discriminator_is_rebuilt_from_its_tensors(options: dict):
    options = {"img_resolution": 16, "channel_max": 5, "conv_clamp": 256, "told": ("label",)} | options
    D = scrambled(StyleGAN2Discriminator(**options))
    state = released(D, {})
    state["b16.resample_filter"] = setup_filter(options.get("resample_filter", [1, 3, 3, 1]))
    activation = options.get("head_activation", options.get("activation", "lrelu"))
    head = {"mbstd_group_size": options.get("mbstd_group_size", 4)}
    told = {
        "conv_clamp": options["conv_clamp"],
        "block_kwargs": {k: options[k] for k in ("activation", "freeze_layers") if k in options},
        "epilogue_kwargs": head | ({} if activation == "lrelu" else {"activation": activation}),
    }
    copy = import_network("stylegan2_core_discriminator", {"init_kwargs": json.dumps(told)}, state)
    label = torch.randn(4, options["label_dim"]) if "label_dim" in options else None
    seen = GeneratorOutput(image=torch.randn(4, options.get("img_channels", 3), 16, 16))
    assert torch.allclose(D(seen, Condition(label=label)).score, copy(seen, Condition(label=label)).score, atol=1e-6)
    assert dict(copy.named_parameters()).keys() == dict(D.named_parameters()).keys()


def test_each_repository_has_its_own_defaults():
    def beta_and_clamp(name: str):
        _, tensors = read(next(path for path in FIXTURES if path.stem.endswith("generator")))
        state = {name[6:]: tensor for name, tensor in tensors.items() if name.startswith("state/")}
        G = import_network("stylegan2_core_generator", {"init_kwargs": "{}", "class": name}, state)
        return G.mapping_network._betas["w_avg"], G.synthesis_network.b32.conv0.conv_clamp

    assert beta_and_clamp("training.networks.Generator") == (0.995, None)
    assert beta_and_clamp("training.networks_stylegan2.Generator") == (0.998, 256)


def test_tensors_and_places_must_match_one_to_one():
    metadata, tensors = read(next(path for path in FIXTURES if path.stem.endswith("discriminator")))
    state = {name[6:]: tensor for name, tensor in tensors.items() if name.startswith("state/")}

    def refused(change: dict, naming: str, without: str = ""):
        broken = {name: tensor for name, tensor in (state | change).items() if name != without}
        with pytest.raises(CheckpointError, match=naming):
            import_network(metadata["kind"], metadata, broken)

    refused({"b16.conv2.weight": torch.zeros(1)}, "b16.conv2.weight has no place")
    refused({}, "nothing fills b16.conv1.bias", without="b16.conv1.bias")
    refused({"b16.conv1.bias": torch.zeros(3)}, r"b16.conv1.bias has the shape \[3\]")
    refused({"b16.conv1.resample_filter": setup_filter([1, 1, 1, 1])}, "b16.conv1.resample_filter is another filter")
    refused({"b16.other.resample_filter": setup_filter([1, 1])}, "b16.other.resample_filter has no place")


def test_what_cannot_be_replayed_is_said():
    metadata, tensors = read(next(path for path in FIXTURES if path.stem.endswith("generator")))
    with pytest.raises(CheckpointError, match="no importer for the kind 'stylegan9_core'"):
        replay("stylegan9_core", metadata, tensors)
    with pytest.raises(CheckpointError, match="cannot be replayed"):
        replay("stylegan2_core_nothing", metadata, tensors)
    with pytest.raises(CheckpointError, match="call_args"):
        replay(metadata["kind"], {"init_kwargs": "{}"}, tensors)
    random = metadata["call_args"].replace('"noise_mode": "const"', '"noise_mode": "random"')
    with pytest.raises(CheckpointError, match="Random noise"):
        replay(metadata["kind"], metadata | {"call_args": random}, tensors)
