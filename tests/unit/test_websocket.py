"""What the server's WebSocket protocol does otherwise than Uvicorn's own."""

import time
from collections.abc import Iterator

import pytest
from starlette.types import Receive, Scope, Send
from websockets.sync.client import connect

from tests.support.raw_socket import PING, RawSocket, frame
from tests.support.uvicorn_server import serving

# Far longer than a client gets for its pong.
BLOCKED_SECONDS = 1.0
PONG_SECONDS = 0.2


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Holds the event loop at each message, and then echoes it."""
    if scope["type"] != "websocket":
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        time.sleep(BLOCKED_SECONDS)  # noqa: ASYNC251 - as a defect would
        await send({"type": "websocket.send", "text": message["text"]})


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    pings = {"ws_ping_interval": PONG_SECONDS, "ws_ping_timeout": PONG_SECONDS}
    with serving(app, log_level="error", ws_per_message_deflate=False, **pings) as (port, _):
        yield f"http://127.0.0.1:{port}"


def test_an_event_loop_that_was_held_takes_nobody_for_dead_whose_pong_lies_unread(url: str) -> None:
    with connect(url.replace("http", "ws"), proxy=None, ping_interval=None) as client:
        time.sleep(PONG_SECONDS)  # pings are on their way
        for text in ("one", "two"):
            client.send(text)
            assert client.recv(20) == text


def test_who_answers_no_ping_is_let_go(url: str) -> None:
    with RawSocket(url, "/") as client:
        assert client.receive()[0] == PING
        assert client.close_code() == 1011


def test_who_asks_and_does_not_listen_is_let_go(url: str) -> None:
    """Each ping is answered into a buffer, which nobody empties."""
    let_go = False
    with RawSocket(url, "/") as client:
        pings = frame(PING, b"x" * 125) * 500
        try:
            for _ in range(20_000):
                client.send(pings)
        except (BrokenPipeError, ConnectionResetError):
            let_go = True
    assert let_go
