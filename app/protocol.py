"""Uvicorn's HTTP protocol with what streams need below ASGI: a small buffer, a short way for tokens, and a reset."""

from asyncio import TimerHandle, Transport
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.scope import set_wire, unset_wire

# What a reader that is slow may leave in our memory; asyncio's default, stated because uvicorn sets none. The kernel's
# socket buffer comes on top of it.
WRITE_BUFFER_BYTES_MAX = 64 * 1024


# What stands before a body: NGINX takes 64 KiB, in lines of 16.
HEAD_BYTES_MAX = 64 * 1024
HEADERS_MAX = 200
# For a head to come, as NGINX bounds it too (`client_header_timeout`).
HEAD_SECONDS_MAX = 10.0


class SluiceProtocol(HttpToolsProtocol):
    """One client connection."""

    _is_last = False
    _is_left = False
    _head_bytes = 0
    _in_head = False
    _head_timer: TimerHandle | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES_MAX)
        # Uvicorn would wait for the first byte for ever.
        self._head_timer = self.loop.call_later(HEAD_SECONDS_MAX, self._give_up_head)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_head()
        super().connection_lost(exc)
        # Uvicorn leaves the timer of one that was reset, and with it all that the connection had, until it fires.
        self._unset_keepalive_if_required()
        # The last request refers to this object: without the circle it is all freed now, and not by the collector.
        if self.scope is not None:
            scope: Any = self.scope
            unset_wire(scope)

    def data_received(self, data: bytes) -> None:
        # Counted by what comes and not by header: the parser gathers a long one for as long as it goes on.
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX:
                self._end_head()
                self.send_400_response("The request's headers are too large.")
                return
        super().data_received(data)
        if self._in_head and not self._head_bytes:
            self._head_bytes = len(data)
            if self._head_timer is None:
                self._head_timer = self.loop.call_later(HEAD_SECONDS_MAX, self._give_up_head)

    def on_headers_complete(self) -> None:
        self._end_head()
        if len(self.headers) > HEADERS_MAX:
            raise ValueError(
                "too many headers"
            )  # answered by `data_received`, as every error of the parser's callbacks
        if self._is_left and self.resting and self.parser.get_method() == b"GET":
            self.transport.close()
            return
        before = self.cycle
        super().on_headers_complete()
        if self._is_last and self.cycle is not before:  # an upgrade has none
            self.cycle.keep_alive = False  # the answer says so

    def handle_websocket_upgrade(self) -> None:
        if self.transport.is_closing():
            return  # it was left, and what it asks for was not read
        super().handle_websocket_upgrade()
        # The connection is another protocol's from now on, and nobody tells this one when it is lost: what refers to
        # this object, from itself, would wait for the collector.
        self.parser = None  # type: ignore[assignment] # as Uvicorn does when a connection is lost
        scope: Any = self.scope
        unset_wire(scope)

    def _end_head(self) -> None:
        self._in_head, self._head_bytes = False, 0
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up_head(self) -> None:
        self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        scope: Any = self.scope
        set_wire(scope, self)

    def shutdown(self) -> None:
        """The worker begins to stop. Whoever keeps this connection is told with the next answer that it was the last;
        Uvicorn closes one that rests, and a request that is just on its way gets no answer.

        The same would become of a request that is sent just behind an answer that has begun by now, and so has not said
        that it is the last. That connection stays, for what must not be asked twice. A GET, most likely that of the
        reader who was asked to come back, gets no answer here: NGINX asks the next worker.
        """
        self._is_last = True
        if self.cycle is not None and not self.resting:
            # Whoever asked for the connection's end waits for it.
            self._is_left = bool(self.cycle.response_started and self.cycle.keep_alive)
            self.cycle.keep_alive = self._is_left

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
        if body:  # an empty chunk would end the body
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
