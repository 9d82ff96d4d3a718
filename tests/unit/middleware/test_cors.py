"""Scripts of the sites that an operator named may ask and see what they need; those of all others see nothing."""

import pytest

from app.middleware.cors import EXPOSED, SitesMiddleware
from tests.support.asgi import Peer
from tests.unit.middleware.apps import Answering

SITE = "https://app.example"
OTHERS = ["https://evil.example", "https://app.example.evil.example", "http://app.example", "https://app.example:8443",
          "null", "https://APP.example", "https://app.example/"]  # fmt: skip


async def asked(
    origin: str, method: str = "GET", credentials: bool = False, more: dict[str, str] | None = None
) -> tuple[Answering, Peer]:
    app, peer = Answering(), Peer(headers={"origin": origin, **(more or {})})
    peer.scope["method"] = method
    await SitesMiddleware(app, (SITE,), credentials)(peer.scope, peer.receive, peer.send)
    return app, peer


async def preflight(origin: str, asks: str = "authorization, x-stainless-os, last-event-id") -> tuple[Answering, Peer]:
    more = {"access-control-request-method": "POST", "access-control-request-headers": asks}
    return await asked(origin, "OPTIONS", more=more)


async def test_a_named_site_may_ask_with_the_headers_that_sdks_send() -> None:
    app, peer = await preflight(SITE)
    assert (app.asked, peer.status) == (0, 200)
    assert peer.headers["access-control-allow-origin"] == SITE
    assert peer.headers["access-control-allow-headers"] == "authorization, x-stainless-os, last-event-id"
    assert "access-control-allow-credentials" not in peer.headers


async def test_its_scripts_see_what_a_client_needs() -> None:
    app, peer = await asked(SITE)
    assert app.asked == 1
    assert peer.headers["access-control-allow-origin"] == SITE
    seen = {name.strip() for name in peer.headers["access-control-expose-headers"].split(",")}
    assert {"X-Stream-Id", "X-Request-ID", "Retry-After", "RateLimit", "RateLimit-Policy"} <= seen == set(EXPOSED)
    assert "Origin" in peer.headers["vary"], "a cache must not hand one site's answer to another"


@pytest.mark.parametrize("origin", OTHERS)
async def test_no_other_site_is_let_in(origin: str) -> None:
    app, peer = await preflight(origin)
    assert (app.asked, peer.status) == (0, 400)
    assert "access-control-allow-origin" not in peer.headers
    _, peer = await asked(origin)
    assert "access-control-allow-origin" not in peer.headers
    assert "Origin" in peer.headers["vary"]


async def test_credentials_are_allowed_only_where_they_are_and_only_to_that_site() -> None:
    _, peer = await asked(SITE, credentials=True)
    assert peer.headers["access-control-allow-credentials"] == "true"
    assert peer.headers["access-control-allow-origin"] == SITE
    _, peer = await asked("https://evil.example", credentials=True)
    assert "access-control-allow-origin" not in peer.headers
