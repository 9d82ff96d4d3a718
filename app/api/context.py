"""What every surface needs to answer a generating request, and what is the same on all of them."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Annotated

import msgspec
from fastapi import Depends, Request
from starlette.requests import HTTPConnection
from starlette.types import Scope

from app.api.access import declared_limits, principal
from app.api.schemas import SimulatorBody
from app.errors import InvalidRequest, NotFound
from app.limits.account import Limit
from app.limits.quotas import Quotas
from app.observability import tracing
from app.providers.base import Fault, SimulatorOptions
from app.scope import began_at, request_id, sent_headers, take_opened
from app.security.address import Addresses
from app.security.authenticator import ANONYMOUS
from app.security.principal import Principal
from app.streams.connection import Connection
from app.streams.conversations import Conversations
from app.streams.log import Cursor, OnDisconnect
from app.streams.opener import Opener
from app.streams.reader import Reader
from app.streams.reader_response import Terms
from app.streams.registry import Streams
from app.streams.response import StreamResponse
from app.streams.sse import Encoder

TRACE_HEADERS = (b"traceparent", b"tracestate")
IDEMPOTENCY_KEY_CHARACTERS_MAX = 255
_POLICIES: tuple[OnDisconnect, ...] = ("cancel", "grace", "finish")


@dataclass(frozen=True)
class Context:
    """Made once by `main`; `app.state.context` holds it.

    Args:
        models: their names; the first is the default.
        on_disconnect: by surface, the policy of streams that name none.
        on_disconnect_max: the most lasting policy that a request may ask for.
        simulator_options: whether requests may say how the simulator behaves.
        origins: whose pages may open sockets, besides our own.
    """

    terms: Terms
    opener: Opener
    quotas: Quotas
    conversations: Conversations
    addresses: Addresses
    models: tuple[str, ...]
    on_disconnect: Mapping[str, OnDisconnect]
    on_disconnect_max: OnDisconnect
    grace_seconds: float
    simulator_options: bool
    origins: tuple[str, ...] = ()

    @property
    def streams(self) -> Streams:
        return self.terms.streams

    async def attach(self, who: "Caller", stream_id: str, after: Cursor) -> Reader:
        """A reader of a stream that the caller may read: one of his own, and by a ticket that one only.

        Raises:
            NotFound, CursorGone, LogUnavailable
        """
        opening = who.identity.opening
        if opening is not None and opening.kind == "stream" and opening.target != stream_id:
            raise NotFound("There is no such stream.")
        reader = await self.streams.attach(stream_id, who.principal, after, key=who.ticket_key)
        if (tell := take_opened(who.scope)) is not None:
            try:
                await tell()
            except BaseException:
                self.streams.detach(reader)
                raise
        return reader

    def line(self, who: "Caller") -> str:
        """In whose line the caller waits for a place. Where all callers are one principal, each address has its own."""
        return self.addresses.account(who.scope) if who.principal == ANONYMOUS.account else who.principal

    def simulator(self, body: SimulatorBody | None) -> SimulatorOptions | None:
        """The body's simulator options as the provider takes them.

        Raises:
            InvalidRequest: this environment does not take them.
        """
        if body is None:
            return None
        if not self.simulator_options:
            raise InvalidRequest("simulator: only taken where SLUICE_ENVIRONMENT is development.")
        fault = Fault(body.fault.kind, body.fault.at_token) if body.fault else None
        return SimulatorOptions(body.seed, body.first_token_ms, body.tokens_per_second, body.tokens, body.jitter, fault)

    def asked_policy(self, surface: str, named: OnDisconnect | None, streamed: bool | None) -> OnDisconnect | None:
        """What the request named, else its surface's; whoever waits for one document has nothing of it once he is
        gone."""
        return named or (self.on_disconnect.get(surface) if streamed else None)

    def policy(self, asked: OnDisconnect | None, keyed: bool) -> OnDisconnect:
        """What was asked for, within the operator's bound; who has a key can come back, and is waited for."""
        return min(asked or ("grace" if keyed else "cancel"), self.on_disconnect_max, key=_POLICIES.index)


