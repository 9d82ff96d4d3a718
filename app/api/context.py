"""What every surface needs to answer a generating request, and what is the same on all of them."""

import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from time import time
from typing import Annotated, Any

import msgspec
from fastapi import Depends, Request
from starlette.requests import HTTPConnection
from starlette.types import Scope

from app.api.access import declared_limits, principal
from app.api.schemas import SimulatorBody
from app.errors import Busy, Forbidden, InvalidRequest, NotFound, SluiceError
from app.limits.account import Limit
from app.limits.quotas import Quotas
from app.observability import tracing
from app.observability.figures import figures
from app.observability.metrics import STREAMS
from app.providers.base import Fault, GenerationRequest, SimulatorOptions
from app.routing.batch import TASKS
from app.routing.ways import Readers
from app.scope import request_id
from app.security.principal import Principal
from app.streams.answer import Answer
from app.streams.connection import Connection
from app.streams.conversations import Conversation, Conversations
from app.streams.grant import Grant
from app.streams.log import START, Cursor, OnDisconnect, StreamRecord, parse_id
from app.streams.outcome import OURS, outcome_of_code
from app.streams.reader import Reader
from app.streams.registry import Patience, Streams
from app.streams.response import BatchResponse, StreamResponse, Terms
from app.streams.sse import Encoder

TRACE_HEADERS = ("traceparent", "tracestate")
IDEMPOTENCY_KEY_CHARACTERS_MAX = 255
BACKGROUND = "responses.background"
# Nobody is meant to read these to their end.
UNATTENDED = frozenset({TASKS, BACKGROUND})
# Streams of one cached request that failed and are still kept, before the next is one of its own.
CACHE_TRIES = 3
_POLICIES: tuple[OnDisconnect, ...] = ("cancel", "grace", "finish")


@dataclass(frozen=True)
class Context:
    """Made once by `main`; `app.state.context` holds it.

    Args:
        models: their names; the first is the default.
        on_disconnect: the policy of native streams that name none.
        on_disconnect_max: the most lasting policy that a request may ask for.
        simulator_options: whether requests may say how the simulator behaves.
        origins: whose pages may open sockets, besides our own.
    """

    terms: Terms
    quotas: Quotas
    conversations: Conversations
    models: tuple[str, ...]
    on_disconnect: OnDisconnect
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
        return await self.streams.attach(stream_id, who.principal, after, key=who.ticket_key)

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

    def policy(self, asked: OnDisconnect) -> OnDisconnect:
        """What was asked for, within the operator's bound."""
        return min(asked, self.on_disconnect_max, key=_POLICIES.index)


@dataclass(frozen=True)
class Caller:
    """Who asks, and how the request is to be joined to others like it.

    Args:
        limits: what the route declares for him.
        scope: of his request, whose answer says what is left of his limits.
    """

    identity: Principal
    limits: tuple[Limit, ...]
    scope: Scope
    idempotency_key: str | None
    last_event_id: str | None
    resumes: bool

    @property
    def principal(self) -> str:
        """The name of his account, which owns what he begins."""
        return self.identity.account

    @property
    def ticket_key(self) -> str:
        """What a ticket that creates is known by: all that it may read is the stream that it began, which has this key.
        Empty without one."""
        opening = self.identity.opening
        return _digest(("ticket", opening.target)) if opening is not None and opening.kind == "create" else ""

    @property
    def key(self) -> str:
        """Of all requests that have this one, the first begins a stream; empty where each is one of its own."""
        # Both parts by their length, so that no two pairs make one key.
        own = _digest((self.principal, self.idempotency_key)) if self.idempotency_key is not None else ""
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
    headers, query = connection.headers, connection.query_params
    key = headers.get("idempotency-key", query.get("idempotency_key"))
    if key is not None and not (0 < len(key) <= IDEMPOTENCY_KEY_CHARACTERS_MAX and key.isascii() and key.isprintable()):
        raise InvalidRequest(f"Idempotency-Key: 1 to {IDEMPOTENCY_KEY_CHARACTERS_MAX} printable ASCII characters.")
    last = headers.get("last-event-id", query.get("last_event_id"))
    resumes = headers.get("sluice-resume") == "1" or connection.scope.get("method") == "GET"
    return Caller(principal(connection), declared_limits(connection), connection.scope, key, last or None, resumes)


async def _context(request: Request) -> Context:
    return context(request)


async def _caller(request: Request) -> Caller:
    return caller(request)


# For routes that are not in a hurry: a dependency costs a request 0.1 ms. Async, since FastAPI runs others on a thread.
Ctx = Annotated[Context, Depends(_context)]
Who = Annotated[Caller, Depends(_caller)]


def upstream_headers(request: HTTPConnection) -> dict[str, str]:
    """The request's trace headers and id, to pass on."""
    headers = {name: request.headers[name] for name in TRACE_HEADERS if name in request.headers}
    return headers | tracing.current_headers() | {"x-request-id": request_id(request.scope)}


