"""The last net: what nobody expected is a clean 500 before the first byte, and a visible cut after it."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.errors import internal_error
from app.middleware.errors import ErrorsMiddleware
from tests.support.asgi import Peer

ROOT = Path(__file__).parents[3]
START = {"type": "http.response.start", "status": 200, "headers": []}


async def called(app: ASGIApp, path: str = "/api/v1/generate") -> Peer:
    peer = Peer(path)
    peer.scope["sluice.request_id"] = "r1"
    await ErrorsMiddleware(app, answer=internal_error)(peer.scope, peer.receive, peer.send)
    return peer


async def failing(_scope: Scope, _receive: Receive, _send: Send) -> None:
    raise ValueError("sk-canary at 10.1.2.3")


async def test_a_defect_before_the_first_byte_is_a_clean_500() -> None:
    peer = await called(failing)
    assert (peer.status, peer.complete) == (500, True)
    assert peer.json == {
        "error": {"code": "internal_error", "message": "The server failed.", "retryable": False, "request_id": "r1"}
    }
    assert peer.note["outcome"] == "internal_error"


async def test_a_defect_has_the_shape_of_its_surface() -> None:
    peer = await called(failing, "/v1/chat/completions")
    assert (peer.json["error"]["type"], peer.json["error"]["request_id"]) == ("server_error", "r1")


async def test_a_defect_behind_the_first_byte_is_a_visible_cut() -> None:
    """The server closes without the last chunk; an error document in the middle of a body would look complete."""
    sent = []

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(START)
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        sent.append(True)
        raise ValueError("sk-canary")

    peer = Peer()
    with pytest.raises(ValueError, match="sk-canary"):
        await ErrorsMiddleware(app, answer=internal_error)(peer.scope, peer.receive, peer.send)
    assert sent == [True]
    assert (peer.body, peer.complete) == (b"half", False)


async def test_a_cancellation_is_no_defect() -> None:
    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise asyncio.CancelledError

    peer = Peer()
    with pytest.raises(asyncio.CancelledError):
        await ErrorsMiddleware(app, answer=internal_error)(peer.scope, peer.receive, peer.send)
    assert peer.messages == []


@pytest.mark.parametrize("kind", ["lifespan", "websocket"])
async def test_what_is_not_http_passes_by(kind: str) -> None:
    peer = Peer()
    with pytest.raises(ValueError, match="canary"):
        await ErrorsMiddleware(failing, answer=internal_error)({"type": kind}, peer.receive, peer.send)
    assert peer.messages == []


async def test_an_answer_that_succeeds_passes_unchanged() -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(START)
        await send({"type": "http.response.body", "body": b"whole"})

    peer = await called(app)
    assert (peer.status, peer.body, peer.complete) == (200, b"whole", True)


def test_the_traceback_is_in_the_log_under_the_requests_name() -> None:
    code = """
import asyncio
from app.api.errors import internal_error
from app.middleware.access_log import AccessLogMiddleware
from app.middleware.errors import ErrorsMiddleware
from app.middleware.request_id import RequestIdMiddleware
from app.observability.logging import configure_logging
from tests.support.asgi import Peer
configure_logging("info")
async def failing(scope, receive, send):
    raise ValueError("sk-canary")
async def main():
    app = RequestIdMiddleware(AccessLogMiddleware(ErrorsMiddleware(failing, answer=internal_error)))
    peer = Peer(headers={"X-Request-ID": "r7"})
    await app(peer.scope, peer.receive, peer.send)
    assert peer.headers["x-request-id"] == "r7"
asyncio.run(main())
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=30)
    assert (ran.returncode, ran.stderr) == (0, "")
    failed, request = map(json.loads, ran.stdout.splitlines())
    assert (failed["event"], failed["level"], failed["request_id"]) == ("request failed", "error", "r7")
    assert failed["exception"].endswith("ValueError: sk-canary")
    assert (request["event"], request["status"], request["outcome"]) == ("request", 500, "internal_error")
    assert request["request_id"] == "r7"
