"""Every request has a name that is harmless in logs, headers and JSON, and the same in all three."""

import asyncio
import json
import re

import pytest
import structlog
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.types import Message, Receive, Scope, Send

from app.middleware.request_id import RequestIdMiddleware
from app.scope import request_id
from tests.support.asgi import Peer
from tests.support.hostile import FORGED_NAMES
from tests.support.server import AppServer, exchange

HARMLESS = re.compile(r"[A-Za-z0-9._-]{1,64}")


async def answer(scope: Scope, _receive: Receive, send: Send) -> None:
    """An app that says what it knows of the request."""
    told = {"scope": request_id(scope), "context": structlog.contextvars.get_contextvars()}
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-other", b"1")]})
    await send({"type": "http.response.body", "body": json.dumps(told).encode()})


def named(*sent: bytes) -> str:
    """The name of a request with these X-Request-ID headers; it is the same everywhere."""
    peer_headers = [(b"x-request-id", value) for value in sent]

    async def run() -> Peer:
        peer = Peer()
        peer.scope["headers"] = [(b"host", b"h"), *peer_headers]
        await RequestIdMiddleware(answer)(peer.scope, peer.receive, peer.send)
        return peer

    peer = asyncio.run(run())
    identity = peer.headers["x-request-id"]
    assert peer.json == {"scope": identity, "context": {"request_id": identity}}
    assert peer.headers["x-other"] == "1"
    return identity


@pytest.mark.parametrize("sent", ["a", "A.b-C_9", "x" * 64, "5e22fd53-7639-49ee-9fe6-2e727adb82f8"])
def test_a_harmless_name_is_kept(sent: str) -> None:
    assert named(sent.encode()) == sent


@pytest.mark.parametrize("sent", FORGED_NAMES, ids=lambda sent: repr(sent[:20]))
def test_any_other_name_is_replaced(sent: bytes) -> None:
    identity = named(sent)
    assert re.fullmatch(r"[0-9a-f]{32}", identity)


@given(st.binary(max_size=80))
@example(b"a\n")
def test_no_name_can_be_anything_but_harmless(sent: bytes) -> None:
    identity = named(sent)
    assert HARMLESS.fullmatch(identity)
    if HARMLESS.fullmatch(sent.decode("latin-1")):
        assert identity == sent.decode()
    else:
        assert re.fullmatch(r"[0-9a-f]{32}", identity)


def test_without_a_name_each_request_gets_its_own() -> None:
    assert len({named() for _ in range(20)}) == 20


def test_the_first_of_two_names_counts() -> None:
    assert named(b"first", b"second") == "first"


def test_a_websocket_is_named_and_a_lifespan_is_not() -> None:
    seen: list[str] = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        seen.append(request_id(scope))

    async def run(scope: Scope) -> None:
        peer = Peer()
        await RequestIdMiddleware(app)(scope, peer.receive, peer.send)

    asyncio.run(run({"type": "websocket", "path": "/", "headers": [(b"x-request-id", b"w1")]}))
    asyncio.run(run({"type": "lifespan"}))
    assert seen == ["w1", ""]


def test_what_an_earlier_request_bound_is_gone() -> None:
    async def run() -> Peer:
        structlog.contextvars.bind_contextvars(tenant="somebody", request_id="before")
        peer = Peer()
        await RequestIdMiddleware(answer)(peer.scope, peer.receive, peer.send)
        return peer

    assert asyncio.run(run()).json["context"].keys() == {"request_id"}


def test_messages_that_are_not_the_start_pass_unchanged() -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 204})
        await send(last)

    last: Message = {"type": "http.response.body", "body": b"", "more_body": False}

    async def run() -> Peer:
        peer = Peer()
        await RequestIdMiddleware(app)(peer.scope, peer.receive, peer.send)
        return peer

    peer = asyncio.run(run())
    assert peer.messages[1] == {"type": "http.response.body", "body": b"", "more_body": False}
    assert list(peer.headers) == ["x-request-id"]


# Through a real server


def test_the_name_is_in_the_answer_the_error_and_the_log(server: AppServer) -> None:
    answered = server.post("/api/v1/generate", {}, {"X-Request-ID": "mine-1"})
    assert answered.headers["x-request-id"] == "mine-1"
    assert answered.json["error"]["request_id"] == "mine-1"
    assert server.wait_line(request_id="mine-1")["event"] == "request"


@pytest.mark.parametrize("sent", [b"a=1 tenant=x", b"x" * 8192, b"\xe9t\xe9", b'a","level":"error'])
def test_a_bad_name_reaches_neither_answer_nor_log(server: AppServer, sent: bytes) -> None:
    answered = server.raw(b"GET /health HTTP/1.1\r\nHost: h\r\nConnection: close\r\nX-Request-ID: %b\r\n\r\n" % sent)
    head = answered.partition(b"\r\n\r\n")[0]
    found = re.search(rb"x-request-id: ([0-9a-f]{32})\r\n", head + b"\r\n")
    assert found
    assert sent not in answered
    server.wait_line(request_id=found[1].decode())
    assert sent.decode("latin-1") not in server.output()


def test_requests_of_a_kept_alive_connection_do_not_share_their_names(server: AppServer) -> None:
    """The server runs them one after the other in what may be one context."""
    connection = server.connect()
    first = exchange(connection, "GET", "/v1/models", None, {"X-Request-ID": "kept-1"})
    second = exchange(connection, "GET", "/v1/models/none")
    third = exchange(connection, "GET", "/v1/models", None, {"X-Request-ID": "kept-3"})
    connection.close()
    minted = second.headers["x-request-id"]
    assert (first.headers["x-request-id"], third.headers["x-request-id"]) == ("kept-1", "kept-3")
    assert re.fullmatch(r"[0-9a-f]{32}", minted)
    assert [server.wait_line(request_id=name)["status"] for name in ("kept-1", minted, "kept-3")] == [200, 404, 200]
    assert [len(server.lines(request_id=name)) for name in ("kept-1", minted, "kept-3")] == [1, 1, 1]


def test_streams_that_were_left_leave_no_name_behind(server: AppServer) -> None:
    for number in range(3):
        connection = server.connect()
        body = json.dumps({"prompt": "a", "stream": True, "on_disconnect": "cancel"}).encode()
        headers = {"Content-Type": "application/json", "X-Request-ID": f"left-{number}"}
        connection.request("POST", "/api/v1/generate", body, headers)
        connection.getresponse().read(20)
        connection.close()
        assert server.wait_line(request_id=f"left-{number}")["outcome"] == "client_cancelled"
    minted = server.get("/v1/models").headers["x-request-id"]
    line = server.wait_line(request_id=minted)
    assert "stream_id" not in line
    assert "outcome" not in line