@dataclass(frozen=True)
class Wanted:
    """A generation that is wanted, before anything of it exists.

    `stream` and `batch` answer a request with it. `begin` begins it, whoever will read it.

    Args:
        answers: how many it comes to.
        conversation_id: that whose next turn the request's last message is.
        metadata: what the stream's end repeats.
        cached: whether the same request's earlier stream will do, while it is kept and did not fail.
    """

    ctx: Context
    who: Caller
    surface: str
    request: GenerationRequest
    on_disconnect: OnDisconnect
    answers: int = 1
    conversation_id: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    cached: bool = False

    def stream(self, encoder: Callable[[Reader], Encoder], resumable: bool) -> StreamResponse:
        """Answer with server-sent events."""
        begins = self.surface != "native" or self.who.last_event_id is None
        readers: Readers = "told" if self.surface == "native" else "bound"
        opened = partial(self._open, readers)
        return StreamResponse(
            encoder,
            begins,
            terms=self.ctx.terms,
            open_reader=opened,
            resumable=resumable,
            valid_seconds=self.who.identity.seconds_left,
        )

    def batch(self, body: Callable[[Answer], Any]) -> BatchResponse:
        """Answer with one JSON document."""
        return BatchResponse(body, terms=self.ctx.terms, open_reader=partial(self._open, "waiting"))

    async def begin(self, readers: Readers, patience: Patience | None = None, background: bool = False) -> StreamRecord:
        """Begin the stream, or find the one that the same key began. What it may need is taken of the caller's account,
        and what it did not need is given back when it ends.

        Args:
            patience, background: see `Streams.open`.

        Raises:
            RateLimited, LimitExceeded, Forbidden: nothing was begun or taken.
            whatever `Streams.open` does
        """
        if self.who.key or not self.cached:
            return (await self._begin(self.who.key, readers, patience, background))[0]
        for number in range(CACHE_TRIES):
            key = _digest(("cache", self.who.principal, self._asked, number))
            record, new = await self._begin(key, readers, patience, background)
            if new or not await self._failed(record):
                return record
        return (await self._begin("", readers, patience, background))[0]

    async def _begin(
        self, key: str, readers: Readers, patience: Patience | None, background: bool
    ) -> tuple[StreamRecord, bool]:
        """The stream, and whether it is a new one."""
        who, quotas = self.who, self.ctx.quotas
        opening = who.identity.opening
        if opening is not None and opening.kind == "stream":
            raise Forbidden("The ticket is for something else.")
        stream_id = secrets.token_urlsafe(18)
        conversation = await self._conversation(key)
        request = self.request if conversation is None else _behind(conversation, self.request)
        hold = await quotas.take(who.scope, who.identity, who.limits, key or stream_id, request, self.answers)
        try:
            record = await self.ctx.streams.open(
                self._draft(stream_id, key, request, hold.grant),
                readers,
                who.identity.tier.priority,
                patience,
                background,
            )
        except BaseException as error:
            quotas.cancel(hold)
            if isinstance(error, SluiceError) and (outcome := outcome_of_code(error.code)) in OURS:
                figures.add(STREAMS, 1, self.request.model, self.surface, outcome)
            raise
        new = record.stream_id == stream_id
        if not new:
            quotas.cancel(hold)
        elif conversation is not None:
            await self._add(conversation, stream_id)
        return record, new

    async def _failed(self, record: StreamRecord) -> bool:
        found = await self.ctx.streams.backend.describe(record.stream_id)
        return found is None or found[1].state in ("error", "cancelled")

    async def _conversation(self, key: str) -> Conversation | None:
        if self.conversation_id is None:
            return None
        conversations = self.ctx.conversations
        found = await conversations.open(conversations.key(self.who.principal, self.conversation_id))
        # Whoever has its key is not a second one, but joins it.
        if found.running is not None and not (key and found.running.idempotency == key):
            raise Busy("The conversation is still being answered.", retry_after_seconds=1)
        return found

    async def _add(self, conversation: Conversation, stream_id: str) -> None:
        """The turn begins with its stream; one that cannot be kept is not answered either."""
        added = False
        try:
            said = self.request.messages[-1]["content"]
            added = await self.ctx.conversations.add(conversation, said, stream_id)
        finally:
            if not added:
                await self.ctx.streams.cancel(stream_id, self.who.principal)
        if not added:
            raise Busy("The conversation is still being answered.", retry_after_seconds=1)

    @property
    def _asked(self) -> tuple[object, ...]:
        """What tells one request from another under one key: without what was said before, which the first one adds
        to."""
        asked = (self.surface, msgspec.structs.replace(self.request, headers={}))
        return asked if self.conversation_id is None else (*asked, self.conversation_id)

    async def _open(self, readers: Readers, connection: Connection) -> Reader:
        last = self.who.last_event_id
        if self.surface == "native" and last is not None:
            return await self.ctx.attach(self.who, *parse_id(last))
        record = await self.begin(readers, connection.unless_gone)
        return await self.ctx.attach(self.who, record.stream_id, START)

    def _draft(self, stream_id: str, key: str, request: GenerationRequest, grant: Grant | None) -> StreamRecord:
        policy = "grace" if key and self.on_disconnect == "cancel" else self.on_disconnect
        tier_max = self.who.identity.tier.max_tokens
        if tier_max is not None and request.max_tokens is None:
            request = msgspec.structs.replace(request, max_tokens=tier_max)
        return StreamRecord(
            stream_id=stream_id,
            principal=self.who.principal,
            surface=self.surface,
            request=request,
            on_disconnect=self.ctx.policy(policy) if self.surface not in UNATTENDED else "finish",
            grace_seconds=self.ctx.grace_seconds,
            created_unix=int(time()),
            idempotency=key,
            body_hash=_digest(self._asked),
            grant=grant,
            metadata=dict(self.metadata),
        )


def _behind(conversation: Conversation, request: GenerationRequest) -> GenerationRequest:
    """The request, with what was said before between the system's words and its own."""
    messages = request.messages
    return msgspec.structs.replace(request, messages=[*messages[:-1], *conversation.messages, messages[-1]])


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
    )


def _digest(value: object) -> str:
    try:
        # As the log packs it, so that a request that cannot be packed is told so here.
        packed = msgspec.msgpack.encode(value, order="sorted")
    except (UnicodeEncodeError, OverflowError, RecursionError):
        raise InvalidRequest("The request has text that is not Unicode, or a number beyond 64 bits.") from None
    return blake2b(packed, digest_size=16).hexdigest()
