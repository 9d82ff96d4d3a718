"""Connections to upstreams: kept for the next request, bounded in number, opened to whichever address answers first."""

import asyncio
import socket
import ssl
from functools import cache

import aiohappyeyeballs

from app.providers.http.connection import HttpConnection
from app.providers.http.names import Names
from app.providers.http.origin import Origin

# Uvicorn, under most OpenAI-compatible servers, closes idle connections after 5 s. Closing ours first means that no
# POST meets a connection that is being closed: it could not be repeated, for a generation may have begun.
KEEP_ALIVE_SECONDS = 4
# RFC 8305's "Connection Attempt Delay" before the next address is tried beside the first.
ATTEMPT_DELAY_SECONDS = 0.25


class Pool:
    """Belongs to the event loop in which it is made.

    Args:
        connections_max: in use at a time; whoever asks for one more waits.
    """

    def __init__(self, connections_max: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._free = asyncio.Semaphore(connections_max)
        self._names = Names()
        self._idle: dict[Origin, list[HttpConnection]] = {}
        self._expiries: dict[HttpConnection, asyncio.TimerHandle] = {}
        self._used: set[HttpConnection] = set()

    async def take_kept(self, origin: Origin) -> HttpConnection | None:
        """As `take`, where a connection is kept and nobody has to wait for it; else None."""
        if self._free.locked() or (connection := self._kept(origin)) is None:
            return None
        await self._free.acquire()  # at once, since it is not locked
        self._used.add(connection)
        return connection

    async def take(self, origin: Origin) -> HttpConnection:
        """A connection for one request; to be given back.

        Raises:
            OSError: there is none to be had; `ssl.SSLError` and the like are of this kind.
        """
        await self._free.acquire()
        try:
            connection = self._kept(origin) or await self._connect(origin)
        except BaseException:
            self._free.release()
            raise
        self._used.add(connection)
        return connection

    def give_back(self, origin: Origin, connection: HttpConnection) -> None:
        """The request is over, and the connection closed unless it can be used again."""
        self._used.discard(connection)
        self._free.release()
        if not connection.reusable:
            connection.discard()
            return
        connection.rest()
        self._idle.setdefault(origin, []).append(connection)
        self._expiries[connection] = self._loop.call_later(KEEP_ALIVE_SECONDS, self._expire, origin, connection)

    async def aclose(self) -> None:
        """Close every connection."""
        for timer in self._expiries.values():
            timer.cancel()
        for connection in [*self._expiries, *self._used]:
            connection.abort()
        self._expiries.clear()
        self._idle.clear()
        await self._names.aclose()

    def _kept(self, origin: Origin) -> HttpConnection | None:
        """The one that was used last: those that are too many then grow old."""
        idle = self._idle.get(origin, [])
        while idle:
            connection = idle.pop()
            self._expiries.pop(connection).cancel()
            if not connection.closed:
                return connection
        return None

    def _expire(self, origin: Origin, connection: HttpConnection) -> None:
        self._idle[origin].remove(connection)
        del self._expiries[connection]
        connection.abort()

    async def _connect(self, origin: Origin) -> HttpConnection:
        addresses = await self._names.find(origin.host, origin.port)
        found = await aiohappyeyeballs.start_connection(
            addresses, happy_eyeballs_delay=ATTEMPT_DELAY_SECONDS, interleave=1, loop=self._loop
        )
        connection = HttpConnection()
        try:
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            tls = _tls() if origin.scheme == "https" else None
            await self._loop.create_connection(
                lambda: connection, sock=found, ssl=tls, server_hostname=origin.host if tls else None
            )
        except BaseException:
            # Also when the wait for TLS was cancelled.
            connection.abort()
            found.close()
            raise
        return connection


@cache
def _tls() -> ssl.SSLContext:
    """Made once, since reading the system's certificates takes tens of milliseconds."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
