"""The deadlines of one answer: first token, silence between tokens, total. One timer, which looks at a timestamp.

A timer a token would cost more than the token. This one goes off about once in `idle_seconds`, sees how long the
upstream has been awaited by then, and is set again; a token only stores the time.
"""

import asyncio
from collections.abc import Callable

from app.errors import UpstreamError, UpstreamStalled, UpstreamTimeout

NOT_WAITING = float("inf")
# After a held loop a timer can run before the socket is read: what arrived meanwhile gets this long to be seen.
SECOND_LOOK_SECONDS = 0.05
# Timers may go off early by their clock's resolution, a millisecond with uvloop.
EARLY_SECONDS = 0.002


class Watch:
    """Counts only while the upstream is awaited: a consumer that takes its time makes no upstream look stalled.

    Bytes are no progress, tokens are: `pause` when some came, `resume` when the consumer wants more.

    Args:
        expire: told the error, once, when a deadline passes.
        sent_at: when the request went out, by the loop's clock.
        total_at: the end of everything, by the same clock.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        expire: Callable[[UpstreamError], None],
        *,
        sent_at: float,
        total_at: float,
        first_token_seconds: float,
        idle_seconds: float,
    ) -> None:
        self._loop = loop
        self._expire = expire
        self._since = sent_at
        self._total_at = total_at
        self._limit_seconds = first_token_seconds
        self._idle_seconds = idle_seconds
        self._first = True
        self._suspected = False
        self._timer = loop.call_at(min(sent_at + first_token_seconds, total_at), self._look)

    def pause(self) -> None:
        """Tokens came, and the consumer has them now."""
        self._since = NOT_WAITING
        if self._first:
            self._first = False
            self._limit(self._idle_seconds)

    def resume(self) -> None:
        """The upstream is awaited again."""
        self._since = self._loop.time()

    def hurry(self, seconds: float) -> None:
        """No more tokens are due, only the end: wait at most so long for it."""
        if seconds < self._limit_seconds:
            self._since = self._loop.time()
            self._limit(seconds)

    def cancel(self) -> None:
        """The answer is over."""
        self._timer.cancel()

    def _limit(self, seconds: float) -> None:
        self._limit_seconds = seconds
        self._timer.cancel()
        self._arm(self._loop.time() + seconds)

    def _arm(self, at: float) -> None:
        self._timer = self._loop.call_at(min(at, self._total_at), self._look)

    def _look(self) -> None:
        now = self._loop.time() + EARLY_SECONDS
        if now >= self._total_at:
            self._expire(UpstreamTimeout("The upstream took too long to finish."))
        elif now - self._since < self._limit_seconds:
            self._suspected = False
            # A wait that begins after now cannot be over before this either, so it needs no timer of its own.
            self._arm(min(self._since, now) + self._limit_seconds)
        elif not self._suspected:
            self._suspected = True
            self._arm(now + SECOND_LOOK_SECONDS)
        elif self._first:
            self._expire(UpstreamTimeout("The upstream sent no token in time."))
        else:
            self._expire(UpstreamStalled("The upstream stopped sending."))
