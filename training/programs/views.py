"""Each seed seen from every camera of a path, one seed after the other."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from training.contracts import Camera, CameraRig, Codes, Shot


@runtime_checkable
class CameraPath(Protocol):
    """Cameras in the order of the film: orbit.py, sweep.py, angle_grid.py, camera_file.py."""

    def cameras(self, rig: CameraRig) -> Sequence[Camera]: ...


@dataclass(frozen=True, kw_only=True)
class Views:
    """The codes stay, the camera moves."""

    camera_path: CameraPath
    fps: float = 30
    modalities: Sequence[str] = ("image",)  # what a frame shows, side by side: training/programs/studio.py
    blends_seeds: ClassVar[bool] = False  # seeds do not touch each other: a film of its own for every seed

    def shots(self, codes: Sequence[Codes], rig: CameraRig) -> Iterator[Shot]:
        for index, scene in enumerate(codes):
            for camera in self.camera_path.cameras(rig):
                yield Shot(codes=scene, camera=camera, scene=index)
