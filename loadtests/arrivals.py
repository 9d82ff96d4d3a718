"""When streams are to begin in the open model: a Poisson process from a seed, which no slow server holds up."""

import random


class Arrivals:
    """Moments at which streams are due; whoever is free takes the next.

    Args:
        per_second: on average, of this process.
        start: where the clock stands when it begins.
    """

    def __init__(self, per_second: float, seed: int, start: float) -> None:
        self._per_second = per_second
        self._random = random.Random(seed)  # noqa: S311 - no secret, but the same at every run
        self._next = start
        self.lags: list[float] = []

    def take(self) -> float:
        """The next moment. The caller waits for it, or is late already."""
        self._next += self._random.expovariate(self._per_second)
        return self._next

    def began(self, due: float, at: float) -> None:
        """A stream that was due began."""
        self.lags.append(max(0.0, at - due))

    def complaints(self) -> list[str]:
        """Why streams did not begin when they were due; nothing when they did."""
        lags = sorted(self.lags)
        if lags and (late := 1000 * lags[int(0.99 * (len(lags) - 1))]) > LAG_P99_MS_MAX:
            return [f"streams began {late:.0f} ms late (p99), at most {LAG_P99_MS_MAX:g} ms: too few users"]
        return []


LAG_P99_MS_MAX = 50.0
