"""How one stream kept its pace, as its readers had it: the first token of its answer, and the silences behind it.

What happens at each commit is a clock, a comparison and an addition; nothing is observed for a token.
"""

from time import monotonic

from app.events import Token
from app.observability.figures import Tally, figures
from app.observability.metrics import (
    FIRST_TOKEN_SECONDS,
    GAP_SECONDS_MAX,
    NO_FIRST_TOKEN,
    STREAM_SECONDS,
    TOKEN_GAP_SECONDS,
    TOKEN_SECONDS,
)
from app.streams.tail import Entry


class Pace:
    """Of what one worker produces of one stream.

    Args:
        started: when the stream was asked for, by the monotonic clock; None where another worker began it.
        matters: whether somebody watches it as it comes; nobody does with a batch, whose tokens are whole answers.
    """

    __slots__ = (
        "_first",
        "_gaps",
        "_last",
        "_matters",
        "_model",
        "_started",
        "_tokens",
        "first_token_seconds",
        "gap_seconds_max",
    )

    def __init__(self, model: str, started: float | None, matters: bool = True) -> None:
        self.first_token_seconds: float | None = None
        """Of content or of a tool call: a thought is no part of the answer, and a heartbeat is no token."""
        self.gap_seconds_max = 0.0
        self._matters = matters
        self._model = model
        self._started = started
        self._first = self._last = 0.0
        self._tokens = 0
        self._gaps: Tally | None = None

    def delivered(self, entries: list[Entry]) -> None:
        """These have just become the readers'."""
        event = entries[0][1]
        if type(event) is not Token or not self._matters:
            return
        now = monotonic()
        if self._gaps is None:
            self._gaps = figures.tally(TOKEN_GAP_SECONDS, self._model)
            self._first = now
        else:
            gap = now - self._last
            if gap > self.gap_seconds_max:
                self.gap_seconds_max = gap
            self._gaps.add(gap)
        self._last = now
        self._tokens += 1
        if len(entries) > 1:
            together = sum(type(event) is Token for _, event in entries)
            self._gaps.add_zeros(together - 1)
            self._tokens += together - 1
        if self.first_token_seconds is None and self._started is not None and _has_answer(entries):
            self.first_token_seconds = now - self._started

    def ended(self, outcome: str) -> None:
        """The stream has ended."""
        if not self._matters:
            return
        model = self._model
        if self._tokens > 1:
            figures.observe(GAP_SECONDS_MAX, self.gap_seconds_max, model)
            figures.observe(TOKEN_SECONDS, (self._last - self._first) / (self._tokens - 1), model)
        if self._started is None:
            return
        figures.observe(STREAM_SECONDS, monotonic() - self._started, model)
        if self.first_token_seconds is None:
            figures.add(NO_FIRST_TOKEN, 1, model, outcome)
        else:
            figures.observe(FIRST_TOKEN_SECONDS, self.first_token_seconds, model)


def _has_answer(entries: list[Entry]) -> bool:
    return any(type(event) is Token and event.kind != "thought" for _, event in entries)
