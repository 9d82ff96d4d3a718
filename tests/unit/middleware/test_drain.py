"""A machine that is about to stop takes nothing new, and lets readers come back."""

import pytest

from app.middleware.drain import DrainMiddleware
from tests.support.asgi import Peer
from tests.unit.middleware.apps import Answering, refusing


async def asked(path: str, method: str = "POST", draining: bool = True, header: str = "accept") -> int:
    app, peer = Answering(), Peer(path, headers={header: "1"})
    peer.scope["method"] = method
    await DrainMiddleware(app, lambda: draining, refusing)(peer.scope, peer.receive, peer.send)
    assert (app.asked == 0) == (peer.body == b"refused")
    return app.asked


@pytest.mark.parametrize("path", ["/api/v1/generate", "/v1/chat/completions", "/v1/messages", "/api/v1/tasks"])
async def test_what_would_begin_is_refused_only_while_it_drains(path: str) -> None:
    assert await asked(path) == 0
    assert await asked(path, draining=False) == 1


@pytest.mark.parametrize("header", ["last-event-id", "idempotency-key", "sluice-resume"])
async def test_what_may_come_back_for_a_stream_is_let_through(header: str) -> None:
    assert await asked("/api/v1/generate", header=header) == 1


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v1/streams/x"),
        ("DELETE", "/api/v1/streams/x"),
        ("GET", "/readyz"),
        ("POST", "/api/v1/auth/token"),
        ("POST", "/api/v1/tickets"),
        ("POST", "/v1/responses/x/cancel"),
    ],
)
async def test_what_readers_of_running_streams_need_is_let_through(method: str, path: str) -> None:
    assert await asked(path, method) == 1
