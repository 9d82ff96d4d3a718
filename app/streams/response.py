"""A stream as an HTTP answer: raw ASGI, so that a token costs one `send` and the status line stays honest.

The headers wait for the first event or the first heartbeat, whichever comes first. Until then a failing upstream is a
real HTTP status; after that it is the stream's terminal `error` event.
"""

import random
from collections.abc import Callable, Sequence
from typing import Any

from starlette.responses import Response
from starlette.types import Scope

from app.errors import SluiceError
from app.events import Failed
from app.observability import tracing
from app.observability.figures import figures
from app.observability.metrics import HEARTBEATS, RESUMES
from app.scope import Wire, note
from app.streams.connection import Connection
from app.streams.delivery import Delivery
from app.streams.reader import Reader
from app.streams.reader_response import ReaderResponse, receive_nothing
from app.streams.sse import Encoder
from app.streams.tail import Entry

STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    # no-transform: proxies on the way must neither compress nor rewrite a stream.
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),
]
# Another moment for each client, so that those of one worker do not come back at once.
RETRY_MS = (100, 1000)


class StreamResponse(ReaderResponse):
    """Server-sent events, as they are made.

    Args:
        begins: the request began the stream, or joined its beginning: a failure at once is then an HTTP status. To one
            that resumes it is an event, or its reader would ask again and again.
        valid_seconds: for how long what the caller showed is good; then the reader has to show something else.
        key: see `Connection`.
        opening: stands before the first frame.
    """

    def __init__(
        self,
        encoder: Callable[[Reader], Encoder],
        begins: bool,
        valid_seconds: float | None = None,
        key: bytes = b"",
        opening: bytes = b"",
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self._encoder = encoder
        self._begins = begins
        self._valid_seconds = valid_seconds
        self._key = key
        self._opening = opening

    async def _serve(self, reader: Reader, connection: Connection, scope: Scope, delivery: Delivery) -> str:
        if not self._begins:
            figures.add(RESUMES, 1, "past_end" if reader.past_end else "ok")
            note(scope)["resumed"] = True
        if reader.past_end:
            # What tells an EventSource to stop asking.
            await Response(status_code=204)(scope, receive_nothing, connection.send)  # type: ignore[arg-type]
            return "past_end"
        if self._valid_seconds is not None:
            connection.leave_after(self._valid_seconds, "reauthenticate")
        connection.key = self._key
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
        if self._opening:
            await connection.send({"type": "http.response.body", "body": self._opening, "more_body": True})
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
        delivery: Delivery,
    ) -> str:
        while not connection.gone:
            if entries:
                # All that came while the last send was on its way goes out in one: a busy loop batches by itself.
                body = b"".join([encoder.encode(cursor, event) for cursor, event in entries])
                delivery.count(entries)
                if body or reader.ended:  # else a heartbeat is due as before
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

    def __init__(self, reader: Reader, connection: Connection, encoder: Encoder, delivery: Delivery) -> None:
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
