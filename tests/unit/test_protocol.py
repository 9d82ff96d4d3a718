"""Connections of a worker that begins to stop, which are Uvicorn's `shutdown` and ours to answer for."""

import asyncio
import logging
import socket
import time
from collections.abc import Iterator

import pytest
import uvicorn

from tests.support.uvicorn_server import serving

Exchange = tuple[int, uvicorn.Server]
HALF_SECONDS = 0.6
KEPT_SECONDS = 30


async def app(scope: dict[str, object], receive: object, send: object) -> None:
    """Two pieces, and time to stop between them."""
    await send({"type": "http.response.start", "status": 200, "headers": []})  # type: ignore[operator]
    await send({"type": "http.response.body", "body": b"one", "more_body": True})  # type: ignore[operator]
    await asyncio.sleep(HALF_SECONDS)
    await send({"type": "http.response.body", "body": b"two", "more_body": False})  # type: ignore[operator]


@pytest.fixture
def exchange() -> Iterator[Exchange]:
    with serving(app, log_config=None, timeout_keep_alive=KEPT_SECONDS) as running:
        yield running


def begun(port: int, request: bytes) -> socket.socket:
    """A connection on which the answer has begun."""
    client = socket.create_connection(("127.0.0.1", port), timeout=20)
    client.sendall(request)
    received = b""
    while b"one" not in received:
        received += client.recv(4096)
    return client


def rest(client: socket.socket) -> bytes:
    """What comes until the server closes."""
    received = b""
    while piece := client.recv(4096):
        received += piece
    return received


@pytest.mark.parametrize(
    "request_", [b"GET / HTTP/1.0\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"]
)
def test_who_asked_for_the_connections_end_gets_it_from_a_worker_that_stops(
    exchange: Exchange, request_: bytes
) -> None:
    """It waits for the end, which came with the keep-alive's, forty seconds later."""
    port, server = exchange
    with begun(port, request_) as client:
        server.should_exit = True
        since = time.monotonic()
        assert b"two" in rest(client)
        assert time.monotonic() - since < KEPT_SECONDS / 2


def test_a_socket_on_a_connection_that_was_left_is_closed_without_a_defect(
    exchange: Exchange, caplog: pytest.LogCaptureFixture
) -> None:
    port, server = exchange
    with caplog.at_level(logging.ERROR), begun(port, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n") as client:
        server.should_exit = True
        received = b""
        while not received.endswith(b"0\r\n\r\n"):
            received += client.recv(4096)
        client.sendall(
            b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert rest(client) == b""
    assert caplog.text == ""
