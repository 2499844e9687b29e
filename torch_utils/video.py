"""Films: numbered PNG frames, and an H.264 file that plays in any browser (yuv420p, even size).

Everything is made in a hidden folder and moved into place at the end, so a failure leaves nothing behind.
Without ffmpeg the film is an animated WebP. Used by generate.py and the apps.
"""

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, features

from dnnlib.errors import ConfigError
from torch_utils.images import save_png


def find_ffmpeg() -> str | None:
    """The program that imageio-ffmpeg brings or finds; None if there is none."""
    try:
        import imageio_ffmpeg

        return imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        return None


class FilmWriter:
    """Writes `folder/000.png`, ... and beside the folder a film of its name. Use it in a with statement.

    add() takes the frames, all of one size. After the block `film` is the film's path, or None if none was asked for
    or could be made. Raises ConfigError if the disk is full, the folder cannot be written or ffmpeg fails.
    """

    def __init__(self, folder: Path, fps: float, video: bool = True) -> None:
        self.folder, self.fps, self.video = folder, fps, video
        self.film: Path | None = None
        self._frames: list[Path] = []
        self._workshop: Path | None = None

    def add(self, frame: UInt8[np.ndarray, "H W C"]) -> None:
        if self._workshop is None:
            with self._saying_why():
                self.folder.parent.mkdir(parents=True, exist_ok=True)
                self._workshop = Path(tempfile.mkdtemp(prefix=".", dir=self.folder.parent))
        path = self._workshop / f"{len(self._frames):03d}.png"
        save_png(frame, path)
        self._frames.append(path)

    def __enter__(self) -> "FilmWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._workshop is None:
            return
        try:
            if kind is None:
                with self._saying_why():
                    self._finish(self._workshop)
        finally:
            shutil.rmtree(self._workshop, ignore_errors=True)

    def _finish(self, workshop: Path) -> None:
        made = self._encode(workshop) if self.video else None
        self.folder.mkdir(exist_ok=True)
        for old in self.folder.glob("[0-9][0-9][0-9]*.png"):  # a longer film's frames would stay otherwise
            if old.stem.isdecimal() and int(old.stem) >= len(self._frames):
                old.unlink()
        for frame in self._frames:
            frame.replace(self.folder / frame.name)
        if made is not None:
            self.film = self.folder.with_name(self.folder.name + made.suffix)
            made.replace(self.film)

    def _encode(self, workshop: Path) -> Path | None:
        ffmpeg = find_ffmpeg()
        if ffmpeg is not None:
            return self._encode_mp4(ffmpeg, workshop)
        return self._encode_webp(workshop) if features.check("webp") else None

    def _encode_mp4(self, ffmpeg: str, workshop: Path) -> Path:
        even = "pad=ceil(iw/2)*2:ceil(ih/2)*2"
        colours = "scale=out_color_matrix=bt709:out_range=tv"  # and said so in the file, for players differ in guessing
        said = "setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709:range=tv"
        command = [
            ffmpeg, "-v", "error", "-y", "-framerate", str(self.fps), "-start_number", "0", "-i", "%03d.png",
            "-vf", f"{even},{colours},{said}", "-c:v", "libx264", "-preset", "medium", "-crf", "17",
            "-pix_fmt", "yuv420p", "-movflags", "+faststart", "film.mp4",
        ]  # fmt: skip
        done = subprocess.run(command, cwd=workshop, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise ConfigError(f"ffmpeg could not write {self.folder.name}.mp4: {reason}; --no-video keeps the frames")
        return workshop / "film.mp4"

    def _encode_webp(self, workshop: Path) -> Path:
        path = workshop / "film.webp"
        rest = (Image.open(frame) for frame in self._frames[1:])
        with Image.open(self._frames[0]) as first:
            first.save(path, save_all=True, append_images=rest, duration=round(1000 / self.fps), loop=0, quality=90)
        return path

    @contextlib.contextmanager
    def _saying_why(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ConfigError(
                f"cannot write {self.folder}: {error.strerror or error}; choose another folder"
            ) from error
