"""How many users there are at which moment: plain functions of the time, the largest number and the duration."""

STEPS = 5
# Of the time, before and after a spike; of the users, outside it.
CALM_SHARE = 1 / 3
BURST_FACTOR = 5


def steps(elapsed: float, peak: int, duration: float) -> int:
    """Five steps of equal length and height, each long enough to settle."""
    step = min(STEPS, 1 + int(STEPS * elapsed / duration))
    return max(1, round(peak * step / STEPS))


def ramp(elapsed: float, peak: int, duration: float) -> int:
    """A straight line from one user to all."""
    return max(1, round(peak * min(1.0, elapsed / duration)))


def spike(elapsed: float, peak: int, duration: float) -> int:
    """A fifth of the users, all of them in the second third of the time, and a fifth again."""
    burst = CALM_SHARE <= elapsed / duration < 1 - CALM_SHARE
    return peak if burst else max(1, round(peak / BURST_FACTOR))


def soak(elapsed: float, peak: int, duration: float) -> int:
    """All of them, for as long as it takes to see what grows."""
    del elapsed, duration
    return peak
