"""Files from the net, once: cached whole, checked by their hash. Knows no torch; anyone may import it.

A file lies in the cache under its address: FOLDER/host/path/name. Beside it, NAME.sha256 keeps the hash that it had
when it came, for addresses whose hash nobody has written down.
"""

import hashlib
import http.client
import os
import re
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from dnnlib.errors import CheckpointError
from dnnlib.files import whole_file
from dnnlib.progress import progress

CACHE_VARIABLE = "PARALLAX_CACHE"
SCHEMES = ("https", "http", "file")
TIMEOUT = 30  # seconds without a byte
BLOCK = 1 << 20
BROKEN = (urllib.error.URLError, http.client.HTTPException, ssl.SSLError, TimeoutError, ConnectionError, ValueError)


def cache_folder() -> Path:
    """$PARALLAX_CACHE, or the user's own cache."""
    own = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get(CACHE_VARIABLE) or f"{own}/parallax").expanduser()


def cached_at(url: str) -> Path:
    """Where the file of an address lies, or would. Raises CheckpointError for what is no address of a file."""
    wrong = CheckpointError(f"{url} is no address of a file: it must begin with https:// and end with a name")
    try:
        parts = urllib.parse.urlsplit(url)
        host = f"{parts.hostname or ''}{f'_{parts.port}' if parts.port else ''}"  # without a name and a password
    except ValueError as error:
        raise wrong from error
    names = [re.sub(r"[^\w.+-]", "_", part) for part in (host, *parts.path.split("/")) if part.strip(".")]
    if parts.scheme not in SCHEMES or not names or parts.path.endswith("/"):
        raise wrong
    if parts.query:
        names[-1] += f"-{hashlib.sha256(parts.query.encode()).hexdigest()[:12]}"
    return cache_folder().joinpath(*names)


def fetch(url: str, *, sha256: str | None = None, offline: bool = False) -> Path:
    """The file of an address, from the cache or downloaded into it.

    offline never opens a connection. Raises CheckpointError, in a sentence, if the file is neither here nor to be had,
    or if its hash is not the one given, or else the one recorded when it came.
    """
    path = cached_at(url)
    record = path.with_name(f"{path.name}.sha256")
    if not path.is_file():
        if offline:
            raise CheckpointError(f"offline=True, and {path.name} is not here yet: get {url} and put it at {path}")
        _download(url, path, sha256)
    recorded = record.read_text(encoding="utf-8").split() if record.is_file() else []
    known = sha256 or next(iter(recorded), None)
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if known is not None and known != found:
        raise CheckpointError(f"{path} has changed: its SHA-256 is {found}, not {known}; remove it to get it again")
    if not record.is_file():
        with whole_file(record, CheckpointError) as draft:
            draft.write_text(f"{found}  {path.name}\n", encoding="utf-8")
    return path


def _download(url: str, path: Path, sha256: str | None) -> None:
    advice = f"try again, or get it in another way and put it at {path}"
    with whole_file(path, CheckpointError) as draft:
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT) as answer, open(draft, "wb") as file:
                if url.startswith("https:") and not answer.geturl().startswith("https:"):
                    raise ValueError("it is passed on to an address without https")
                length = int(answer.headers.get("Content-Length") or 0)
                digest = hashlib.sha256()
                for block in progress(_blocks(answer), -(-length // BLOCK), f"{path.name} (MiB)"):
                    digest.update(block)
                    file.write(block)
                size = file.tell()
        except BROKEN as error:
            reason = getattr(error, "reason", None) or error
            raise CheckpointError(f"{url} cannot be downloaded ({reason}): {advice}") from error
        if length and size != length:
            raise CheckpointError(f"{url} broke off after {size} of {length} bytes: {advice}")
        if sha256 and digest.hexdigest() != sha256:
            raise CheckpointError(f"{url} is another file by now: its SHA-256 is {digest.hexdigest()}, not {sha256}")


def _blocks(answer: IO[bytes]) -> Iterator[bytes]:
    while block := answer.read(BLOCK):
        yield block
