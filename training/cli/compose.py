"""From overrides to a configuration: the only file that knows Hydra's compose and OmegaConf's resolvers.

Order: compose -> (the caller opens the data and fills dataset.*) -> resolve. Mistakes are told with the nearest names,
because Hydra's own answer to a misspelt key, "use +key", hides typing errors.
"""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dnnlib.errors import ConfigError
from dnnlib.hints import fits, in_words
from dnnlib.limits import check_numbers
from dnnlib.options import nearest
from training.cli.formulas import FORMULAS
from training.cli.keys import CONFIGS, ELSEWHERE, HINTS, OPTIONAL, groups, top_level_keys

OPEN_NODES = ("nets", "optimizers", "emas", "critics", "phases", "dataset", "samples", "rig", "init")
DATA_KEYS = ("data", "labels", "cond", "mirror", "subset", "dataset")


def composed(overrides: Sequence[str]) -> DictConfig:
    """The configuration of a command line, with its interpolations still open and `choices`: group -> choice.

    Raises ConfigError for an unknown group, choice, key or type, naming the nearest ones.
    """
    _register_formulas()
    parsed = [_parsed(word) for word in overrides]
    known = groups()
    for override in parsed:
        if override.key_or_group in ELSEWHERE:
            raise ConfigError(f"{override.key_or_group}= cannot be chosen here: {ELSEWHERE[override.key_or_group]}.")
        if override.is_delete() and "." not in override.key_or_group:
            raise ConfigError(f"~{override.key_or_group} leaves a hole: only settings with dots can be taken away.")
    chosen = [o for o in parsed if o.key_or_group in known and o.package is None]
    for override in chosen:
        _check_choice(override, known[override.key_or_group])
    words = [o.input_line or "" for o in chosen]
    reference = _compose(words)
    measured = _metrics(parsed, reference)
    if measured:
        reference = _compose([*words, *measured])
    others = [o for o in parsed if o not in chosen]
    for override in others:
        if override.package is None:
            _check_key(override, reference)
    config = _compose([*overrides, *measured]) if others else reference
    _check_size(config)
    return config


