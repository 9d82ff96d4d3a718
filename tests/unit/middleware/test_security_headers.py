"""No answer of ours is a page that runs something, is guessed to be one, or is kept by somebody on the way."""

import pytest

from app.middleware.security_headers import HEADERS, SecurityHeadersMiddleware
from tests.support.asgi import Peer
from tests.support.server import AppServer
from tests.unit.middleware.apps import Answering

POSTS = {
    "/api/v1/generate": {"prompt": "x", "max_tokens": 1},
    "/api/v1/chat": {"message": "x", "stream": True, "max_tokens": 1},
    "/v1/chat/completions": {"model": "simulator", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1},
    "/v1/messages": {},
}


async def asked(**own: str) -> Peer:
    peer = Peer()
    await SecurityHeadersMiddleware(Answering(headers=own))(peer.scope, peer.receive, peer.send)
    return peer


async def test_an_answer_gets_all_of_them_once() -> None:
    peer = await asked()
    names = [name for name, _ in peer.messages[0]["headers"]]
    assert len(names) == len(set(names))
    assert {name.decode(): value.decode() for name, value in HEADERS}.items() <= peer.headers.items()


async def test_what_an_answer_says_itself_stands() -> None:
    own = {"content-security-policy": "default-src 'self'", "cache-control": "no-cache"}
    peer = await asked(**own)
    assert own.items() <= peer.headers.items()
    assert peer.headers["x-content-type-options"] == "nosniff"
    assert len(peer.messages[0]["headers"]) == len({name for name, _ in peer.messages[0]["headers"]})


@pytest.mark.parametrize("path", ["/livez", "/health", "/", "/openapi.json", "/nothing", "/v1/models", *POSTS])
def test_every_kind_of_answer_has_them_and_no_banner(server: AppServer, path: str) -> None:
    answer = server.post(path, POSTS[path]) if path in POSTS else server.get(path)
    for name, value in HEADERS:
        if name != b"cache-control":
            assert answer.headers[name.decode()] == value.decode(), name
    assert "no-store" in answer.headers["cache-control"]
    assert not {"server", "x-powered-by", "via"} & answer.headers.keys()
    assert b"uvicorn" not in str(answer.headers).lower().encode()


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/health"])
def test_a_probe_may_ask_for_the_headers_alone(server: AppServer, path: str) -> None:
    head, whole = server.request("HEAD", path), server.get(path)
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-type"] == whole.headers["content-type"]


def test_the_pages_run_nothing_that_stands_in_them(server: AppServer) -> None:
    for path in ("/docs", "/redoc", "/playground"):
        policy = server.get(path).headers["content-security-policy"]
        assert "unsafe" not in policy
        assert "script-src 'self';" in policy
        assert "frame-ancestors 'none'" in policy
