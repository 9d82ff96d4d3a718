"""When a client that lost its connection comes back, and how often without getting anything."""

import random

# A hundred clients that lost theirs at one moment are back over a second, and over more of them if that fails.
PAUSE_SECONDS_MIN = 0.1
PAUSE_SECONDS = 1.0
PAUSE_SECONDS_MAX = 5.0
# What a server may ask for at most; it would else hold a client for the whole test.
TOLD_SECONDS_MAX = 30.0
# Half a minute and more: a worker is replaced in less.
FAILURES_MAX = 12


class Patience:
    """Of one client for one stream."""

    def __init__(self, source: random.Random) -> None:
        self._random = source
        self._failures = 0

    @property
    def spent(self) -> bool:
        """Whether it gives up."""
        return self._failures >= FAILURES_MAX

    def pause_seconds(self, told_seconds: float | None, heard: bool) -> float:
        """Until it comes back: as it was told, else by chance, twice as long at each failure in a row.

        Args:
            told_seconds: what the server said.
            heard: whether anything came on the connection that is lost.
        """
        self._failures = 0 if heard else self._failures + 1
        if told_seconds is not None:
            return min(told_seconds, TOLD_SECONDS_MAX)
        pause = self._random.uniform(PAUSE_SECONDS_MIN, PAUSE_SECONDS) * 2.0**self._failures
        return min(pause, PAUSE_SECONDS_MAX)
