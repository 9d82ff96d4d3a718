"""A body is counted and not believed: too much, too slow or too deep is a clean error in the surface's shape."""

import asyncio
import json
import socket
import time
from collections.abc import Iterator

import pytest
from starlette.types import Message, Receive, Scope, Send

from app.middleware.body_limit import BodyLimitMiddleware
from tests.support.asgi import Peer
from tests.support.hostile import BOMBS
from tests.support.server import AppServer, HTTPAnswer

BYTES_MAX = 65_536
PATHS = ["/api/v1/generate", "/v1/chat/completions", "/v1/messages"]
EVERY_SURFACE = pytest.mark.parametrize("path", PATHS)


@pytest.fixture(scope="module")
def server() -> Iterator[AppServer]:
    with AppServer(SLUICE_BODY_BYTES_MAX=str(BYTES_MAX)) as running:
        yield running


def code(answer: HTTPAnswer, path: str) -> str:
    error = answer.json["error"]
    if path.startswith("/v1/messages"):
        assert answer.json["type"] == "error"
        return str(error["details"]["error_code"])
    assert (error.get("type") is not None) == path.startswith("/v1/")
    return str(error["code"])


def chunked(server: AppServer, path: str, pieces: int, piece: bytes = b"x" * 4096) -> HTTPAnswer:
    """Sent in pieces, without saying how many; read as soon as there is an answer."""
    with socket.create_connection(("127.0.0.1", server.port), 20) as connection:
        head = (
            f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        connection.sendall(head.encode())
        for _ in range(pieces):
            connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
        answer = b""
        while b"\r\n\r\n" not in answer or not answer.endswith(b"}"):
            answer += connection.recv(65_536)
    head_bytes, _, body = answer.partition(b"\r\n\r\n")
    lines = head_bytes.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
    return HTTPAnswer(int(lines[0].split()[1]), headers, body)


@EVERY_SURFACE
def test_a_body_that_says_it_is_too_large_is_not_read(server: AppServer, path: str) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000000000000\r\n\r\n"
    answer = server.raw(head.encode(), timeout_seconds=10)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer
    assert b"65536 bytes" in answer


@EVERY_SURFACE
def test_a_body_that_says_nothing_is_counted(server: AppServer, path: str) -> None:
    answer = chunked(server, path, BYTES_MAX // 4096 + 1)
    assert (answer.status, code(answer, path)) == (413, "limit_exceeded")
    assert answer.headers["connection"] == "close"


def test_a_body_of_just_the_limit_is_read(server: AppServer) -> None:
    empty = len(json.dumps({"prompt": "", "pad": ""}).encode())
    answer = server.post("/api/v1/generate", {"prompt": "", "pad": "x" * (BYTES_MAX - empty)})
    assert answer.status == 422, "refused for what it says"
    answer = server.post("/api/v1/generate", {"prompt": "", "pad": "x" * (BYTES_MAX - empty + 1)})
    assert answer.status == 413


def test_a_body_that_nobody_reads_is_bounded_too(server: AppServer) -> None:
    """A GET has none; one that sends it nevertheless cannot have a stream listen to it for ever."""
    head = b"GET /api/v1/stream?prompt=x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), 20) as connection:
        connection.sendall(head + b"1000\r\n" + b"x" * 4096 + b"\r\n")
        with pytest.raises(OSError):  # noqa: PT012, PT011 - reset or closed, at whichever of the two
            for _ in range(10_000):
                connection.sendall(b"1000\r\n" + b"x" * 4096 + b"\r\n")
            raise AssertionError("40 MB were taken")
    assert server.get("/health").json["checks"]["stream_log"] == "ok"


async def test_a_body_that_comes_too_slowly_is_given_up() -> None:
    told: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            while (await receive())["more_body"]:
                pass
        except Exception as error:
            told.append(error)

    peer = Peer(headers={"transfer-encoding": "chunked"})
    middleware = BodyLimitMiddleware(app, 1000, seconds_max=0.05)
    began = time.monotonic()

    async def receive() -> Message:
        await asyncio.sleep(0.02)
        return {"type": "http.request", "body": b"x", "more_body": True}

    await middleware(peer.scope, receive, peer.send)
    assert 0.04 < time.monotonic() - began < 5
    assert getattr(told[0], "status_code", 0) == 408


async def test_what_comes_after_the_body_has_no_bound() -> None:
    """A stream listens for its client's leaving all its life."""
    heard: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        heard.extend([(await receive())["type"], (await receive())["type"]])

    messages: list[Message] = [{"type": "http.request", "body": b"{}", "more_body": False}, {"type": "http.disconnect"}]

    async def receive() -> Message:
        await asyncio.sleep(0.1 if len(messages) == 1 else 0)
        return messages.pop(0)

    peer = Peer(headers={"content-length": "2"})
    await BodyLimitMiddleware(app, 1000, seconds_max=0.05)(peer.scope, receive, peer.send)
    assert heard == ["http.request", "http.disconnect"]


@EVERY_SURFACE
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_json_bomb_is_the_callers_error(server: AppServer, path: str, bomb: str) -> None:
    answer = server.post(path, BOMBS[bomb])
    assert answer.status in (400, 422), answer.body[:300]
    assert code(answer, path) == "invalid_request"
    assert len(answer.body) < 5_000
    assert b"Traceback" not in answer.body
    assert server.get("/livez").status == 200


def test_json_as_deep_as_tools_need_it_is_taken(server: AppServer) -> None:
    schema: dict[str, object] = {"type": "string"}
    for _ in range(30):
        schema = {"type": "object", "properties": {"a": schema}}
    body = {
        "model": "simulator",
        "messages": [{"role": "user", "content": "x"}],
        "max_tokens": 1,
        "tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}],
    }
    assert server.post("/v1/chat/completions", body).status == 200


# Heads


@pytest.mark.parametrize(
    "head",
    [
        b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * 400_000 + b"\r\n\r\n",
        b"GET /livez?" + b"x" * 400_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 10_000 + b"\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Unended: " + b"x" * 400_000,
    ],
    ids=["a header of 400 KB", "a URL of 400 KB", "10,000 headers", "a header without an end"],
)
def test_a_head_bomb_is_refused_and_the_connection_closed(server: AppServer, head: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 20) as connection:
        answer = b""
        try:
            for at in range(0, len(head), 16_384):
                connection.sendall(head[at : at + 16_384])
            while piece := connection.recv(65_536):
                answer += piece
        except ConnectionError:
            pass  # closed before it had read all
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
    assert server.get("/livez").status == 200
