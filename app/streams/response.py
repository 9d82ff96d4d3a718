"""A generation as an HTTP answer: raw ASGI, so that a token costs one `send` and the status line stays honest.

The headers wait for the first event or the first heartbeat, whichever comes first. Until then a failing upstream is a
real HTTP status; after that it is the stream's terminal `error` event.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from starlette.responses import JSONResponse, Response
from starlette.types import Message, Receive, Scope, Send

from app.events import Done, Failed
from app.scope import abort, note
from app.streams.connection import Connection, ReaderStuck
from app.streams.producer import Generation, Producers
from app.streams.sse import Encoder

ErrorBody = Callable[[Failed, Scope], dict[str, Any]]

STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    # no-transform: proxies on the way must neither compress nor rewrite a stream.
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),
]


class GenerationResponse(Response, ABC):
    """What stream and batch answers share: they start a generation, watch the client, and stop what nobody wants.

    Args:
        start: begins the generation; called when the answer is, so that nothing runs for a request that ends before.
        error_body: the surface's shape of an error.
        heartbeat_seconds, send_seconds: see `Connection`.
    """

    def __init__(
        self,
        producers: Producers,
        start: Callable[[], Generation],
        error_body: ErrorBody,
        heartbeat_seconds: float,
        send_seconds: float,
    ) -> None:
        self._producers = producers
        self._start = start
        self._error_body = error_body
        self._heartbeat_seconds = heartbeat_seconds
        self._send_seconds = send_seconds
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        generation = self._start()
        connection = Connection(receive, send, self._heartbeat_seconds, self._send_seconds)
        generation.follow(connection.wake)
        outcome = "server_error"
        try:
            outcome = await self._serve(generation, connection, scope)
        except ReaderStuck:
            outcome = "slow_reader"
            abort(scope)
        finally:
            connection.close()
            self._producers.cancel(generation)
            _note(scope, generation, outcome)

    @abstractmethod
    async def _serve(self, generation: Generation, connection: Connection, scope: Scope) -> str:
        """Answer, and say what became of it."""

    async def _fail(self, failed: Failed, generation: Generation, scope: Scope, connection: Connection) -> str:
        """Answer with the failure's own status."""
        answer = JSONResponse(self._error_body(failed, scope), failed.status, {"X-Stream-Id": generation.stream_id})
        if failed.retry_after_seconds is not None:
            answer.headers["Retry-After"] = str(failed.retry_after_seconds)
        await answer(scope, _receive_nothing, connection.send)  # type: ignore[arg-type]
        return failed.code


class StreamResponse(GenerationResponse):
    """Server-sent events, as they are made."""

    def __init__(self, encoder: Callable[[Generation], Encoder], **common: Any) -> None:
        super().__init__(**common)
        self._encoder = encoder

    async def _serve(self, generation: Generation, connection: Connection, scope: Scope) -> str:
        events = generation.events
        while not events and not connection.heartbeat_due and not connection.gone:
            await connection.wait()
        if events and type(events[0]) is Failed:
            return await self._fail(events[0], generation, scope, connection)
        headers = [*STREAM_HEADERS, (b"x-stream-id", generation.stream_id.encode())]
        await connection.send({"type": "http.response.start", "status": 200, "headers": headers})
        return await self._stream(generation, connection, self._encoder(generation))

    async def _stream(self, generation: Generation, connection: Connection, encoder: Encoder) -> str:
        events, sent = generation.events, 0
        while not connection.gone:
            if sent < len(events):
                # All that came while the last send was on its way goes out in one: a busy loop batches by itself.
                body = b"".join([encoder.encode(event) for event in events[sent:]])
                sent = len(events)
                more = not generation.ended
                await connection.send({"type": "http.response.body", "body": body, "more_body": more})
                if not more:
                    return _outcome(generation)
            elif connection.heartbeat_due:
                await connection.send({"type": "http.response.body", "body": encoder.heartbeat, "more_body": True})
            else:
                await connection.wait()
        return "client_cancelled"


class BatchResponse(GenerationResponse):
    """The whole answer as one JSON document, once it is complete."""

    def __init__(self, body: Callable[[Generation, Done], Any], **common: Any) -> None:
        super().__init__(**common)
        self._body = body

    async def _serve(self, generation: Generation, connection: Connection, scope: Scope) -> str:
        while not generation.ended and not connection.gone:
            connection.heartbeat_due = False  # a JSON document has no heartbeat
            await connection.wait()
        if connection.gone:
            return "client_cancelled"
        terminal = generation.terminal
        if isinstance(terminal, Failed):
            return await self._fail(terminal, generation, scope, connection)
        assert terminal is not None
        answer = JSONResponse(self._body(generation, terminal), headers={"X-Stream-Id": generation.stream_id})
        await answer(scope, _receive_nothing, connection.send)  # type: ignore[arg-type]
        return "completed"


def content(generation: Generation) -> str:
    """The answer's text without thoughts and tool calls."""
    return "".join(event.text for event in generation.tokens("content"))


async def _receive_nothing() -> Message:
    """The one listener of a connection is `Connection`'s."""
    raise AssertionError("an answer that is ready has nothing to receive")


def _outcome(generation: Generation) -> str:
    terminal = generation.terminal
    return terminal.code if isinstance(terminal, Failed) else "completed"


def _note(scope: Scope, generation: Generation, outcome: str) -> None:
    """Leave what the access log's line says of this stream."""
    fields = note(scope)
    fields |= {
        "stream_id": generation.stream_id,
        "model": generation.request.model,
        "outcome": outcome,
        "tokens": generation.content_tokens,
    }
    if generation.first_token_seconds is not None:
        fields["ttft_ms"] = round(generation.first_token_seconds * 1000, 1)
