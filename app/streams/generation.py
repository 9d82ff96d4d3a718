"""One generation and its owner: what a provider says is numbered, waits for its commit, and is then the tail's.

A generation belongs to the process's lifespan and not to a request: no ending connection takes it down half-way.
"""

import asyncio
from collections.abc import Callable, Sequence
from time import monotonic, time
from typing import NamedTuple

from app.events import ENDS, Event, Failed, Reset, Terminal, Token
from app.observability.figures import figures
from app.observability.metrics import RESETS, STREAMS
from app.routing.batch import TASKS
from app.streams.log import Append, Cursor, StreamRecord
from app.streams.outcome import outcome_of
from app.streams.pace import Pace
from app.streams.tail import Entry, Tail

# The longest life that a setting allows, on four workers one after the other; a clock may be years off.
AGE_SECONDS_MAX = 4 * 86_400.0


class Past(NamedTuple):
    """What a stream said before it was taken over.

    Args:
        text: its content; the answer goes on behind it.
        content_tokens: how many tokens that is.
        answered: whether its first token had come, also if a reset voided it since.
        last_token_at: about when its last token came, by the monotonic clock; None if none did.
    """

    text: str = ""
    content_tokens: int = 0
    answered: bool = False
    last_token_at: float | None = None


NO_PAST = Past()


class Generation:
    """A running stream that this worker owns.

    Args:
        fence: the right to append; it ends when somebody claims the stream. 0: the log knows nothing of the stream.
        on_over: called once nothing more comes from here: its end is delivered, or somebody else owns the stream.
    """

    def __init__(
        self,
        record: StreamRecord,
        tail: Tail,
        fence: int,
        on_over: Callable[["Generation"], None],
        past: Past = NO_PAST,
    ) -> None:
        self.record = record
        self.grant = record.grant
        self.tail = tail
        self.fence = fence
        self.said = past.text
        self.started = _asked_at(record)
        self.pace = Pace(record.request.model, self.started, record.surface != TASKS, past.answered, past.last_token_at)
        self.rescued = False
        """Whether an upstream failed in the middle of the answer."""
        self.content_tokens = past.content_tokens
        self.ended = False
        self.end: Terminal | None = None
        self.task: asyncio.Task[None] | None = None
        self.lost = False
        self._on_over = on_over
        self._next = Cursor(tail.last.epoch, tail.last.seq + 1)
        self.pending: list[Event] = []  # what waits for its commit
        self._resets = 0  # among those

    def add(self, event: Event) -> bool:
        """Take an event to be committed; False once the stream has ended, behind which nothing comes."""
        if self.ended:
            return False
        if type(event) is Token:
            if event.kind == "content":
                self.content_tokens += 1
                event = Token(event.text, "content", self.content_tokens)
        elif type(event) is Reset:
            self.content_tokens = 0
            self._resets += 1
            figures.add(RESETS, 1, event.reason)
        elif isinstance(event, ENDS):
            self.ended, self.end = True, event
        self.pending.append(event)
        return True

    def add_content(self, texts: Sequence[str]) -> bool:
        """As `add`, for pieces of content, which nearly all events are."""
        if self.ended:
            return False
        count = self.content_tokens
        for text in texts:
            count += 1
            self.pending.append(Token(text, "content", count))
        self.content_tokens = count
        return True

    def add_last(self, event: Failed) -> None:
        """Say how the stream ended although it was stopped."""
        self.ended, self.end = True, event
        self.pending, self._resets = [event], 0

    def rewind(self, first: Cursor) -> None:
        """What was to begin at `first` was refused, and what is pending too: the next event takes its place."""
        self._next = first
        self.pending, self._resets = [], 0

    def take_pending(self) -> Append:
        """What waits for its commit, as one append; a reset opens the next epoch, and with it the next append."""
        events, self.pending = self.pending, []
        first = self._next
        if self._resets:
            if type(events[0]) is Reset:
                self._resets -= 1
                first = Cursor(first.epoch + 1, 0)
            if self._resets:
                at = next(index for index, event in enumerate(events[1:], 1) if type(event) is Reset)
                events, self.pending = events[:at], events[at:]
        epoch, seq = first
        self._next = Cursor(epoch, seq + len(events))
        return Append(self.record.stream_id, self.fence, first, events)

    def committed(self, append: Append) -> None:
        """It is in the log: readers may have it."""
        first, events = append.first, append.events
        if len(events) == 1:  # nearly always
            self._deliver([(first, events[0])])
        else:
            epoch, seq = first
            self._deliver([(Cursor(epoch, seq + offset), event) for offset, event in enumerate(events)])

    def deliver_unlogged(self, events: Sequence[Event]) -> None:
        """The log is away: readers get what there is, without ids."""
        self._deliver([(None, event) for event in events])

    def _deliver(self, entries: list[Entry]) -> None:
        self.tail.extend(entries)
        self.pace.delivered(entries)
        if self.tail.ended:
            self._count_end()
            self._on_over(self)

    def _count_end(self) -> None:
        assert self.end is not None
        outcome = outcome_of(self.end, self.rescued)
        figures.add(STREAMS, 1, self.record.request.model, self.record.surface, outcome)
        self.pace.ended(outcome)

    def lose(self) -> None:
        """Somebody else owns the stream: say nothing more and stop the upstream."""
        self.stop()
        self.pace.left()
        self.pending, self._resets = [], 0
        self.lost = True
        self._on_over(self)

    def stop(self) -> None:
        """Stop the upstream; what was added before is still committed."""
        self.ended = True
        # Once: a second cancellation would interrupt the closing of the upstream.
        if self.task is not None and not self.task.cancelling():
            self.task.cancel()


def _asked_at(record: StreamRecord) -> float:
    """When the stream was asked for, by this machine's monotonic clock; another machine's clock may have told when."""
    age_seconds = time() - (record.asked_unix or record.created_unix)
    return monotonic() - min(max(0.0, age_seconds), AGE_SECONDS_MAX)
