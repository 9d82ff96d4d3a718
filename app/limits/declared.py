"""Limits on requests as routes declare them, by slowapi's decorators; and what they come to for one caller.

    @router.post("/generate")
    @declared.shared_limit(tier_rates, scope=GENERATE)
    async def generate(request: Request, …)

slowapi keeps the declarations and its key functions name the accounts. The check is not slowapi's: that one hits limits
one after the other, so that a refused request has used up some, and waits for its store on the event loop.
"""

from collections.abc import Callable
from typing import Any, Protocol

from slowapi import Limiter as Declarations
from slowapi.wrappers import Limit as Declaration
from starlette.requests import HTTPConnection

from app.limits.account import Limit

# The scope of every route that generates: whichever surface a caller uses, it counts as one.
GENERATE = "generate"


class Payer(Protocol):
    """Whose account a request is on."""

    @property
    def account(self) -> str: ...

    @property
    def rates(self) -> str: ...


def set_payer(request: HTTPConnection, payer: Payer) -> None:
    """Say whose account the request is on, before its limits are asked for."""
    request.scope["sluice.payer"] = payer


def payer_account(request: HTTPConnection) -> str:
    """slowapi's key function: the account, behind its tier's rates, since a limit's provider sees nothing else."""
    payer: Payer = request.scope["sluice.payer"]
    return f"{payer.rates}|{payer.account}"


def tier_rates(key: str) -> str:
    """slowapi's provider of a limit: what the caller's tier may."""
    return key.partition("|")[0]


declared = Declarations(key_func=payer_account, storage_uri="memory://", headers_enabled=False)
# Not by its argument, which a RATELIMIT_ENABLED of the environment would override: with it, the decorators would check.
declared.enabled = False

_known: dict[tuple[str, str], tuple[Limit, ...]] = {}


def account_of(request: HTTPConnection, endpoint: Callable[..., Any]) -> str:
    """Whose account the route's limits are on; empty where it declares none."""
    name = _name(endpoint)
    for declaration in declared._route_limits.get(name, ()):
        return str(declaration.key_func(request))
    for group in declared._dynamic_route_limits.get(name, ()):
        return str(group.key_function(request)).partition("|")[2]
    return ""


def limits_of(request: HTTPConnection, endpoint: Callable[..., Any]) -> tuple[Limit, ...]:
    """The route's limits for whoever asks."""
    name = _name(endpoint)
    payer: Payer | None = request.scope.get("sluice.payer")
    rates = "" if payer is None else payer.rates
    found = _known.get((name, rates))
    if found is None:
        # As many as there are routes and tiers.
        found = _known[name, rates] = _read(request, name, rates)
    return found


def _read(request: HTTPConnection, name: str, rates: str) -> tuple[Limit, ...]:
    declarations: list[Declaration] = list(declared._route_limits.get(name, ()))
    for group in declared._dynamic_route_limits.get(name, ()):
        if rates:  # `limits` refuses to read an empty text
            declarations += group.with_request(request)  # type: ignore[no-untyped-call]
    return tuple(_limit(declaration, name) for declaration in declarations)


def _limit(declaration: Declaration, name: str) -> Limit:
    rate = declaration.limit
    seconds = int(rate.get_expiry())
    return Limit(f"{declaration.scope or name}/{seconds}", seconds * 1000, int(rate.amount))


def _name(endpoint: Callable[..., Any]) -> str:
    return f"{endpoint.__module__}.{endpoint.__name__}"
