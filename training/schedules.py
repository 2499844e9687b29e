"""What changes with the number of images seen: pure functions, nothing is remembered."""


def ramp(nimg: int, kimg: float, start: float, end: float) -> float:
    """From start to end over the first kimg thousand images, then end. kimg <= 0: end from the beginning."""
    share = min(nimg / (kimg * 1000), 1.0) if kimg > 0 else 1.0
    return (1 - share) * start + share * end
