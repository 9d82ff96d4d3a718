"""What every answer that reads a stream shares: its terms, its reader, a watched client, a line in the log."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.responses import JSONResponse, Response
from starlette.types import Message, Receive, Scope, Send

from app.errors import CursorGone
from app.events import Failed
from app.observability import tracing
from app.observability.figures import figures
from app.observability.metrics import READERS, RESUMES
from app.scope import Wire, note, wire
from app.streams.connection import ClientGone, Connection, ReaderStuck
from app.streams.delivery import Delivery
from app.streams.drain import Drain
from app.streams.reader import Reader
from app.streams.registry import Streams

ErrorBody = Callable[[Failed, Scope], dict[str, Any]]
OpenReader = Callable[[Connection], Awaitable[Reader]]


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
    async def _serve(self, reader: Reader, connection: Connection, scope: Scope, delivery: Delivery) -> str:
        """Answer, and say what became of it."""

    async def _fail(self, failed: Failed, reader: Reader, scope: Scope, connection: Connection) -> str:
        """Answer with the failure's own status."""
        headers = {"X-Stream-Id": reader.record.stream_id}
        if failed.retry_after_seconds is not None:
            headers["Retry-After"] = str(failed.retry_after_seconds)
        answer = JSONResponse(self._terms.error_body(failed, scope), failed.status, headers)
        await answer(scope, receive_nothing, connection.send)  # type: ignore[arg-type]
        return failed.code


async def receive_nothing() -> Message:
    """The one listener of a connection is `Connection`'s."""
    raise AssertionError("an answer that is ready has nothing to receive")
