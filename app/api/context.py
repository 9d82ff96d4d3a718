"""What every surface needs to answer a generating request, and what is the same on all of them."""

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from time import time
from typing import Annotated, Any

import msgspec
from fastapi import Depends, Request

from app.api.schemas import SimulatorBody
from app.errors import InvalidRequest
from app.providers.base import Fault, GenerationRequest, SimulatorOptions
from app.routing.ways import Readers
from app.scope import request_id
from app.streams.answer import Answer
from app.streams.log import START, OnDisconnect, StreamRecord, parse_id
from app.streams.reader import Reader
from app.streams.registry import Streams
from app.streams.response import BatchResponse, StreamResponse, Terms
from app.streams.sse import Encoder

TRACE_HEADERS = ("traceparent", "tracestate")
IDEMPOTENCY_KEY_CHARACTERS_MAX = 255
_POLICIES: tuple[OnDisconnect, ...] = ("cancel", "grace", "finish")


@dataclass(frozen=True)
class Context:
    """Made once by `main`; `app.state.context` holds it.

    Args:
        models: their names; the first is the default.
        on_disconnect: the policy of native streams that name none.
        on_disconnect_max: the most lasting policy that a request may ask for.
        simulator_options: whether requests may say how the simulator behaves.
    """

    terms: Terms
    models: tuple[str, ...]
    on_disconnect: OnDisconnect
    on_disconnect_max: OnDisconnect
    grace_seconds: float
    simulator_options: bool

    @property
    def streams(self) -> Streams:
        return self.terms.streams

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
    """Who asks, and how the request is to be joined to others like it."""

    principal: str
    idempotency_key: str | None
    last_event_id: str | None
    resumes: bool

    @property
    def resumable(self) -> bool:
        """Whether the client says that it can come back."""
        return self.resumes or self.idempotency_key is not None or self.last_event_id is not None


def context(request: Request) -> Context:
    """The context of the application that answers."""
    found: Context = request.app.state.context
    return found


def caller(request: Request) -> Caller:
    """Who asks, by the headers that `openapi.RESUME_HEADERS` documents, or the query where it cannot set them.

    Raises:
        InvalidRequest: the key is not one.
    """
    headers, query = request.headers, request.query_params
    key = headers.get("idempotency-key", query.get("idempotency_key"))
    if key is not None and not (0 < len(key) <= IDEMPOTENCY_KEY_CHARACTERS_MAX and key.isascii() and key.isprintable()):
        raise InvalidRequest(f"Idempotency-Key: 1 to {IDEMPOTENCY_KEY_CHARACTERS_MAX} printable ASCII characters.")
    last = headers.get("last-event-id", query.get("last_event_id"))
    return Caller("anonymous", key, last or None, headers.get("sluice-resume") == "1" or request.method == "GET")


async def _context(request: Request) -> Context:
    return context(request)


async def _caller(request: Request) -> Caller:
    return caller(request)


# For routes that are not in a hurry: a dependency costs a request 0.1 ms. Async, since FastAPI runs others on a thread.
Ctx = Annotated[Context, Depends(_context)]
Who = Annotated[Caller, Depends(_caller)]


def upstream_headers(request: Request) -> dict[str, str]:
    """The request's trace headers and id, to pass on."""
    headers = {name: request.headers[name] for name in TRACE_HEADERS if name in request.headers}
    return headers | {"x-request-id": request_id(request.scope)}


@dataclass(frozen=True)
class Wanted:
    """A generation that is wanted, before anything of it exists."""

    ctx: Context
    who: Caller
    surface: str
    request: GenerationRequest
    on_disconnect: OnDisconnect

    def stream(self, encoder: Callable[[Reader], Encoder], resumable: bool) -> StreamResponse:
        """Answer with server-sent events."""
        begins = self.surface != "native" or self.who.last_event_id is None
        readers: Readers = "told" if self.surface == "native" else "bound"
        opened = partial(self._open, readers)
        return StreamResponse(encoder, begins, terms=self.ctx.terms, open_reader=opened, resumable=resumable)

    def batch(self, body: Callable[[Answer], Any]) -> BatchResponse:
        """Answer with one JSON document."""
        return BatchResponse(body, terms=self.ctx.terms, open_reader=partial(self._open, "waiting"))

    async def _open(self, readers: Readers) -> Reader:
        streams = self.ctx.streams
        if self.surface == "native" and self.who.last_event_id is not None:
            stream_id, cursor = parse_id(self.who.last_event_id)
            return await streams.attach(stream_id, self.who.principal, cursor)
        record = await streams.open(self._draft(), readers)
        return await streams.attach(record.stream_id, self.who.principal, START)

    def _draft(self) -> StreamRecord:
        key = self.who.idempotency_key
        policy = "grace" if key is not None and self.on_disconnect == "cancel" else self.on_disconnect
        return StreamRecord(
            stream_id=secrets.token_urlsafe(18),
            principal=self.who.principal,
            surface=self.surface,
            request=self.request,
            on_disconnect=self.ctx.policy(policy),
            grace_seconds=self.ctx.grace_seconds,
            created_unix=int(time()),
            # Both parts by their length, so that no two pairs make one key.
            idempotency=_digest((self.who.principal, key)) if key is not None else "",
            body_hash=_digest((self.surface, msgspec.structs.replace(self.request, headers={}))),
        )


def resume(
    ctx: Context, reader: Callable[[], Awaitable[Reader]], encoder: Callable[[Reader], Encoder]
) -> StreamResponse:
    """Answer with what follows a cursor."""
    return StreamResponse(encoder, begins=False, terms=ctx.terms, open_reader=reader, resumable=True)


def _digest(value: object) -> str:
    try:
        # As the log packs it, so that a request that cannot be packed is told so here.
        packed = msgspec.msgpack.encode(value, order="sorted")
    except (UnicodeEncodeError, OverflowError, RecursionError):
        raise InvalidRequest("The request has text that is not Unicode, or a number beyond 64 bits.") from None
    return blake2b(packed, digest_size=16).hexdigest()
