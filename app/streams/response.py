"""A stream as an HTTP answer: raw ASGI, so that a token costs one `send` and the status line stays honest.

The headers wait for the first event or the first heartbeat, whichever comes first. Until then a failing upstream is a
real HTTP status; after that it is the stream's terminal `error` event.
"""

import random
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

from starlette.responses import JSONResponse, Response
from starlette.types import Message, Receive, Scope, Send

from app.errors import CursorGone, SluiceError
from app.events import Done, Event, Failed, Reset, Token
from app.observability import tracing
from app.observability.figures import figures
from app.observability.metrics import HEARTBEATS, READERS, RESUMES
from app.scope import Wire, note, wire
from app.streams.answer import Answer
from app.streams.connection import ClientGone, Connection, ReaderStuck
from app.streams.drain import Drain
from app.streams.reader import Reader
from app.streams.registry import Streams
from app.streams.sse import Encoder
from app.streams.tail import Entry

ErrorBody = Callable[[Failed, Scope], dict[str, Any]]
OpenReader = Callable[[Connection], Awaitable[Reader]]

STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    # no-transform: proxies on the way must neither compress nor rewrite a stream.
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),
]
# Another moment for each client, so that those of one worker do not come back at once.
RETRY_MS = (100, 1000)


@dataclass(frozen=True)
class Terms:
    """What holds for every connection that reads a stream.

    Args:
        heartbeat_seconds, send_seconds: see `Connection`.
        age_seconds_max: a resumable reader is sent to reconnect after this, give or take a fifth.
        error_body: an error as JSON in the surface's shape.
    """

    streams: Streams
    drain: Drain
    heartbeat_seconds: float
    send_seconds: float
    age_seconds_max: float
    error_body: ErrorBody


class ReaderResponse(Response, ABC):
    """What stream and batch answers share: a reader, a watched client, and a line in the log.

    Args:
        open_reader: begins or finds the stream, when the answer is called for and not before; it may have to wait for
            that, on a client who may leave.
        resumable: the client can come back with the last id it saw.
    """

    def __init__(self, terms: Terms, open_reader: OpenReader, resumable: bool = False) -> None:
        self._terms = terms
        self._open_reader = open_reader
        self._resumable = resumable
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        terms = self._terms
        delivery = Delivery()
        connection = Connection(receive, send, terms.heartbeat_seconds, terms.send_seconds, wire(scope))
        try:
            reader = await self._open(connection)
        except ClientGone:
            connection.close()
            note(scope)["outcome"] = "client_cancelled"
            return
        except BaseException:
            connection.close()
            raise
        terms.drain.enter(connection, self._resumable)
        tracing.link(reader.record.request.headers)
        tracing.describe(stream_id=reader.record.stream_id)
        outcome = "server_error"
        try:
            outcome = await self._serve(reader, connection, scope, delivery)
        except ReaderStuck:
            outcome = "slow_reader"
            self._cut(reader, wire(scope))
        finally:
            connection.close()
            terms.drain.leave(connection)
            terms.streams.detach(reader)
            delivery.note(scope, reader, outcome)
            tracing.describe(outcome=outcome)
            figures.add(READERS, 1, outcome)

    async def _open(self, connection: Connection) -> Reader:
        try:
            return await self._open_reader(connection)
        except CursorGone:
            figures.add(RESUMES, 1, "gone")
            raise

    def _cut(self, reader: Reader, below: Wire | None) -> None:
        """Let go of a reader that takes nothing."""
        del reader
        if below is not None:
            below.abort()

    @abstractmethod
    async def _serve(self, reader: Reader, connection: Connection, scope: Scope, delivery: "Delivery") -> str:
        """Answer, and say what became of it."""

    async def _fail(self, failed: Failed, reader: Reader, scope: Scope, connection: Connection) -> str:
        """Answer with the failure's own status."""
        headers = {"X-Stream-Id": reader.record.stream_id}
        if failed.retry_after_seconds is not None:
            headers["Retry-After"] = str(failed.retry_after_seconds)
        answer = JSONResponse(self._terms.error_body(failed, scope), failed.status, headers)
        await answer(scope, _receive_nothing, connection.send)  # type: ignore[arg-type]
        return failed.code


