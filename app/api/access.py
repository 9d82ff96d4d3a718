"""Who asks, found out before a request's body is read; and what every route may know of it.

A surface has three things to do, and gets refusals, expiry and limits with them:

    router = APIRouter(route_class=Guarded)      # or `Ticketed`; a WebSocket awaits `identify` before it accepts
    who = caller(request)                        # app.api.context: the principal, and how requests are joined
    @declared.shared_limit(tier_rates, scope="generate")    # on every route that generates: one count for all of them

What generates goes through `Wanted` (app.api.wanted), which takes what it needs of the caller's account. What reads a
stream goes through `Context.attach`, which knows whose it is. Where nobody is told from others (development) everybody
is `ANONYMOUS`, and nothing is limited.
"""

from collections.abc import Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute
from starlette.requests import HTTPConnection

from app.api.strict_json import StrictRequest
from app.api.versions import announcement
from app.limits.account import Limit
from app.limits.declared import account_of, limits_of, set_payer
from app.limits.quotas import Quotas
from app.scope import set_headers
from app.security.authenticator import Authenticator
from app.security.own_tokens import OwnTokens
from app.security.principal import Principal, TicketKind
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


def access(connection: HTTPConnection) -> Access:
    """The access of the application that answers."""
    found: Access = connection.app.state.access
    return found


async def identify(connection: HTTPConnection, openings: Collection[TicketKind] = ()) -> Principal:
    """Find out who asks, for `principal` and for the limits that the route declares.

    Args:
        openings: the kinds of tickets that the route takes.

    Raises:
        Unauthorized, Forbidden, IdentityUnavailable
    """
    found = await access(connection).authenticator.identify(connection.scope, openings)
    connection.scope["sluice.principal"] = found
    set_payer(connection, found)
    return found


def principal(connection: HTTPConnection) -> Principal:
    """Who asks, once it was found out."""
    found: Principal = connection.scope["sluice.principal"]
    return found


async def _principal(request: Request) -> Principal:
    return principal(request)


Known = Annotated[Principal, Depends(_principal)]


class Guarded(APIRoute):
    """A route for those who are known.

    No dependency of FastAPI's: those are asked once the body was read and parsed, and cost 0.1 ms each.
    """

    openings: ClassVar[tuple[TicketKind, ...]] = ()

    def get_route_handler(self) -> Handler:
        answer, openings = super().get_route_handler(), self.openings

        async def guarded(request: Request) -> Response:
            if announced := announcement(request.scope["path"]):
                set_headers(request.scope, announced)
            await identify(request, openings)
            return await answer(StrictRequest(request.scope, request.receive))

        return guarded


class Ticketed(Guarded):
    """One that a ticket opens too: a GET that begins a stream or reads one."""

    openings = ("create", "stream")


def declared_limits(connection: HTTPConnection) -> tuple[Limit, ...]:
    """What the route declares for whoever asks."""
    return limits_of(connection, connection.scope["endpoint"])


async def counted(request: Request) -> None:
    """A dependency that counts the request against the limits that its route declares, all in one step.

    Raises:
        RateLimited: one is reached.
    """
    limits = declared_limits(request)
    if limits:
        account = account_of(request, request.scope["endpoint"])
        await access(request).quotas.count(request.scope, account, limits)


def by_address(request: HTTPConnection) -> str:
    """slowapi's key function for routes that are asked by those who are not known yet."""
    return access(request).authenticator.addresses.account(request.scope)
