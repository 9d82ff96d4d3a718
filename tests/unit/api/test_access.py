"""Which routes are open to everybody: those that say so here, and no other."""

from collections.abc import Iterator
from typing import Any

from fastapi.routing import APIRoute, APIWebSocketRoute

from app.api.access import Guarded, Ticketed
from app.limits.account import Limit
from app.limits.declared import GENERATE, limits_of
from app.main import create_app
from app.security.principal import Principal
from app.settings import Settings
from app.tiers import Tier

# Probes, pages for people with their files, and those who ask for a credential.
OPEN = {
    "/docs/swagger.js",
    "/docs/redoc.css",
    *("/", "/livez", "/readyz", "/health", "/ready"),
    *("/docs", "/redoc", "/openapi.json", "/playground"),
    *("/api/v1/auth/token", "/api/v1/auth/status"),
}
FILES = ("/docs/", "/playground/")
# Aliases and versions of one thing end alike.
ENDINGS_THAT_GENERATE = ("/generate", "/chat", "/stream", "/chat/completions", "/messages", "/responses")


def routes(of: Any) -> Iterator[Any]:
    for route in of.routes:
        inner = getattr(route, "original_router", None)
        if inner is not None:
            yield from routes(inner)
        else:
            yield route


APP = create_app(Settings())
ALL = list(routes(APP.router))


def test_every_route_that_is_not_for_everybody_asks_who_it_is() -> None:
    found = [route for route in ALL if isinstance(route, APIRoute)]
    assert len(found) > 20
    unguarded = {route.path for route in found if not isinstance(route, Guarded)}
    assert {path for path in unguarded if not path.startswith(FILES) and not path.endswith("/auth-status")} <= OPEN


def test_a_ticket_opens_only_what_a_page_can_ask_for() -> None:
    ticketed = [route for route in ALL if isinstance(route, Ticketed)]
    assert ticketed
    assert all(route.methods == {"GET"} for route in ticketed)


def test_every_route_that_generates_declares_the_same_limit() -> None:
    request: Any = type("R", (), {"scope": {"sluice.payer": Principal.of("key:a", "t", Tier(requests_per_minute=1))}})()
    for route in ALL:
        if isinstance(route, APIWebSocketRoute) or not isinstance(route, APIRoute):
            continue
        if route.path.endswith(ENDINGS_THAT_GENERATE) and not route.path.startswith("/playground"):
            assert limits_of(request, route.endpoint) == (Limit(f"{GENERATE}/60", 60_000, 1),), route.path
