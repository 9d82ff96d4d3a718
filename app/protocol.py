"""Uvicorn's HTTP protocol with what streams need below ASGI: a small buffer, a short way for tokens, and a reset."""

from asyncio import Transport
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.scope import set_wire

# What a reader that is slow may leave in our memory; asyncio's default, stated because uvicorn sets none. The kernel's
# socket buffer comes on top of it.
WRITE_BUFFER_BYTES_MAX = 64 * 1024


# Among a request's headers, it makes Uvicorn answer with the same.
CLOSE = (b"connection", b"close")


class SluiceProtocol(HttpToolsProtocol):
    """One client connection."""

    _is_last = False

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES_MAX)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        # Uvicorn leaves the timer of one that was reset, and with it all that the connection had, until it fires.
        self._unset_keepalive_if_required()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        scope: Any = self.scope
        set_wire(scope, self)
        if self._is_last:
            self.headers.append(CLOSE)

    def shutdown(self) -> None:
        """The worker begins to stop. Whoever keeps this connection is told with the next answer that it was the last;
        Uvicorn closes one that rests, and a request that is just on its way gets no answer."""
        self._is_last = True
        if self.cycle is not None and not self.resting:
            self.headers.append(CLOSE)
            self.cycle.keep_alive = False

    @property
    def resting(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def writable(self) -> bool:
        """See `Wire`."""
        cycle = self.cycle
        if self.flow.write_paused or cycle is None or cycle.disconnected:
            return False
        return bool(cycle.chunked_encoding) and not cycle.response_complete

    def write(self, body: bytes) -> None:
        """See `Wire`. Does what the cycle's `send` does with a piece of a chunked body, without the layers above."""
        self.transport.write(b"%x\r\n%b\r\n" % (len(body), body))

    def end(self, body: bytes, linger_seconds: float) -> None:
        """See `Wire`. The cycle's `send` would first wait for the reader."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete or not cycle.chunked_encoding:
            self.abort()
            return
        self.transport.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        cycle.response_complete = True
        cycle.message_event.set()
        self.transport.close()
        self.loop.call_later(linger_seconds, self.transport.abort)

    def abort(self) -> None:
        """See `Wire`."""
        self.transport.abort()