class StreamResponse(ReaderResponse):
    """Server-sent events, as they are made.

    Args:
        begins: the request began the stream, or joined its beginning: a failure at once is then an HTTP status. To one
            that resumes it is an event, or its reader would ask again and again.
        valid_seconds: for how long what the caller showed is good; then the reader has to show something else.
    """

    def __init__(
        self, encoder: Callable[[Reader], Encoder], begins: bool, valid_seconds: float | None = None, **common: Any
    ) -> None:
        super().__init__(**common)
        self._encoder = encoder
        self._begins = begins
        self._valid_seconds = valid_seconds

    async def _serve(self, reader: Reader, connection: Connection, scope: Scope, delivery: "Delivery") -> str:
        if not self._begins:
            figures.add(RESUMES, 1, "past_end" if reader.past_end else "ok")
            note(scope)["resumed"] = True
        if reader.past_end:
            # What tells an EventSource to stop asking.
            await Response(status_code=204)(scope, _receive_nothing, connection.send)  # type: ignore[arg-type]
            return "past_end"
        if self._valid_seconds is not None:
            connection.leave_after(self._valid_seconds, "reauthenticate")
        encoder = self._encoder(reader)
        reader.follow(Push(reader, connection, encoder, delivery))
        first = await reader.take()
        while not first and not connection.heartbeat_due and not connection.gone and not connection.leaving:
            await connection.wait()
            first = await reader.take()
        if connection.gone:
            return "client_cancelled"
        if self._begins and first and type(first[0][1]) is Failed:
            return await self._fail(first[0][1], reader, scope, connection)
        headers = [*STREAM_HEADERS, (b"x-stream-id", reader.record.stream_id.encode())]
        await connection.send({"type": "http.response.start", "status": 200, "headers": headers})
        if self._resumable:
            # So that old readers come to new workers.
            connection.leave_after(self._terms.age_seconds_max * random.uniform(0.8, 1.2), "max_age")  # noqa: S311
        return await self._stream(first, reader, connection, encoder, delivery)

    def _cut(self, reader: Reader, below: Wire | None) -> None:
        # One that wakes up again finds the reason behind what it has not read yet.
        if below is not None:
            farewell = self._encoder(reader).farewell("slow_reader", random.randint(*RETRY_MS))  # noqa: S311
            below.end(farewell, self._terms.send_seconds)

    async def _stream(
        self,
        entries: Sequence[Entry],
        reader: Reader,
        connection: Connection,
        encoder: Encoder,
        delivery: "Delivery",
    ) -> str:
        while not connection.gone:
            if entries:
                # All that came while the last send was on its way goes out in one: a busy loop batches by itself.
                body = b"".join([encoder.encode(cursor, event) for cursor, event in entries])
                delivery.count(entries)
                await connection.send({"type": "http.response.body", "body": body, "more_body": not reader.ended})
                if reader.ended:
                    return delivery.outcome
            elif connection.leaving:
                tracing.describe(outcome=connection.leaving)
                body = encoder.farewell(connection.leaving, random.randint(*RETRY_MS))  # noqa: S311
                await connection.send({"type": "http.response.body", "body": body, "more_body": False})
                return connection.leaving
            elif connection.heartbeat_due:
                figures.add(HEARTBEATS)
                body = heartbeat(reader, encoder)
                await connection.send({"type": "http.response.body", "body": body, "more_body": True})
            else:
                await connection.wait()
            entries = await self._take(reader)
        return "client_cancelled"

    async def _take(self, reader: Reader) -> Sequence[Entry]:
        try:
            return await reader.take()
        except SluiceError as error:
            # An end of this connection, not of the stream: it has no id.
            reader.ended = True
            return [(None, error.as_event())]


def heartbeat(reader: Reader, encoder: Encoder) -> bytes:
    """Says that the stream lives, and where it is while it waits for its turn."""
    ahead = reader.ahead
    # No line of its own that ends with a blank one: see `OpenAIEncoder`.
    return encoder.heartbeat if ahead is None else b": waiting behind %d\n" % ahead + encoder.heartbeat


class Push:
    """Brings new events to a connection whose task rests, without waking it: the way of nearly all tokens."""

    def __init__(self, reader: Reader, connection: Connection, encoder: Encoder, delivery: "Delivery") -> None:
        self._reader = reader
        self._connection = connection
        self._encode = encoder.encode
        self._delivery = delivery

    def __call__(self, entries: Sequence[Entry], first: int) -> None:
        """The tail has changed: see `Tail.follow`."""
        connection = self._connection
        # Both look, and `passes` moves the reader: only what is then sent may be passed.
        if not connection.open_to_push or not self._reader.passes(entries, first):
            connection.wake()
            return
        self._delivery.count(entries)
        try:
            if len(entries) == 1:
                cursor, event = entries[0]
                body = self._encode(cursor, event)
            else:
                body = b"".join([self._encode(cursor, event) for cursor, event in entries])
        except Exception as error:
            # It belongs to the task of this connection; here it would end the delivery of a commit to all others.
            connection.fail(error)
            return
        connection.push(body)


class BatchResponse(ReaderResponse):
    """The whole answer as one JSON document, once it is complete."""

    def __init__(self, body: Callable[[Answer], Any], **common: Any) -> None:
        super().__init__(**common)
        self._body = body

    async def _serve(self, reader: Reader, connection: Connection, scope: Scope, delivery: "Delivery") -> str:
        events: list[Event] = []
        reader.follow(lambda _entries, _first: connection.wake())
        while not reader.ended and not connection.gone and not connection.leaving:
            if entries := await reader.take():
                delivery.count(entries)
                for _, event in entries:
                    if type(event) is Reset:
                        events.clear()
                    else:
                        events.append(event)
                continue
            connection.heartbeat_due = False  # a JSON document has no heartbeat
            await connection.wait()
        if connection.gone:
            return "client_cancelled"
        last = events[-1] if reader.ended else DRAINED
        if type(last) is not Done:
            assert type(last) is Failed
            return await self._fail(last, reader, scope, connection)
        tokens = [event for event in events if type(event) is Token]
        body = self._body(Answer(reader.record, tokens, last))
        answer = JSONResponse(body, headers={"X-Stream-Id": reader.record.stream_id})
        await answer(scope, _receive_nothing, connection.send)  # type: ignore[arg-type]
        return "completed"


DRAINED = Failed("draining", "The server is shutting down.", 503, retryable=True, retry_after_seconds=1)


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


async def _receive_nothing() -> Message:
    """The one listener of a connection is `Connection`'s."""
    raise AssertionError("an answer that is ready has nothing to receive")
