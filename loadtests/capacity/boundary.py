"""Where the objectives stop being kept: the load at which too few streams keep one, with its uncertainty.

The share that keeps an objective only falls with the load. So the points of all repetitions are put in order, averaged
where they contradict that (isotonic regression, weighted by streams), and the load is where the line crosses the share
that is due.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from loadtests.capacity.objectives import Objectives
from loadtests.capacity.point import Point

RESAMPLES = 1000
CONFIDENCE_PERCENT = 95.0

Floats = NDArray[np.float64]


class Boundary(NamedTuple):
    """Concurrent streams at which the first objective is missed."""

    streams: float
    low: float
    high: float
    binding: str


def crossing(streams: Floats, shares: Floats, totals: Floats, due: float) -> float:
    """The load at which the share falls below `due`: the largest load where it never does, 0 where it always is."""
    order = np.argsort(streams, kind="stable")
    loads = streams[order]
    fitted = isotonic_regression(shares[order], weights=np.maximum(totals[order], 1), increasing=False).x
    kept = fitted >= due
    if kept.all():
        return float(loads[-1])
    first_miss = int(np.argmin(kept))
    if first_miss == 0:
        return 0.0
    before, after = fitted[first_miss - 1], fitted[first_miss]
    share = (before - due) / (before - after)
    return float(loads[first_miss - 1] + share * (loads[first_miss] - loads[first_miss - 1]))


def boundary(points: Sequence[Point], due: Objectives, seed: int = 1, resamples: int = RESAMPLES) -> Boundary:
    """The boundary of these points, its interval by bootstrap: of the points, and of the streams within each."""
    streams = np.array([point.streams for point in points], dtype=np.float64)
    random = np.random.default_rng(seed)
    estimate = _first(streams, _shares(points), due)
    drawn = []
    for _ in range(resamples):
        chosen = _resampled(streams, random)
        shares = {
            name: (_drawn(values[chosen], totals[chosen], random), totals[chosen])
            for name, (values, totals) in _shares(points).items()
        }
        drawn.append(_first(streams[chosen], shares, due)[0])
    tail = (100 - CONFIDENCE_PERCENT) / 2
    low, high = np.percentile(drawn, [tail, 100 - tail])
    return Boundary(estimate[0], float(low), float(high), estimate[1])


def _resampled(streams: Floats, random: np.random.Generator) -> NDArray[np.int64]:
    """Points drawn with replacement from those of about the same load, so that no part of the range is left empty."""
    buckets = np.round(np.log2(np.maximum(streams, 1)) * 4)
    return np.concatenate(
        [random.choice(np.flatnonzero(buckets == b), int((buckets == b).sum())) for b in np.unique(buckets)]
    )


def _drawn(shares: Floats, totals: Floats, random: np.random.Generator) -> Floats:
    """The shares of as many streams, drawn anew; where there were none to judge, there are none that missed."""
    kept = random.binomial(totals.astype(np.int64), shares)
    return np.where(totals > 0, kept / np.maximum(totals, 1), shares)


def _shares(points: Sequence[Point]) -> dict[str, tuple[Floats, Floats]]:
    return {
        name: (
            np.array([point.kept[name].share for point in points]),
            np.array([point.kept[name].total for point in points], dtype=np.float64),
        )
        for name in points[0].kept
    }


def _first(streams: Floats, shares: dict[str, tuple[Floats, Floats]], due: Objectives) -> tuple[float, str]:
    """The lowest crossing, and whose it is."""
    return min((crossing(streams, values, totals, due.shares[name]), name) for name, (values, totals) in shares.items())
