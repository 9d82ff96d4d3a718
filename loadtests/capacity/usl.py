"""The Universal Scalability Law, fitted to throughput by concurrency.

    X(N) = lambda N / (1 + sigma (N - 1) + kappa N (N - 1))

sigma is the share of work that waits for its turn, kappa what it costs that everybody must agree with everybody. With a
kappa above 0 the throughput has a maximum. Nothing is said beyond what was measured and a little.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import curve_fit
from scipy.stats import t as student

POINTS_MIN = 6
# Beyond this multiple of the largest measured load the law is a guess.
EXTRAPOLATION_MAX = 1.5
CONFIDENCE = 0.95

Floats = NDArray[np.float64]


class TooFewPoints(ValueError):
    """A fit of three parameters needs more points than there are."""


class Extrapolation(ValueError):
    """A load so far beyond the measured ones that the law says nothing of it."""


class Fit(NamedTuple):
    """Parameters with their 95 % intervals, all of them at or above 0."""

    lam: float
    sigma: float
    kappa: float
    lam_interval: tuple[float, float]
    sigma_interval: tuple[float, float]
    kappa_interval: tuple[float, float]
    r_squared: float
    streams_max: float

    @property
    def peak(self) -> float | None:
        """The load of the largest throughput; None where it was not seen to fall, or lies too far out."""
        if self.kappa_interval[0] <= 0 or self.sigma >= 1:
            return None
        peak = float(np.sqrt((1 - self.sigma) / self.kappa))
        return peak if peak <= EXTRAPOLATION_MAX * self.streams_max else None

    def throughput(self, streams: float) -> float:
        """What the law expects.

        Raises:
            Extrapolation: nobody measured anything near.
        """
        if streams > EXTRAPOLATION_MAX * self.streams_max:
            raise Extrapolation(f"{streams:g} streams, where at most {self.streams_max:g} were measured")
        return float(law(np.array([streams]), self.lam, self.sigma, self.kappa)[0])


def law(streams: Floats, lam: float, sigma: float, kappa: float) -> Floats:
    return np.asarray(lam * streams / (1 + sigma * (streams - 1) + kappa * streams * (streams - 1)))


def fit(streams: Sequence[float] | Floats, throughput: Sequence[float] | Floats) -> Fit:
    """The law's parameters for these measurements.

    Raises:
        TooFewPoints: fewer than six different loads.
    """
    loads, rates = np.asarray(streams, dtype=np.float64), np.asarray(throughput, dtype=np.float64)
    if len(np.unique(loads)) < POINTS_MIN:
        raise TooFewPoints(f"{len(np.unique(loads))} different loads, {POINTS_MIN} are needed")
    start = (float(np.max(rates / loads)), 1e-3, 1e-7)
    # Relative residuals: a percent at ten streams counts as much as one at a thousand.
    found, covariance = curve_fit(
        law, loads, rates, p0=start, sigma=rates, bounds=(0, [np.inf, 1, 1]), x_scale=(start[0], 1e-3, 1e-6)
    )
    half = student.ppf((1 + CONFIDENCE) / 2, len(loads) - len(found)) * np.sqrt(np.diag(covariance))
    lows, highs = np.maximum(found - half, 0), found + half
    residual = float(np.sum((rates - law(loads, *found)) ** 2))
    spread = float(np.sum((rates - rates.mean()) ** 2))
    lam, sigma, kappa = (float(value) for value in found)
    first, second, third = ((float(low), float(high)) for low, high in zip(lows, highs, strict=True))
    return Fit(lam, sigma, kappa, first, second, third, 1 - residual / max(spread, 1e-12), float(loads.max()))
