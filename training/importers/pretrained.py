"""Published files by name: what the tables `model.pretrained` of configs/model/*.yaml say, and the file on this disk.

An entry is {url, sha256: its hash or null, licence: who published it under what}. A name means the entry of the model
that is trained; elsewhere, that of any model.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from dnnlib.download import fetch
from dnnlib.errors import CheckpointError

FOLDER = Path(__file__).parents[2] / "configs" / "model"
REMOTE = ("https://", "http://")


def tables() -> dict[str, dict[str, Any]]:
    """Model -> name -> entry."""
    found = {}
    for path in sorted(FOLDER.glob("*.yaml")):
        model = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("model") or {}
        found[path.stem] = model.get("pretrained") or {}
    return {model: table for model, table in found.items() if table}


def published_file(name: str, config: Mapping[str, Any] | None = None) -> Path | None:
    """The file that a name or an address means, downloaded if it is not here yet; None for any other text.

    config: of a run, whose model's table comes first, and which may be offline. Prints whose licence the file is under.
    """
    config = config or {}
    entry = ((config.get("model") or {}).get("pretrained") or {}).get(name) or _anywhere(name)
    if entry is None and name.startswith(REMOTE):
        entry = {"url": name}
    if entry is None:
        return None
    print(f"{name}: {entry.get('licence') or 'the licence of these weights is that of their publisher'}")
    return fetch(entry["url"], sha256=entry.get("sha256"), offline=bool(config.get("offline")))


def _anywhere(name: str) -> dict[str, Any] | None:
    """The entry of `name`, or of MODEL/NAME. Raises CheckpointError if models mean different files by it."""
    model, slash, rest = name.partition("/")
    known = tables()
    if slash:
        return known.get(model, {}).get(rest)
    found = {owner: table[name] for owner, table in known.items() if name in table}
    if len({entry["url"] for entry in found.values()}) > 1:
        raise CheckpointError(f"{name} is a file of several models: say {' or '.join(f'{m}/{name}' for m in found)}")
    return next(iter(found.values()), None)
