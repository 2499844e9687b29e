"""Command lines in NVIDIA's manner, for generate.py and the apps: long options, `-` and `_` equal, `--seeds=0,3,5-9`.

Mistakes raise ConfigError with one sentence; run() prints it and exits. No torch, so that --help is quick.
"""

import argparse
import difflib
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from dnnlib.errors import ConfigError, UserError, missing_packages_in_words

LAST_SEED = 2**32 - 1  # of numpy's RandomState
MOST_SEEDS = 1_000_000  # of one list


class Options(argparse.ArgumentParser):
    """An argument parser for which --trunc_cutoff is --trunc-cutoff, and which knows what a misspelt option meant."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **settings)

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        """Raises ConfigError for unknown options, values of the wrong kind and missing options."""
        given = [_dashes(arg) for arg in (sys.argv[1:] if args is None else args)]
        options = self._option_string_actions
        for name in (arg.partition("=")[0] for arg in given):  # first, since it may be meant as one that is missing
            if name.startswith("-") and name not in options and not name[1:2].isdecimal():
                raise ConfigError(f"there is no option {name}{nearest(name, options)}")
        known, unknown = self.parse_known_args(given, namespace)
        if unknown:
            raise ConfigError(f"{unknown[0]} belongs to no option: write --option=value, quoted if it holds spaces")
        return known

    def error(self, message: str) -> NoReturn:
        raise ConfigError(message.removeprefix("argument "))


def _dashes(arg: str) -> str:
    name, equals, value = arg.partition("=")
    return name.replace("_", "-") + equals + value if name.startswith("--") else arg


def nearest(name: str, known: Iterable[str]) -> str:
    """How to end a sentence that says a name is unknown: with the nearest names, or with all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3)
    return f"; did you mean {' or '.join(close)}?" if close else f"; there are: {', '.join(names)}"


def seeds(text: str) -> list[int]:
    """The whole numbers that "0,3,5-9" lists, in that order."""
    numbers: list[int] = []
    for part in text.split(","):
        first, dash, last = (piece.strip() for piece in part.partition("-"))
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise argparse.ArgumentTypeError(f"{text!r} is no list of seeds; write numbers and ranges such as 0,3,5-9")
        start, stop = int(first), int(last or first)
        if stop < start:
            raise argparse.ArgumentTypeError(f"the range {part} runs backwards; write {stop}-{start}")
        if stop > LAST_SEED:
            raise argparse.ArgumentTypeError(f"seed {stop} is too large; the last one is {LAST_SEED}")
        if len(numbers) + stop - start >= MOST_SEEDS:
            raise argparse.ArgumentTypeError(f"{part} brings more than {MOST_SEEDS} seeds; make several calls of them")
        numbers.extend(range(start, stop + 1))
    return numbers


def seeds_text(numbers: Sequence[int]) -> str:
    """The shortest text that seeds() reads back to these numbers."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def size(text: str) -> tuple[int, int]:
    """Width and height of "4x2"."""
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write WIDTHxHEIGHT such as 4x2")
    return int(width), int(height)


def pair(text: str) -> tuple[str, str]:
    """Key and value of "key=value"."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is no setting; write KEY=VALUE such as frames=60")
    return key.strip().replace("-", "_"), value


def at_least(least: int) -> Callable[[str], int]:
    """The reader of a whole number that must not be smaller."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
        return int(text)

    return read


def boolean(text: str) -> bool:
    """The value of a switch that may be written --switch, --switch=True or --switch=False."""
    word = text.lower()
    if word not in ("true", "false", "1", "0", "yes", "no"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return word in ("true", "1", "yes")


def run(main: Callable[[], None]) -> None:
    """Call main(); what a user can mend becomes one sentence and an exit code, all else keeps its traceback.

    SIGTERM ends it as well on the way that removes drafts.
    """
    signal.signal(signal.SIGTERM, _leave)
    try:
        with missing_packages_in_words():
            main()
    except UserError as error:
        sys.stdout.flush()
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        raise SystemExit(130) from None


def _leave(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)
