"""Whoever asks for another name than ours gets nothing, on HTTP and WebSocket; probes ask by address."""

import pytest

from app.middleware.hosts import HostsMiddleware
from tests.support.asgi import Peer
from tests.unit.middleware.apps import Answering, refusing

HOSTS = ("api.example.com", "*.tenants.example", "[::1]", "127.0.0.1", ".both.example")


async def asked(host: str | None, path: str = "/api/v1/generate", kind: str = "http") -> tuple[Answering, Peer]:
    app, peer = Answering(), Peer(path, headers={} if host is None else {"host": host})
    peer.scope["type"] = kind
    await HostsMiddleware(app, HOSTS, refusing)(peer.scope, peer.receive, peer.send)
    return app, peer


@pytest.mark.parametrize(
    "host",
    ["api.example.com", "API.Example.COM", "api.example.com:8443", "a.tenants.example", "a.b.tenants.example:1",
     "[::1]", "[::1]:8080", "127.0.0.1:8000", "both.example", "a.both.example"],
)  # fmt: skip
async def test_a_name_of_ours_is_served(host: str) -> None:
    app, _ = await asked(host)
    assert app.asked == 1


@pytest.mark.parametrize(
    "host",
    [None, "", "example.com", "evil.example", "api.example.com.evil.example", "xapi.example.com", "tenants.example",
     ".tenants.example.evil", "evil-tenants.example", "api.example.com@evil.example", "api.example.com:80:80", "[::2]"],
)  # fmt: skip
async def test_any_other_is_refused(host: str | None) -> None:
    app, peer = await asked(host)
    assert (app.asked, peer.body) == (0, b"refused")
    app, peer = await asked(host, kind="websocket")
    assert (app.asked, [message["type"] for message in peer.messages]) == (0, ["websocket.close"])


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
async def test_a_probe_may_ask_by_any_name(path: str) -> None:
    app, _ = await asked("10.0.0.7:8080", path)
    assert app.asked == 1


async def test_it_is_not_in_the_way_of_the_lifespan() -> None:
    app = Answering()

    async def lifespan(scope: object, receive: object, send: object) -> None:
        app.asked += 1

    await HostsMiddleware(lifespan, HOSTS, refusing)({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
    assert app.asked == 1
