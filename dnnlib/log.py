"""What is printed also goes to log.txt, line by line, without the redrawing of progress bars.

Knows no torch; anyone may import it.
"""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any


class Log:
    """A text file that is given up with one warning when it cannot be written: a log must not stop a training."""

    def __init__(self, path: str | Path, stream: IO[str]) -> None:
        self.path, self.stream = path, stream  # stream: where the warning goes
        self._file: IO[str] | None = None
        with self._giving_up():
            self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115

    def write(self, text: str) -> int:
        if self._file is not None:
            with self._giving_up():
                self._file.write(text)
                self._file.flush()
        return len(text)

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()

    @contextlib.contextmanager
    def _giving_up(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.close()
            self.stream.write(f"{self.path} cannot be written any more: {error.strerror}\n")


class Tee:
    """A text stream that passes everything on, line by line, and copies whole lines to a log.

    A bar redraws its line after a carriage return: of such a line the log gets what stood there last, and nothing if
    that is blank.
    """

    def __init__(self, stream: IO[str], log: Log) -> None:
        self.stream, self.log = stream, log
        self._line = ""

    def write(self, text: str) -> int:
        self.stream.write(text)
        if "\n" in text:
            self.stream.flush()  # so that a pipe or a batch system's file shows a line when it is said
        *lines, rest = (self._line + text).split("\n")
        self._line = rest.rpartition("\r")[2] if "\r" in rest.rstrip("\r") else rest
        for line in lines:
            shown = line.rstrip("\r").rpartition("\r")[2]
            if shown.strip() or "\r" not in line:
                self.log.write(shown + "\n")
        return len(text)

    def finish(self) -> None:
        """Write the line that has no end yet."""
        if self._line.strip():
            self.log.write(self._line.rpartition("\r")[2].rstrip() + "\n")
        self._line = ""

    def flush(self) -> None:
        self.stream.flush()

    def __getattr__(self, name: str) -> Any:  # isatty, fileno, encoding ... are those of the stream
        return getattr(self.stream, name)


@contextlib.contextmanager
def tee(path: str | Path) -> Iterator[Log]:
    """Append all that is printed inside to the file as well. Yields the log, for what only it should hold."""
    before = sys.stdout, sys.stderr
    log = Log(path, before[1])
    sys.stdout, sys.stderr = streams = Tee(before[0], log), Tee(before[1], log)
    try:
        yield log
    finally:
        sys.stdout, sys.stderr = before
        for stream in streams:
            stream.finish()
        log.close()
