"""One connection to an upstream: a request at a time, and its answer in pieces as they come.

Ours, because a token is one read: aiohttp takes about 15 µs more for each, in layers that a stream does not need.
Bytes are parsed by llhttp, which is what Node.js reads HTTP with (httptools).
"""

import asyncio
from collections.abc import Callable
from typing import Any

import httptools
from multidict import CIMultiDict

# An answer's reader may leave this much here before the connection is read no further; 32 KiB are about 160 tokens,
# more than one that keeps up ever leaves, and hundreds of slow streams stay small.
BUFFER_BYTES_MAX = 32 * 1024
HEAD_BYTES_MAX = 64 * 1024
# Of a request's body that is written at once; behind that other streams get their turn.
PIECE_BYTES = 256 * 1024


class ConnectionBroken(Exception):
    """The connection ended before the answer did."""


class NotHTTP(Exception):
    """The other side does not speak HTTP/1."""


class HttpConnection(asyncio.Protocol):
    """A client's side of HTTP/1.1. Use it for one `send`, `head`, then `read` until nothing more comes.

    `status` and `headers` are the answer's once `head` has returned; `complete` says that all of it was received.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: Any = None
        self._parser: Any = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[None] | None = None
        self._asked = False
        self._paused = False
        self._writable = True
        self._broken: Exception | None = None
        self.closed = False
        self._begin()

    def _begin(self) -> None:
        self._chunks: list[bytes] = []
        self._buffered_bytes = 0
        self._head_bytes = 0
        self._head_done = False
        self._ends_with_connection = False
        self._keeps_alive = False
        self._sent = False
        self._failure: Exception | None = None
        # Offered what comes while somebody waits in `read`; true if that is settled, and nobody has to be woken.
        self.taker: Callable[[bytes], bool] | None = None
        self.status = 0
        self.headers: CIMultiDict[str] = CIMultiDict()
        self.complete = False

    # What the answer's reader does.

    async def send(self, head: bytes, body: bytes) -> None:
        """Send a request; an answer that comes sooner ends the sending.

        Raises:
            ConnectionBroken: it did, before any answer.
        """
        if self._broken is not None:
            raise self._broken
        self._begin()
        self._asked = True
        self._transport.write(head + body[:PIECE_BYTES])
        for start in range(PIECE_BYTES, len(body), PIECE_BYTES):
            await asyncio.sleep(0)
            while not self._writable and not self._head_done:
                await self._wait()
            if self._head_done:
                return
            self._transport.write(body[start : start + PIECE_BYTES])
        self._sent = True

    async def head(self) -> None:
        """Wait for the answer's status and headers.

        Raises:
            ConnectionBroken, NotHTTP
        """
        while not self._head_done:
            await self._wait()

    async def read(self) -> bytes:
        """What has come since the last read, at least a byte; nothing once the answer is complete.

        Raises:
            ConnectionBroken: it did, and everything that came before was read.
            Exception: what `fail` was told, at once.
        """
        while not self._chunks and not self.complete:
            await self._wait()
        if self._failure is not None:
            raise self._failure
        chunks = self._chunks
        self._emptied()
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def fail(self, error: Exception) -> None:
        """Have whoever waits here, now or later, get `error`."""
        self._failure = error
        self._wake()

    @property
    def reusable(self) -> bool:
        """Whether another request may be sent: nothing of the last one is under way."""
        return self.complete and self._keeps_alive and self._sent and not self.closed and self._failure is None

    def rest(self) -> None:
        """Nobody reads here until the next request; whatever comes meanwhile ends the connection."""
        self._asked = False
        self.taker = None

    def abort(self) -> None:
        """Close the connection at once: in order, it would first send what is left, and over TLS wait for a goodbye."""
        self.closed = True
        self.taker = None
        self._parser = None  # which holds this object, and this it
        if self._transport is not None:
            self._transport.abort()

    def discard(self) -> None:
        """Close the connection, of which nobody wants to know any more what became."""
        self.abort()
        # An error that was raised has the frames in which it was, and they this object: a circle.
        self._failure = self._broken = None

    def _emptied(self) -> None:
        self._chunks, self._buffered_bytes = [], 0
        if self._paused:
            self._paused = False
            self._transport.resume_reading()

    async def _wait(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._broken is not None:
            raise self._broken
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # What the event loop calls.

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if not self._asked or self._parser is None:
            self.abort()  # nothing was asked: it would be taken for the next answer
            return
        in_head = not self._head_done
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._break(NotHTTP("switches protocols"))
        except httptools.HttpParserError as error:
            # What follows a complete answer is none of it.
            self._break(NotHTTP(str(error)))
        if in_head and not self._head_done:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX:
                self._break(NotHTTP(f"headers over {HEAD_BYTES_MAX} bytes"))
        if not self._is_taken():
            self._wake()

    def _is_taken(self) -> bool:
        chunks, taker, waiter = self._chunks, self.taker, self._waiter
        if taker is None or waiter is None or not chunks or self.complete or waiter.done():
            return False
        try:
            if not taker(chunks[0] if len(chunks) == 1 else b"".join(chunks)):
                return False
        except Exception as error:
            # It is the reader's: here it would only end in the event loop's log.
            self._failure = error
            return False
        self._emptied()
        return True

    def eof_received(self) -> None:
        self._end(None)

    def connection_lost(self, error: Exception | None) -> None:
        self._end(error)

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._wake()

    def _end(self, error: Exception | None) -> None:
        self.closed = True
        self._parser = None
        if self._head_done and self._ends_with_connection and error is None:
            self.complete = True
        if self._broken is None:
            self._broken = ConnectionBroken(str(error) if error else "closed by the upstream")
        self._wake()

    def _break(self, error: Exception) -> None:
        self._broken = error
        self.abort()

    # What the parser calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._head_done:  # behind the body they are trailers
            self.headers.add(name.decode("latin-1"), value.decode("latin-1"))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:  # an interim answer; the answer follows
            self.headers = CIMultiDict()
            return
        self.status = status
        self._head_done = True
        chunked = "chunked" in self.headers.get("Transfer-Encoding", "").lower()
        measured = chunked or "Content-Length" in self.headers or status in {204, 304}
        self._ends_with_connection = not measured

    def on_body(self, body: bytes) -> None:
        self._chunks.append(body)
        self._buffered_bytes += len(body)
        if self._buffered_bytes > BUFFER_BYTES_MAX and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        self.complete = self._head_done
        self._keeps_alive = bool(self._parser.should_keep_alive())
