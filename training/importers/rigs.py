"""The rigs of configs/rig by name: cameras for networks whose files say little about theirs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parents[2] / "configs" / "rig"


def named_rig(name: str) -> dict[str, Any]:
    """The node of configs/rig/NAME.yaml."""
    node = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    for base in node.pop("defaults", []):
        node = node if base == "_self_" else named_rig(base) | node
    return node


def rig_at(radius: float, pivot: Sequence[float], names: Sequence[str]) -> dict[str, Any]:
    """The first of the named rigs with this distance and pivot; else the first one, moved there."""
    rigs = [named_rig(name) for name in names]
    fitting = [rig for rig in rigs if rig["radius"] == radius and list(rig["pivot"]) == list(pivot)]
    return fitting[0] if fitting else rigs[0] | {"radius": radius, "pivot": list(pivot)}
