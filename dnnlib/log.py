"""What is printed also goes to log.txt, line by line, without the redrawing of progress bars.

Knows no torch; anyone may import it.
"""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any


class Tee:
    """A text stream that passes everything on and copies whole lines to a file.

    A bar redraws its line after a carriage return: of such a line the file gets what stood there last, and nothing if
    that is blank. A file that cannot be written any more (a full disk) is given up with one warning: a log must not
    stop a training.
    """

    def __init__(self, stream: IO[str], file: IO[str]) -> None:
        self.stream, self.file = stream, file
        self._line = ""

    def write(self, text: str) -> int:
        self.stream.write(text)
        *lines, rest = (self._line + text).split("\n")
        self._line = rest.rpartition("\r")[2] if "\r" in rest.rstrip("\r") else rest
        for line in lines:
            shown = line.rstrip("\r").rpartition("\r")[2]
            if shown.strip() or "\r" not in line:
                self._keep(shown + "\n")
        return len(text)

    def _keep(self, line: str) -> None:
        if self.file.closed:
            return
        try:
            self.file.write(line)
            self.file.flush()
        except OSError as error:
            self.stream.write(f"{self.file.name} cannot be written any more: {error.strerror}\n")
            with contextlib.suppress(OSError):
                self.file.close()

    def finish(self) -> None:
        """Write the line that has no end yet."""
        if self._line.strip():
            self._keep(self._line.rpartition("\r")[2].rstrip() + "\n")
        self._line = ""

    def flush(self) -> None:
        self.stream.flush()

    def __getattr__(self, name: str) -> Any:  # isatty, fileno, encoding ... are those of the stream
        return getattr(self.stream, name)


@contextlib.contextmanager
def tee(path: str | Path) -> Iterator[IO[str]]:
    """Append all that is printed inside to the file as well. Yields the file, for what only the log should hold."""
    with open(path, "a", encoding="utf-8") as file:
        before = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = streams = Tee(before[0], file), Tee(before[1], file)
        try:
            yield file
        finally:
            sys.stdout, sys.stderr = before
            for stream in streams:
                stream.finish()