class Caller(msgspec.Struct, frozen=True):
    """Who asks, and how the request is to be joined to others like it.

    Args:
        limits: what the route declares for him.
        scope: of his request, whose answer says what is left of his limits.
        asked_at: when his request came, by the monotonic clock.
    """

    identity: Principal
    limits: tuple[Limit, ...]
    scope: Scope
    idempotency_key: str | None
    last_event_id: str | None
    resumes: bool
    asked_at: float

    @property
    def principal(self) -> str:
        """The name of his account, which owns what he begins."""
        return self.identity.account

    @property
    def ticket_key(self) -> str:
        """What a ticket that creates is known by: all that it may read is the stream that it began, which has this key.
        Empty without one."""
        opening = self.identity.opening
        return digest(("ticket", opening.target)) if opening is not None and opening.kind == "create" else ""

    @property
    def key(self) -> str:
        """Of all requests that have this one, the first begins a stream; empty where each is one of its own."""
        # Both parts by their length, so that no two pairs make one key.
        own = digest((self.principal, self.idempotency_key)) if self.idempotency_key is not None else ""
        return self.ticket_key or own

    @property
    def resumable(self) -> bool:
        """Whether the client says that it can come back."""
        return self.resumes or self.idempotency_key is not None or self.last_event_id is not None


def context(connection: HTTPConnection) -> Context:
    """The context of the application that answers."""
    found: Context = connection.app.state.context
    return found


def caller(connection: HTTPConnection) -> Caller:
    """Who asks, by the headers that `openapi.RESUME_HEADERS` documents, or the query where it cannot set them.

    The route is `Guarded`, or has awaited `identify`.

    Raises:
        InvalidRequest: the key is not one.
    """
    key = _told(connection, b"idempotency-key", "idempotency_key")
    if key is not None and not (0 < len(key) <= IDEMPOTENCY_KEY_CHARACTERS_MAX and key.isascii() and key.isprintable()):
        raise InvalidRequest(f"Idempotency-Key: 1 to {IDEMPOTENCY_KEY_CHARACTERS_MAX} printable ASCII characters.")
    last = _told(connection, b"last-event-id", "last_event_id")
    resumes = sent_headers(connection.scope).get(b"sluice-resume") == b"1" or connection.scope.get("method") == "GET"
    scope = connection.scope
    return Caller(
        principal(connection), declared_limits(connection), scope, key, last or None, resumes, began_at(scope)
    )


def _told(connection: HTTPConnection, header: bytes, parameter: str) -> str | None:
    sent = sent_headers(connection.scope).get(header)
    return connection.query_params.get(parameter) if sent is None else sent.decode("latin-1")


async def _context(request: Request) -> Context:
    return context(request)


async def _caller(request: Request) -> Caller:
    return caller(request)


# For routes that are not in a hurry: a dependency costs a request 0.1 ms. Async, since FastAPI runs others on a thread.
Ctx = Annotated[Context, Depends(_context)]
Who = Annotated[Caller, Depends(_caller)]


def upstream_headers(request: HTTPConnection) -> dict[str, str]:
    """The request's trace headers and id, to pass on."""
    sent = sent_headers(request.scope)
    headers = {name.decode(): sent[name].decode("latin-1") for name in TRACE_HEADERS if name in sent}
    return headers | tracing.current_headers() | {"x-request-id": request_id(request.scope)}


def resume(
    ctx: Context,
    who: Caller,
    reader: Callable[[], Awaitable[Reader]],
    encoder: Callable[[Reader], Encoder],
    resumable: bool = True,
) -> StreamResponse:
    """Answer with what follows a cursor.

    Args:
        resumable: whether the client understands that it should come back.
    """

    async def opened(_: Connection) -> Reader:
        return await reader()

    return StreamResponse(
        encoder,
        begins=False,
        terms=ctx.terms,
        open_reader=opened,
        resumable=resumable,
        valid_seconds=who.identity.seconds_left,
        key=who.identity.key,
    )


def digest(value: object) -> str:
    """The same for the same values, and for no others.

    Raises:
        InvalidRequest: it cannot be packed.
    """
    try:
        # As the log packs it, so that a request that cannot be packed is told so here.
        packed = msgspec.msgpack.encode(value, order="sorted")
    except (UnicodeEncodeError, OverflowError, RecursionError):
        raise InvalidRequest("The request has text that is not Unicode, or a number beyond 64 bits.") from None
    return blake2b(packed, digest_size=16).hexdigest()
