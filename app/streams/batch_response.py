"""A stream as one JSON document, for those who wait for all of it."""

from collections.abc import Callable
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import Scope

from app.events import Done, Event, Failed, Reset, Token
from app.streams.answer import Answer
from app.streams.connection import Connection
from app.streams.delivery import Delivery
from app.streams.reader import Reader
from app.streams.reader_response import ReaderResponse, receive_nothing

DRAINED = Failed("draining", "The server is shutting down.", 503, retryable=True, retry_after_seconds=1)


class BatchResponse(ReaderResponse):
    """The whole answer as one JSON document, once it is complete."""

    def __init__(self, body: Callable[[Answer], Any], **common: Any) -> None:
        super().__init__(**common)
        self._body = body

    async def _serve(self, reader: Reader, connection: Connection, scope: Scope, delivery: Delivery) -> str:
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
        await answer(scope, receive_nothing, connection.send)  # type: ignore[arg-type]
        return "completed"
