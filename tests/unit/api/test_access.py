"""Which routes are open to everybody: those that say so here, and no other."""

from typing import Any

from fastapi.routing import APIRoute, iter_route_contexts

from app.api.access import Guarded, Ticketed
from app.limits.account import Limit
from app.limits.declared import GENERATE, limits_of
from app.security.principal import Principal
from app.tiers import Tier
from tests.support.application import application

# Probes, pages for people with their files, and those who ask for a credential.
OPEN = {
    *("/", "/livez", "/readyz", "/health", "/ready"),
    *("/docs", "/redoc", "/playground", "/playground/{name:path}"),
    *(f"/api/{version}/auth/{name}" for version in ("v1", "v2") for name in ("token", "status")),
    *("/auth-status", "/docs/swagger.js", "/docs/redoc.css"),
}
# Aliases and versions of one thing end alike.
ENDINGS_THAT_GENERATE = ("/generate", "/chat", "/stream", "/chat/completions", "/messages", "/responses")


ALL = [(str(context.path), context.original_route) for context in iter_route_contexts(application().routes)]


def test_every_route_that_is_not_for_everybody_asks_who_it_is() -> None:
    found = [(path, route) for path, route in ALL if isinstance(route, APIRoute)]
    assert len(found) > 20
    assert {path for path, route in found if not isinstance(route, Guarded)} == OPEN


def test_a_ticket_opens_only_what_a_page_can_ask_for() -> None:
    ticketed = [route for _, route in ALL if isinstance(route, Ticketed)]
    assert ticketed
    assert all(route.methods == {"GET"} for route in ticketed)


def test_every_route_that_generates_declares_the_same_limit() -> None:
    request: Any = type("R", (), {"scope": {"sluice.payer": Principal.of("key:a", "t", Tier(requests_per_minute=1))}})()
    for path, route in ALL:
        if isinstance(route, APIRoute) and path.endswith(ENDINGS_THAT_GENERATE):
            assert limits_of(request, route.endpoint) == (Limit(f"{GENERATE}/60", 60_000, 1),), path
