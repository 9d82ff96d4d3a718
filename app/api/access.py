"""Who asks, found out before a request's body is read; and what every route may know of it."""

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute

from app.limits.declared import account_of, limits_of, set_payer
from app.limits.quotas import Quotas
from app.security.authenticator import Authenticator
from app.security.own_tokens import OwnTokens
from app.security.principal import Principal
from app.security.users import Passwords, User
from app.security.watched import Watched

Users = Mapping[str, User]
Handler = Callable[[Request], Coroutine[Any, Any, Response]]


@dataclass(frozen=True)
class Access:
    """Made once by `main`; `app.state.access` holds it."""

    authenticator: Authenticator
    quotas: Quotas
    own_tokens: OwnTokens | None
    passwords: Passwords
    users: Watched[Users] | None


def access(request: Request) -> Access:
    """The access of the application that answers."""
    found: Access = request.app.state.access
    return found


def principal(request: Request) -> Principal:
    """Who asks, on a route that is `Guarded`."""
    found: Principal = request.scope["sluice.principal"]
    return found


async def _principal(request: Request) -> Principal:
    return principal(request)


Known = Annotated[Principal, Depends(_principal)]


class Guarded(APIRoute):
    """A route for those who are known.

    No dependency of FastAPI's: those are asked once the body was read and parsed, and cost 0.1 ms each.
    """

    takes_ticket = False

    def get_route_handler(self) -> Handler:
        answer, takes_ticket = super().get_route_handler(), self.takes_ticket

        async def guarded(request: Request) -> Response:
            found = await access(request).authenticator.identify(request.scope, takes_ticket)
            request.scope["sluice.principal"] = found
            set_payer(request, found)
            return await answer(request)

        return guarded


class Ticketed(Guarded):
    """One that a ticket opens too."""

    takes_ticket = True


async def counted(request: Request) -> None:
    """A dependency that counts the request against the limits that its route declares, all in one step.

    Raises:
        RateLimited: one is reached.
    """
    endpoint = request.scope["endpoint"]
    limits = limits_of(request, endpoint)
    if limits:
        await access(request).quotas.count(request.scope, account_of(request, endpoint), limits)


def by_address(request: Request) -> str:
    """slowapi's key function for routes that are asked by those who are not known yet."""
    return access(request).authenticator.addresses.account(request.scope)
