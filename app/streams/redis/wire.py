"""One connection to Redis, one command at a time, at half the price.

redis-py connects, with its TLS, credentials and socket options; then the transport is ours. Its own way from a command
to the reply (streams, a context for each timeout, parsing in Python) costs 130 µs of CPU where this costs 60, and the
log pays it at every commit. Replies are parsed by hiredis either way.
"""

import asyncio
from typing import Any

from hiredis import Reader, ReplyError, pack_command
from redis.asyncio.connection import Connection

Argument = str | bytes | int
_INCOMPLETE = object()
HELD_UP_SECONDS = 0.02


class Wire(asyncio.Protocol):
    """`connect` comes first; after any exception from `ask` it is of no use, and `close` the last thing to do.

    Args:
        connection: not connected yet.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._reader = Reader(notEnoughData=_INCOMPLETE)
        self._loop = asyncio.get_running_loop()
        self._reply: asyncio.Future[Any] | None = None
        self._transport: asyncio.WriteTransport | None = None
        self.lost = False
        self.server = b""
        """The first 16 digits of the id of the process at the other end; empty if it does not say."""

    async def connect(self, seconds: float) -> None:
        """Connect, and learn which process it is.

        Raises:
            RedisError, OSError, TimeoutError: no connection.
        """
        async with asyncio.timeout(seconds):
            await self._connection.connect()  # type: ignore[no-untyped-call]
        writer = self._connection._writer
        assert writer is not None
        self._transport = writer.transport
        self._transport.set_protocol(self)
        info = await self.ask(seconds, b"INFO", b"server")
        if isinstance(info, bytes):
            ids = (line[7:23] for line in info.splitlines() if line.startswith(b"run_id:"))
            self.server = next(ids, b"")

    async def ask(self, seconds: float, *command: Argument) -> Any:
        """Send a command and return its reply, which may be a `ReplyError`.

        Raises:
            ConnectionError: the connection is gone.
            TimeoutError: no reply within `seconds`.
        """
        if self.lost or self._transport is None or self._reply is not None:
            raise ConnectionError("Redis closed the connection")
        reply = self._reply = self._loop.create_future()
        timer = self._loop.call_later(seconds, self._expire, reply, seconds)
        try:
            self._transport.write(pack_command(command))  # type: ignore[arg-type] # the stub wants a tuple of one
            return await reply
        finally:
            timer.cancel()

    async def close(self) -> None:
        """Cut it off; what Redis has not taken yet is dropped."""
        self.abort()
        await self._connection.disconnect(nowait=True)

    def abort(self) -> None:
        """As `close`, for whoever cannot wait; whoever awaits a reply gets a `ConnectionError`."""
        self.lost = True
        if self._transport is not None:
            self._transport.abort()  # close() would wait for Redis to take what is left
        self._fail(ConnectionError("the connection was given up"))

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        reply = self._reader.gets()
        if reply is _INCOMPLETE:
            return
        waiting, self._reply = self._reply, None
        if waiting is None:
            self.abort()  # nobody asked: this is no connection to go on with
        elif not waiting.done():
            waiting.set_result(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._fail(ConnectionError(str(exc or "Redis closed the connection")))

    def _expire(self, reply: asyncio.Future[Any], seconds: float) -> None:
        # A loop that was held up runs its timers before it looks at its sockets, where the reply may lie already.
        self._loop.call_later(HELD_UP_SECONDS, _fail, reply, TimeoutError(f"no answer within {seconds:g} s"))

    def _fail(self, error: Exception) -> None:
        if self._reply is not None:
            _fail(self._reply, error)


def _fail(reply: asyncio.Future[Any], error: Exception) -> None:
    if not reply.done():
        reply.set_exception(error)


__all__ = ["Argument", "ReplyError", "Wire"]
