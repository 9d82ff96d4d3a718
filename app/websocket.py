"""Uvicorn's WebSocket protocol with what streams need below ASGI: a short way for tokens, and an end that is said.

What the stock one does otherwise, and why that harms:
- it closes every socket at the moment when its worker begins to stop, in the middle of what it says;
- it logs addresses with their queries, where tickets are;
- it takes a peer for dead whose pong arrived while the event loop was held, and lay unread;
- it answers pings without looking whether anybody takes the answers;
- it says nothing to a handshake that cannot be read, as one with a body, and waits for more for ever.
"""

import asyncio
import logging
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request
from websockets.protocol import State

from app.protocol import WRITE_BUFFER_BYTES_MAX
from app.scope import set_wire, unset_wire

NO_HANDSHAKE = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
# What is in a socket's buffer already is read in the next turn of the loop.
LATE_SECONDS = 1.0
_log = logging.getLogger("uvicorn.error.websocket")
_log.setLevel(logging.WARNING)


class SocketBelow:
    """See `SocketWire`."""

    def __init__(self, protocol: "SluiceWebSocket") -> None:
        self._protocol = protocol

    @property
    def writable(self) -> bool:
        return self._protocol.writable.is_set() and self._protocol.is_open

    def write(self, body: bytes) -> None:
        if self._protocol.is_open:
            self._protocol.transport.write(body)

    async def drained(self) -> None:
        await self._protocol.writable.wait()

    def end(self, body: bytes, linger_seconds: float) -> None:
        """Behind `body`, a close frame: try again later."""
        protocol = self._protocol
        if not protocol.is_open:
            self.abort()
            return
        protocol.transport.write(body)
        protocol.conn.send_close(1013)
        protocol.transport.write(b"".join(protocol.conn.data_to_send()))
        protocol.close_sent = True
        protocol.transport.close()
        protocol.loop.call_later(linger_seconds, protocol.transport.abort)

    def abort(self) -> None:
        self._protocol.transport.abort()


class SluiceWebSocket(WebSocketsSansIOProtocol):
    """One client's socket."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.logger = _log
        self.conn.logger = _log
        self.conn.debug = False
        self._late = False

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent."""
        return self.handshake_complete and not (self.close_sent or self.disconnected or self.transport.is_closing())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES_MAX)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        # Two circles that would wait for the collector: the parser is a generator whose frame has `conn`, and an error
        # of its keeps that frame.
        self.conn.parser.close()
        self.conn.parser_exc = self.conn.handshake_exc = None

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            self.transport.write(NO_HANDSHAKE)
            self.transport.close()

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if self.response.status_code == 101:
            scope: Any = self.scope
            set_wire(scope, SocketBelow(self))

    async def run_asgi(self) -> None:
        try:
            await super().run_asgi()
        finally:
            # The scope has the wire, and that this object. Not as soon as the connection is lost: the application may
            # still be about to look for it.
            scope: Any = self.scope
            unset_wire(scope)

    def shutdown(self) -> None:
        """The worker begins to stop: its drain has the app end each socket in its own time, behind a word of why."""

    async def send(self, message: Any) -> None:
        await super().send(message)
        if self.initial_response is not None and self.close_sent:
            self.handshake_complete = True  # refused, which the stock protocol logs as a defect of the app

    def send_receive_event_to_app(self) -> None:
        if self.curr_msg_data_type == "text":
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:
                # The client's fault, of which the stock protocol would log a traceback.
                self.frames = []
                if self.conn.state is State.OPEN:  # else a close came with it, and is answered
                    self.conn.send_close(1007)
                self.handle_parser_exception()
                return
        super().send_receive_event_to_app()

    def handle_ping(self) -> None:
        if self.transport.get_write_buffer_size() > WRITE_BUFFER_BYTES_MAX:
            self.transport.abort()  # it asks, and does not listen
            return
        super().handle_ping()

    def handle_pong(self, event: Any) -> None:
        self._late = False
        super().handle_pong(event)

    def keepalive_timeout(self) -> None:
        if self._late:
            super().keepalive_timeout()
            return
        self._late = True
        self.pong_timer = self.loop.call_later(LATE_SECONDS, self.keepalive_timeout)
