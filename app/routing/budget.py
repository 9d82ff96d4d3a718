"""How many requests may be repeated: a share of all, so that an upstream that fails is not asked many times as much."""

from collections.abc import Callable
from time import monotonic

# What a quiet service may spend at once, and how fast that comes back.
RESERVE = 10.0
RESERVE_PER_SECOND = 1.0


class RetryBudget:
    """Of one model on one worker. Only repeats on the same upstream are paid for: those elsewhere are bounded by the
    number of upstreams.

    Args:
        share: repeats for each request.
    """

    def __init__(self, share: float, clock: Callable[[], float] = monotonic) -> None:
        self._share = share
        self._clock = clock
        self._left = RESERVE
        self._seen = clock()

    def earn(self) -> None:
        """A request came."""
        self._add(self._share)

    @property
    def any_left(self) -> bool:
        """Whether one more may be spent."""
        self._add(0)
        return self._left >= 1

    def spend(self) -> None:
        """A request is repeated."""
        self._left -= 1

    def _add(self, count: float) -> None:
        now = self._clock()
        self._left = min(RESERVE, self._left + count + (now - self._seen) * RESERVE_PER_SECOND)
        self._seen = now
