"""Keeps requests away from an upstream that fails, and finds out whether it still does with one request at a time.

Of this worker alone: each sees enough of an upstream to judge it, and nothing between workers has to be waited for.
"""

from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Literal

State = Literal["closed", "open", "half_open"]

OUTCOMES_KEPT = 20
# Older ones say little about now; without this, an upstream with few requests would be judged by yesterday's.
WINDOW_SECONDS = 30.0
OPEN_SECONDS_MAX = 120.0


class Breaker:
    """Opens when so many of the newest outcomes are failures, and at least half of them.

    Every attempt that `enter`s reports `answered` at its first token, `failed` if it fails before or after that, and
    `leave`s at its end, however that was.

    Args:
        failures_max: 0 never opens.
        open_seconds: until the first probe; doubled each time that one fails.
    """

    def __init__(self, failures_max: int, open_seconds: float, clock: Callable[[], float] = monotonic) -> None:
        self._failures_max = failures_max
        self._open_seconds = open_seconds
        self._clock = clock
        self._outcomes: deque[tuple[float, bool]] = deque(maxlen=OUTCOMES_KEPT)
        self._open_until: float | None = None
        self._opened_in_a_row = 0
        self._probe: object | None = None

    @property
    def state(self) -> State:
        if self._open_until is None:
            return "closed"
        return "open" if self._clock() < self._open_until else "half_open"

    @property
    def admits(self) -> bool:
        """Whether an attempt may begin now."""
        return self._open_until is None or (self._probe is None and self._clock() >= self._open_until)

    @property
    def closed_in_seconds(self) -> float:
        """How long until a probe, at the earliest."""
        return max(0.0, self._open_until - self._clock()) if self._open_until is not None else 0.0

    def enter(self, attempt: object) -> None:
        """An attempt begins; behind an open breaker it is the probe."""
        if self._open_until is not None:
            self._probe = attempt

    def answered(self) -> None:
        """A first token came. Of a probe that is enough: its answer may go on for minutes."""
        self._outcomes.append((self._clock(), True))
        self._open_until, self._opened_in_a_row = None, 0

    def failed(self, attempt: object) -> None:
        """It failed, before its first token or in the middle of its answer."""
        now = self._clock()
        self._outcomes.append((now, False))
        if attempt is self._probe or (self._open_until is None and self._fails_mostly(now)):
            self._open(now)

    def leave(self, attempt: object) -> None:
        """It is over."""
        if self._probe is attempt:
            self._probe = None

    def _fails_mostly(self, now: float) -> bool:
        recent = [good for at, good in self._outcomes if now - at <= WINDOW_SECONDS]
        failures = recent.count(False)
        return 0 < self._failures_max <= failures and 2 * failures >= len(recent)

    def _open(self, now: float) -> None:
        self._open_until = now + min(self._open_seconds * 2**self._opened_in_a_row, OPEN_SECONDS_MAX)
        self._opened_in_a_row = min(self._opened_in_a_row + 1, 10)
        self._outcomes.clear()