def resolved(config: DictConfig, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration as plain values, with what the opened data say (facts: key of `dataset` -> value) filled in.

    Raises ConfigError if a value is missing or cannot be computed.
    """
    try:
        OmegaConf.set_struct(config, False)
        for key, value in facts.items():
            OmegaConf.update(config, f"dataset.{key}", value)
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(_first_line(error)) from error
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def data_keys(config: DictConfig) -> dict[str, Any]:
    """The resolved keys that say which data to open and how, before anything is known about them."""
    try:
        OmegaConf.resolve(config.dataset)
        plain = OmegaConf.to_container(OmegaConf.masked_copy(config, list(DATA_KEYS)), resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(_first_line(error)) from error
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def typed_keys(overrides: Sequence[str]) -> dict[str, Any]:
    """What the line itself says: key or group -> value, in order."""
    return {o.key_or_group: o.value() for o in map(_parsed, overrides) if not o.is_delete()}


def _metrics(parsed: Sequence[Override], reference: DictConfig) -> list[str]:
    """The words that add the settings of every metric that is asked for."""
    asked: Any = next((o.value() for o in parsed if o.key_or_group == "metrics"), reference.metrics)
    names = list(dict.fromkeys(map(str, asked or [])))
    known = groups(["metric"])["metric"]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigError(f"metrics={unknown[0]}: there is no such metric{nearest(unknown[0], known)}")
    return [f"+metric@metric.{name}={name}" for name in names]


def _compose(overrides: list[str]) -> DictConfig:
    try:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            config = compose("config", overrides=overrides, return_hydra_config=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_first_line(error)) from error
    choices = {key: value for key, value in config.hydra.runtime.choices.items() if "/" not in key and "@" not in key}
    OmegaConf.set_struct(config, False)
    del config["hydra"]
    config.choices = choices
    OmegaConf.set_struct(config, True)
    return config


def _parsed(word: str) -> Override:
    try:
        override = OverridesParser.create().parse_override(word)
    except (HydraException, ValueError) as error:  # ValueError: a number of thousands of digits
        key, _, value = word.partition("=")
        why = _first_line(error).partition(" expecting")[0]
        raise ConfigError(
            f"{key}={value} cannot be read ({why}). A value with brackets, commas, quotes or = needs quotes inside "
            f"quotes: \"{key}='{value}'\"."
        ) from error
    if override.is_sweep_override():
        raise ConfigError(f"{word} names several values: add --multirun to try each, or write a list [a,b].")
    return override


def _check_choice(override: Override, choices: list[str]) -> None:
    shown, value = override.key_or_group, override.get_value_string()
    if override.value() not in choices:
        close = difflib.get_close_matches(value, choices, n=3)
        hint = f"; did you mean {' or '.join(close)}?" if close else "."
        raise ConfigError(f"{shown}={value}: there is no such {shown}{hint} There are: {', '.join(choices)}.")


def _check_key(override: Override, reference: DictConfig) -> None:
    """Raises ConfigError unless the key exists, or may be added where it stands, and the value is of its type."""
    key = override.key_or_group
    if key.split(".")[0] == "hydra" or "/" in key:
        return
    _check_own(key, reference)
    if not override.is_delete():
        check_numbers(override.value(), key)
    missing = object()
    try:
        default = OmegaConf.select(reference, key, default=missing)
    except OmegaConfBaseException:
        default = None  # it exists, but cannot be computed before the data are open
    adds = override.is_add() or override.is_force_add()
    if default is missing and not (adds and key.split(".")[0] in OPEN_NODES and "." in key):
        raise ConfigError(f"there is no key {key}{_suggestions(key, reference)}")
    if override.is_delete() or default is missing:
        return
    value = override.value()
    if isinstance(value, str) and "${" in value and key not in HINTS:
        return
    hint = HINTS.get(key, _hint_of(key.rpartition(".")[2], default))
    if not fits(value, hint):
        raise ConfigError(f"{key}={value}: expected {in_words(hint)}.")
    if OmegaConf.is_list(default) and not isinstance(value, list):
        raise ConfigError(f"{key}={value}: expected a list such as {default}.")
    if OmegaConf.is_dict(default) and not isinstance(value, dict | None):
        raise ConfigError(f"{key}={value}: it holds settings; say {key}.NAME=VALUE.")


def _check_own(key: str, reference: DictConfig) -> None:
    """Raises ConfigError for a setting in a node that only follows another one, and names the place to set it."""
    node, (*above, _) = reference, key.split(".")
    for i, part in enumerate(above):
        if part not in node:
            return
        if OmegaConf.is_interpolation(node, part):
            text = OmegaConf.to_container(node, resolve=False)[part][2:-1]  # pyright: ignore
            source = re.sub(r"\$\{([\w.]+)\}", lambda match: str(OmegaConf.select(reference, match[1])), text)
            rest = ".".join(key.split(".")[i + 1 :])
            raise ConfigError(f"{key} follows {source}.{rest}: set that one.")
        node = OmegaConf.select(node, part)
        if not OmegaConf.is_dict(node):
            return


def _check_size(config: DictConfig) -> None:
    """Raises ConfigError unless the model has the column of its sizes that spec.size chooses."""
    size, sizes = OmegaConf.select(config, "spec.size"), OmegaConf.select(config, "model.sizes")
    if sizes is not None and size not in sizes:
        raise ConfigError(f"spec.size={size}: model={config.choices.model} has no such size{nearest(str(size), sizes)}")


def _hint_of(name: str, default: Any) -> Any:
    """The type that a setting's default suggests."""
    if isinstance(default, (bool, str)):
        return type(default)
    number = float | None if name in OPTIONAL else float
    return number if isinstance(default, (int, float)) else Any


def _suggestions(key: str, reference: DictConfig) -> str:
    """The nearest keys and groups, each with where it belongs."""
    known = groups()
    names = [*(k.name for k in top_level_keys()), *known, *_paths(reference)]
    leaf = key.rpartition(".")[2]
    close = [name for name in names if "." in name and name.rpartition(".")[2] == leaf]
    close = [*dict.fromkeys([*difflib.get_close_matches(key, names, n=3, cutoff=0.7), *close])][:3]
    if not close:
        return ". python run_train.py --help lists the keys and groups."
    described = [
        f"{name} (group: {', '.join(known[name])})" if name in known
        else f"{name} (in {name.partition('.')[0]})" if "." in name else name
        for name in close
    ]  # fmt: skip
    return f"; did you mean {' or '.join(described)}?"


def _paths(node: Any, prefix: str = "") -> Iterable[str]:
    if OmegaConf.is_dict(node) and not OmegaConf.is_missing(node, "_"):
        for key in node:
            path = f"{prefix}{key}"
            yield path
            if not OmegaConf.is_interpolation(node, key):
                yield from _paths(node[key], f"{path}.")


def _register_formulas() -> None:
    for name, formula in FORMULAS.items():
        OmegaConf.register_new_resolver(name, formula, replace=True)


def _first_line(error: Exception) -> str:
    """Hydra's and OmegaConf's text without their stack of where it happened, and with the key they name."""
    lines = str(error).splitlines()
    key = next((line.split(":", 1)[1].strip() for line in lines if line.strip().startswith("full_key:")), "")
    text = re.sub(r"\s+", " ", lines[0]).rstrip(".") if lines else type(error).__name__
    return f"{key}: {text}" if key and key not in text else text
