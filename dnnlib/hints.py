"""Whether a plain value suits a type hint, and what the hint asks for in words.

For values that people type or that stand in a configuration. Knows no torch; anyone may import it.
"""

import inspect
import types
from collections.abc import Sequence
from typing import Any, Literal, Union, get_args, get_origin

WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def parameters(cls: type) -> dict[str, inspect.Parameter]:
    """What a class takes by name. Where a constructor hands **rest on to its base, the base's arguments count too."""
    takes: dict[str, inspect.Parameter] = {}
    for base in cls.__mro__:
        if "__init__" not in vars(base) or base is object:
            continue
        own = inspect.signature(base.__init__).parameters
        named = {name: p for name, p in own.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        takes = {**named, **takes}
        if not any(p.kind is p.VAR_KEYWORD for p in own.values()):
            break
    takes.pop("self", None)
    return takes


def fits(value: Any, hint: Any) -> bool:
    """Whether the value may stand where the hint does. Whole numbers are numbers; other hints admit all."""
    return any(_is(value, kind) for kind in _alternatives(hint))


def _is(value: Any, kind: Any) -> bool:
    if kind in (None, type(None)):
        return value is None
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if kind not in WORDS:
        return True
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def shaped(value: Any, hint: Any) -> Any:
    """The value with whole numbers made floats where the hint asks for floats, inside sequences too: 0 is 0.0."""
    kinds = _alternatives(hint)
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value) if float in kinds and int not in kinds else value
    if isinstance(value, tuple):
        for kind in kinds:
            inner = get_args(kind)
            if inner and inspect.isclass(get_origin(kind)) and issubclass(get_origin(kind), Sequence):
                each = inner if len(inner) == len(value) and Ellipsis not in inner else inner[:1] * len(value)
                return tuple(shaped(part, part_hint) for part, part_hint in zip(value, each, strict=True))
    return value


def in_words(hint: Any) -> str:
    """What a hint asks for, as a person says it."""
    words = []
    for kind in _alternatives(hint):
        if get_origin(kind) is Literal:
            words += [str(choice) for choice in get_args(kind)]
        else:
            words.append("null" if kind in (None, type(None)) else WORDS.get(kind, str(kind)))
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
