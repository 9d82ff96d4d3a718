"""What one connection got of its stream, for the line that is logged of it."""

from collections.abc import Sequence
from time import monotonic

from starlette.types import Scope

from app.events import Done, Failed, Token
from app.observability import tracing
from app.scope import note
from app.streams.reader import Reader
from app.streams.tail import Entry


class Delivery:
    """What one connection got of its stream."""

    def __init__(self) -> None:
        self.tokens = 0
        self.outcome = "completed"
        self._done: Done | None = None
        self._started = monotonic()
        self._first_token_seconds: float | None = None

    def count(self, entries: Sequence[Entry]) -> None:
        """These were delivered, or are about to be."""
        for _, event in entries:
            if type(event) is Token:
                self.tokens += 1
                if self._first_token_seconds is None:
                    self._first_token_seconds = monotonic() - self._started
            elif type(event) is Failed:
                self.outcome = event.code
                tracing.describe(outcome=event.code)
            elif type(event) is Done:
                self._done = event
                tracing.describe(outcome="completed")  # now: the span ends with the answer's last piece

    def note(self, scope: Scope, reader: Reader, outcome: str) -> None:
        """Leave what the access log's line says of this stream."""
        fields = note(scope)
        fields |= {
            "stream_id": reader.record.stream_id,
            "model": reader.record.request.model,
            "outcome": outcome,
            "tokens": self.tokens,
        }
        if self._done is not None:
            fields |= {"input_tokens": self._done.usage.input_tokens, "output_tokens": self._done.usage.output_tokens}
            if self._done.cost is not None:
                fields["cost"] = self._done.cost
        if self._first_token_seconds is not None:
            fields["ttft_ms"] = round(self._first_token_seconds * 1000, 1)
