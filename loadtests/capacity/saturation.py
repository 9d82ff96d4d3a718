"""Whether a server keeps up with its arrivals, seen from when streams were due and when they ended.

Only the window in which streams keep arriving counts: afterwards every server catches up, and that proves nothing.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import linregress
from scipy.stats import t as student

SLICES = 10
# Fewer endings than this share of the arrivals, and streams pile up.
DRAIN_RATIO_MIN = 0.98
CONFIDENCE = 0.95

Floats = NDArray[np.float64]
Times = Sequence[float] | Floats


class Saturation(StrEnum):
    UNSATURATED = "unsaturated"
    BACKLOG = "transient backlog"
    SATURATED = "saturated"


class Slices(NamedTuple):
    """Arrivals and endings in equal parts of the window, and streams in the system at the end of each."""

    arrived: Floats
    ended: Floats
    backlog: Floats


def slices(due_ms: Times, ended_ms: Times, window_ms: float) -> Slices:
    """What happened in each tenth of the window [0, `window_ms`); whatever lies before is already in the system."""
    edges = np.linspace(0, window_ms, SLICES + 1)
    due, ended = np.asarray(due_ms, dtype=np.float64), np.asarray(ended_ms, dtype=np.float64)
    inside, out = due[due < window_ms], ended[ended < window_ms]
    arrived, left = np.histogram(inside, edges)[0], np.histogram(out, edges)[0]
    before = int(np.count_nonzero(inside < 0)) - int(np.count_nonzero(out < 0))
    return Slices(
        arrived.astype(np.float64), left.astype(np.float64), before + np.cumsum(arrived - left).astype(np.float64)
    )


def saturation(due_ms: Times, ended_ms: Times, window_ms: float) -> Saturation:
    """SATURATED when endings stay behind arrivals over the window and the backlog rises beyond chance."""
    seen = slices(due_ms, ended_ms, window_ms)
    arrived = float(seen.arrived.sum())
    if not arrived or float(seen.ended.sum()) / arrived >= DRAIN_RATIO_MIN:
        return Saturation.UNSATURATED
    slope = linregress(np.arange(SLICES), seen.backlog)
    low = slope.slope - student.ppf((1 + CONFIDENCE) / 2, SLICES - 2) * slope.stderr
    # Per slice, so that it compares with the arrivals of one.
    if low > (1 - DRAIN_RATIO_MIN) * arrived / SLICES:
        return Saturation.SATURATED
    return Saturation.BACKLOG
