"""Uvicorn's HTTP protocol with the two things that streams need of a transport: a small buffer, and a way to reset."""

from asyncio import Transport
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.scope import set_transport

# What a reader that is slow may leave in our memory; asyncio's default, stated because uvicorn sets none. The kernel's
# socket buffer comes on top of it.
WRITE_BUFFER_BYTES_MAX = 64 * 1024


class SluiceProtocol(HttpToolsProtocol):
    """One client connection."""

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES_MAX)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        scope: Any = self.scope
        set_transport(scope, self.transport)
