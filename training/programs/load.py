"""Render programs by name: configs/program/NAME.yaml with some options changed."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from dnnlib.errors import ConfigError
from dnnlib.limits import check_numbers
from dnnlib.options import nearest

FOLDER = Path(__file__).parents[2] / "configs" / "program"
UNSAID = "???"  # an option without a default


def program_names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_program(name: str, options: Iterable[tuple[str, str]] = ()) -> dict[str, Any]:
    """The node to build, with options given as text. An option's name is that of any setting in the file.

    Raises ConfigError for an unknown program or option, a value of the wrong kind, or an option that must be given.
    """
    if name not in program_names():
        raise ConfigError(f"there is no render program {name}{nearest(name, program_names())}")
    node: dict[str, Any] = OmegaConf.to_container(OmegaConf.load(FOLDER / f"{name}.yaml"))  # pyright: ignore
    places = _settings(node)
    for key, text in options:
        if key not in places:
            raise ConfigError(f"the render program {name} has no option {key}{nearest(key, places)}")
        places[key][key] = _value(key, text, places[key][key])
    unsaid = [key for key, place in places.items() if place[key] == UNSAID]
    check_numbers(node, name)
    if unsaid:
        raise ConfigError(f"the render program {name} needs --program-option {unsaid[0]}=...")
    return node


def _settings(node: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Where each setting stands; outer ones hide inner ones of the same name."""
    own = {key: node for key, value in node.items() if key != "_target_" and not isinstance(value, dict)}
    inner = [_settings(value) for value in node.values() if isinstance(value, dict)]
    return {key: place for settings in [*inner, own] for key, place in settings.items()}


def _value(key: str, text: str, default: Any) -> Any:
    """Text stays text where text is expected, all else is read as YAML. Lists must hold what the default holds."""
    if isinstance(default, str):
        return text
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"the program option {key}={text} cannot be read: write a number or a [list]") from error
    if isinstance(default, list):
        kind = str if isinstance(default[0], str) else (int, float)
        if not isinstance(value, list) or not value or not all(isinstance(entry, kind) for entry in value):
            raise ConfigError(f"the program option {key}={text} is no list such as {default}".replace("'", ""))
    return value
