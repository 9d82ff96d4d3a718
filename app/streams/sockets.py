"""A stream on a WebSocket: events as messages, and the connection that carries them.

Messages are framed here, so that a token goes from the tail to the transport in one step and several go in one write:
see `Push`. What a socket is told is JSON; `app/api/PROTOCOL.md` describes it.
"""

import asyncio
from typing import Any

from app.events import Done, Event, Failed, Reset, Token
from app.scope import SocketWire
from app.streams.connection import Connection, Receive, Send
from app.streams.log import Cursor, format_id
from app.streams.sse import json_bytes


def frame(payload: bytes) -> bytes:
    """One unfragmented text message (RFC 6455, section 5.2)."""
    length = len(payload)
    if length < 126:
        return b"\x81%c%b" % (length, payload)
    if length < 65_536:
        return b"\x81\x7e%b%b" % (length.to_bytes(2), payload)
    return b"\x81\x7f%b%b" % (length.to_bytes(8), payload)


def message(kind: str, **fields: Any) -> bytes:
    """One framed message; fields that are None are left out."""
    return frame(json_bytes({"type": kind} | {name: value for name, value in fields.items() if value is not None}))


def error_message(failed: Failed, **fields: Any) -> bytes:
    """An error, of a stream or of what was asked for."""
    return message(
        "error",
        code=failed.code,
        message=failed.message,
        retryable=failed.retryable,
        retry_after_seconds=failed.retry_after_seconds,
        **fields,
    )


class SocketEncoder:
    """`Encoder`, of framed messages."""

    heartbeat = message("ping")

    def __init__(self, stream_id: str, model: str) -> None:
        self._stream_id = stream_id
        self._token = b'{"type":"token","id":"' + stream_id.encode() + b'.%d.%d","kind":"%s","token":%s,"index":%d}'
        self._unlogged = b'{"type":"token","kind":"%s","token":%s,"index":%d}'
        self._metadata = {"stream_id": stream_id, "model": model}
        self._resumable = True
        self._last_id: str | None = None

    def encode(self, cursor: Cursor | None, event: Event) -> bytes:
        head = b""
        if (cursor is not None) is not self._resumable:
            self._resumable = not self._resumable
            head = message("notice", resumable=self._resumable)
        if type(event) is Token:
            told = (event.kind.encode(), json_bytes(event.text), event.index)
            return head + frame(self._unlogged % told if cursor is None else self._token % (*cursor, *told))
        name = None if cursor is None else format_id(self._stream_id, cursor)
        if type(event) is Done:
            return head + self._end(name, event)
        if type(event) is Reset:
            return head + message("reset", id=name, reason=event.reason)
        assert type(event) is Failed
        return head + error_message(event, id=name, stream_id=self._stream_id)

    def farewell(self, reason: str, retry_ms: int) -> bytes:
        return message("reconnect", reason=reason, retry_ms=retry_ms)

    def _end(self, name: str | None, event: Done) -> bytes:
        return message(
            "end",
            id=name,
            finish_reason=event.finish_reason,
            usage=event.usage,
            total_tokens=event.usage.input_tokens + event.usage.output_tokens,
            duration_ms=event.duration_ms,
            cost=event.cost,
            metadata=self._metadata,
        )


class SocketConnection(Connection):
    """One client's WebSocket, seen from the task that serves it.

    Args:
        heartbeat_seconds, send_seconds: see `Connection`.
    """

    def __init__(
        self, receive: Receive, send: Send, heartbeat_seconds: float, send_seconds: float, wire: SocketWire
    ) -> None:
        self._socket = wire
        # At most one: what follows waits in the kernel, and the client.
        self._message: str | None = None
        self._taken = asyncio.Event()
        super().__init__(receive, send, heartbeat_seconds, send_seconds, wire)

    def take_message(self) -> str | None:
        """What the client said, if anything; a binary message is an empty one."""
        found, self._message = self._message, None
        if found is not None:
            self._taken.set()
        return found

    async def wait(self) -> None:
        if self._message is None:
            await super().wait()

    async def send_frames(self, frames: bytes) -> None:
        """Send framed messages.

        Raises:
            ReaderStuck: the reader's buffers stayed full for `send_seconds`.
        """
        await self._bounded(self._write(frames))
        self.heartbeat_due = False

    async def _write(self, frames: bytes) -> None:
        await self._socket.drained()
        self._socket.write(frames)

    async def _listen(self) -> None:
        while True:
            received = await self._receive()
            if received["type"] == "websocket.disconnect":
                self.gone = True
                self.wake()
                self._interrupt()
                return
            self._message = received.get("text") or ""
            self._taken.clear()
            self.wake()
            await self._taken.wait()
