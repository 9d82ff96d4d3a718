"""How one stream kept its pace, as its readers had it: the first token of its answer, and the silences behind it.

What happens at each commit is a look at the clock; nothing is observed for a token. A killed worker takes the last of
these looks along.
"""

from operator import sub
from time import monotonic

from app.events import Token
from app.observability.figures import figures
from app.observability.metrics import (
    FIRST_TOKEN_SECONDS,
    GAP_SECONDS_MAX,
    NO_FIRST_TOKEN,
    STREAM_SECONDS,
    TOKEN_GAP_SECONDS,
    TOKEN_SECONDS,
)
from app.streams.tail import Entry

# Looks at the clock that wait to be counted: half a kilobyte of a stream, and a second and a half of most.
TIMES_MAX = 32


class Pace:
    """Of what one worker produces of one stream.

    Args:
        started: when the stream was asked for, by the monotonic clock.
        matters: whether somebody watches it as it comes; nobody does with a batch, whose tokens are whole answers.
        answered: its first token has come already, from another worker.
        last_token_at: about when its last token came from there; None if none did.
    """

    __slots__ = (
        "_answered",
        "_gap_seconds_max",
        "_gaps",
        "_matters",
        "_model",
        "_seconds",
        "_started",
        "_times",
        "_together",
        "first_token_seconds",
    )

    def __init__(
        self,
        model: str,
        started: float,
        matters: bool = True,
        answered: bool = False,
        last_token_at: float | None = None,
    ) -> None:
        self.first_token_seconds: float | None = None
        """Of content or of a tool call: a thought is no part of the answer, and a heartbeat is no token."""
        self._matters = matters
        self._model = model
        self._started = started
        self._answered = answered
        # When tokens came, from the last that is counted on, or the first.
        self._times: list[float] = [] if last_token_at is None else [last_token_at]
        self._gaps = self._together = 0
        self._seconds = self._gap_seconds_max = 0.0

    def delivered(self, entries: list[Entry]) -> None:
        """These have just become the readers'."""
        if type(entries[0][1]) is not Token or not self._matters:
            return
        now = monotonic()
        self._times.append(now)
        if len(entries) > 1:
            self._together += sum(type(event) is Token for _, event in entries) - 1
        if not self._answered and _has_answer(entries):
            # Not at the stream's end, which another worker may see.
            self._answered = True
            self.first_token_seconds = now - self._started
            figures.observe(FIRST_TOKEN_SECONDS, self.first_token_seconds, self._model)
        if len(self._times) > TIMES_MAX:
            self.count()

    def ended(self, outcome: str) -> None:
        """The stream has ended."""
        if not self._matters:
            return
        self.left()
        figures.observe(STREAM_SECONDS, monotonic() - self._started, self._model)
        if not self._answered:
            figures.add(NO_FIRST_TOKEN, 1, self._model, outcome)

    def left(self) -> None:
        """Nothing more comes from here; another worker may go on."""
        self.count()
        behind_first = self._gaps + self._together
        if not behind_first:
            return
        model = self._model
        figures.tally(TOKEN_GAP_SECONDS, model).add_zeros(self._together)
        figures.observe(GAP_SECONDS_MAX, self._gap_seconds_max, model)
        figures.observe(TOKEN_SECONDS, self._seconds / behind_first, model)
        self._gaps = self._together = 0
        self._seconds = self._gap_seconds_max = 0.0

    def count(self) -> None:
        """Bring the silences up to now to the figures."""
        times = self._times
        gaps = list(map(sub, times[1:], times))
        if not gaps:
            return
        figures.tally(TOKEN_GAP_SECONDS, self._model).extend(gaps)
        self._gap_seconds_max = max(self._gap_seconds_max, *gaps)
        self._gaps += len(gaps)
        self._seconds += times[-1] - times[0]
        del times[:-1]


def _has_answer(entries: list[Entry]) -> bool:
    return any(type(event) is Token and event.kind != "thought" for _, event in entries)
