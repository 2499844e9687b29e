"""The run-time type checker of the tests: beartype, with int accepted where float is asked for.

beartype knows what Self means only inside whole classes, and jaxtyping hands it one method at a time: such
annotations go unchecked.
"""

from typing import Any, Self, get_args

from beartype import BeartypeConf, beartype

_check = beartype(conf=BeartypeConf(is_pep484_tower=True))


def _mentions_self(hint: object) -> bool:
    return hint is Self or any(_mentions_self(part) for part in get_args(hint))


def checked(function):
    hints = getattr(function, "__annotations__", {})
    function.__annotations__ = {name: Any if _mentions_self(hint) else hint for name, hint in hints.items()}
    return _check(function)
