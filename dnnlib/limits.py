"""What numbers may be, by the name of what they set, wherever it stands: a key, a setting, an argument of a class.

Every number must be finite. Names that are not listed here have no other limit than what their class says. Knows no
torch; anyone may import it.
"""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dnnlib.errors import ConfigError, UserError
from dnnlib.options import LAST_SEED

MOST = 10_000_000  # of anything that is counted
SIDE = 8192  # pixels along a side of a picture


@dataclass(frozen=True)
class Limit:
    """A range of numbers, its ends included unless `above`."""

    least: float = -math.inf
    most: float = math.inf
    whole: bool = False
    above: bool = False  # `least` itself does not belong

    def admits(self, number: float) -> bool:
        finite = isinstance(number, int) or math.isfinite(number)
        reaches = number > self.least if self.above else number >= self.least
        return finite and reaches and number <= self.most and not (self.whole and number != int(number))

    @property
    def words(self) -> str:
        """What a number must be, to be admitted."""
        kind = "a whole number" if self.whole else "a finite number"
        if self.most < math.inf:
            return f"{kind} from {self.least} to {self.most}"
        return kind if self.least == -math.inf else f"{kind} {'above' if self.above else 'of at least'} {self.least}"


LIMITS = {
    name: limit
    for limit, names in {
        Limit(1, MOST, whole=True): """batch batch_gpu gpus subset size snap imgsnap max_bad_steps every mbstd_group
            mbstd_group_size shrink interval channel_base channel_max channels widths z_dim w_dim features hidden
            colours points frames columns rows fps num_images num_seeds""",
        Limit(0, MOST, whole=True): "label_dim c_dim num_classes freezed freeze_layers",
        Limit(1, SIDE, whole=True): """resolution img_resolution plane_resolution input_resolution raw_resolution
            raw_resolution_initial raw_resolution_final width height nrr""",
        Limit(1, 64, whole=True): "mapping_layers num_layers",
        Limit(1, 1024, whole=True): "latents",
        Limit(0, 4096, whole=True): "samples",
        Limit(0, 256, whole=True): "workers",
        Limit(0, LAST_SEED, whole=True): "seed subset_seed",
        Limit(0, 1): "mixing style_mixing p target probability swap_probability betas",
        Limit(0, 1000): "blur_sigma",
        Limit(0.1, 179): "fov",
        Limit(0, 1e6, above=True): "hang_after",
        Limit(0, above=True): "kimg ema_kimg tick save_every radius focal far box_side clip",
        Limit(0): """gamma lr glr dlr eps ema_rampup rampup near std density_noise yaw_spread pitch_spread
            fade_kimg swap_fade_kimg blur_fade_kimg raw_fade_kimg path_length xflip rotate90 xint xint_max scale
            scale_std rotate rotate_max aniso aniso_std xfrac xfrac_std brightness brightness_std contrast
            contrast_std lumaflip hue hue_max saturation saturation_std imgfilter imgfilter_bands imgfilter_std
            noise_std cutout cutout_size""",
        Limit(): "yaws pivot",
    }.items()
    for name in names.split()
}
LENGTHS = {
    "pivot": 3,
    "betas": 2,
    "centre": 2,
    "imgfilter_bands": 4,
}  # how many numbers such a list holds; any other holds one at least


def check_numbers(value: Any, where: str, error: type[UserError] = ConfigError) -> None:
    """Raises `error` for the first number, in a value or in a whole node, that is out of its limits.

    where: the path of the value, "" for a whole configuration. Shorter paths come first: a setting that people type
    has a shorter one than what follows from it.
    """
    waiting = deque([(where, where.rpartition(".")[2], value)])
    while waiting:
        path, name, value = waiting.popleft()
        if isinstance(value, Mapping):
            waiting.extend((f"{path}.{key}" if path else str(key), str(key), inner) for key, inner in value.items())
        elif isinstance(value, (list, tuple)):
            if len(value) != LENGTHS.get(name, len(value)) or (name in LIMITS and not value):
                raise error(f"{path}={list(value)} must be {LENGTHS.get(name, 'some')} numbers.")
            waiting.extend((f"{path}.{i}", name, inner) for i, inner in enumerate(value))
            texts = [inner for inner in value if isinstance(inner, str)]
            if name in LIMITS and texts:
                raise error(f"{path}={list(value)}: {texts[0]} is no number.")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            limit = LIMITS.get(name, Limit())
            if not limit.admits(value):
                raise error(f"{path}={value} must be {limit.words}.")
