"""Lines that say the same again and again: so many of a kind are written, then a few, with how many were not.

A thousand clients that reconnect once a second say no more than the first hundred; metrics count all of them.
"""

from collections.abc import Callable, Hashable
from time import monotonic

BURST = 100
PER_SECOND = 2.0
# Kinds are few, being made of what is configured; a defect must not fill the memory.
KINDS_MAX = 2000


class Noise:
    """A bucket of lines for each kind."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._kinds: dict[Hashable, _Bucket] = {}

    def admits(self, kind: Hashable) -> int | None:
        """How many lines of this kind were left out since the last one, if this one may be written; else None."""
        bucket = self._kinds.get(kind)
        if bucket is None:
            if len(self._kinds) >= KINDS_MAX:
                self._kinds.clear()
            bucket = self._kinds[kind] = _Bucket(self._clock())
        return bucket.take(self._clock())


class _Bucket:
    __slots__ = ("_at", "_left", "_unwritten")

    def __init__(self, now: float) -> None:
        self._left = float(BURST)
        self._at = now
        self._unwritten = 0

    def take(self, now: float) -> int | None:
        self._left = min(BURST, self._left + (now - self._at) * PER_SECOND)
        self._at = now
        if self._left < 1:
            self._unwritten += 1
            return None
        self._left -= 1
        unwritten, self._unwritten = self._unwritten, 0
        return unwritten
