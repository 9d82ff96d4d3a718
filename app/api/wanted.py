"""A generation that is wanted: what it takes of its caller's account, its key, its conversation, its record."""

import secrets
from collections.abc import Callable, Mapping
from functools import partial
from time import monotonic, time
from typing import Any, Final

import msgspec

from app.api.context import Caller, Context, digest
from app.errors import Busy, Forbidden, NotFound, SluiceError
from app.observability.figures import figures
from app.observability.metrics import STREAMS, Surface
from app.providers.base import GenerationRequest
from app.routing.batch import TASKS
from app.routing.ways import Readers
from app.security.principal import Opening
from app.streams.answer import Answer
from app.streams.batch_response import BatchResponse
from app.streams.connection import Connection
from app.streams.conversations import Conversation
from app.streams.grant import Grant
from app.streams.log import START, OnDisconnect, StreamRecord, parse_id
from app.streams.opener import Patience
from app.streams.outcome import OURS, outcome_of_code
from app.streams.reader import Reader
from app.streams.response import StreamResponse
from app.streams.sse import Encoder

BACKGROUND: Final = "responses.background"
# Nobody is meant to read these to their end.
UNATTENDED = frozenset({TASKS, BACKGROUND})
# Streams of one cached request that failed and are still kept, before the next is one of its own.
CACHE_TRIES = 3


class Wanted(msgspec.Struct, frozen=True):
    """A generation that is wanted, before anything of it exists.

    `stream` and `batch` answer a request with it. `begin` begins it, whoever will read it.

    Args:
        on_disconnect: `Context.asked_policy`.
        answers: how many it comes to.
        conversation_id: that whose next turn the request's last message is.
        metadata: what the stream's end repeats.
        cached: whether the same request's earlier stream will do, while it is kept and did not fail.
    """

    ctx: Context
    who: Caller
    surface: Surface
    request: GenerationRequest
    on_disconnect: OnDisconnect | None
    answers: int = 1
    conversation_id: str | None = None
    metadata: Mapping[str, str] = msgspec.field(default_factory=dict)
    cached: bool = False

    def stream(self, encoder: Callable[[Reader], Encoder], resumable: bool, opening: bytes = b"") -> StreamResponse:
        """Answer with server-sent events.

        Args:
            opening: see `StreamResponse`.
        """
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
            key=self.who.identity.key,
            opening=opening,
        )

    def batch(self, body: Callable[[Answer], Any]) -> BatchResponse:
        """Answer with one JSON document."""
        return BatchResponse(body, terms=self.ctx.terms, open_reader=partial(self._open, "waiting"))

    async def begin(self, readers: Readers, patience: Patience | None = None, background: bool = False) -> StreamRecord:
        """Begin the stream, or find the one that the same key began. What it may need is taken of the caller's account,
        and what it did not need is given back when it ends.

        Args:
            patience, background: see `Opener.open`.

        Raises:
            RateLimited, LimitExceeded, Forbidden, NotFound: nothing was begun or taken.
            whatever `Opener.open` does
        """
        if self.who.key or not self.cached:
            return (await self._begin(self.who.key, readers, patience, background))[0]
        for number in range(CACHE_TRIES):
            key = digest(("cache", self.who.principal, self._asked, number))
            record, new = await self._begin(key, readers, patience, background)
            if new or not await self._failed(record):
                return record
        return (await self._begin("", readers, patience, background))[0]

    async def _begin(
        self, key: str, readers: Readers, patience: Patience | None, background: bool
    ) -> tuple[StreamRecord, bool]:
        """The stream, and whether it is a new one."""
        who, quotas = self.who, self.ctx.quotas
        stream_id = secrets.token_urlsafe(18)
        if who.identity.opening is not None:
            await self._check_ticket(who.identity.opening, stream_id, key)
        if self.conversation_id is not None:
            # Before all that was said in it is read: who is refused is to cost no more than that.
            await quotas.look(who.scope, who.identity, who.limits, key, self.request, self.answers)
        conversation = await self._conversation(key)
        request = self.request if conversation is None else _behind(conversation, self.request)
        hold = await quotas.take(who.scope, who.identity, who.limits, key or stream_id, request, self.answers)
        try:
            record = await self.ctx.opener.open(
                self._draft(stream_id, key, request, hold.grant),
                readers,
                who.identity.tier.priority,
                patience,
                background,
                partial(self.ctx.line, who),
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

    async def _check_ticket(self, opening: Opening, stream_id: str, key: str) -> None:
        if opening.kind == "stream":
            raise Forbidden("The ticket is for something else.")
        if opening.kind == "create" and opening.opened:
            draft = self._draft(stream_id, key, self.request, None)
            # Where it is gone before its ticket, or never was in the log, there is no other one.
            if await self.ctx.streams.backend.known(draft) is None:
                raise NotFound("The stream that the ticket opened is not there any more.")

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

    @property
    def _said(self) -> tuple[object, ...]:
        """All of what the caller says. Of a cached answer he is told his own metadata, whoever it was made for."""
        return (*self._asked, dict(self.metadata)) if self.metadata else self._asked

    async def _open(self, readers: Readers, connection: Connection) -> Reader:
        last = self.who.last_event_id
        if self.surface == "native" and last is not None:
            return await self.ctx.attach(self.who, *parse_id(last))
        record = await self.begin(readers, connection.unless_gone)
        return await self.ctx.attach(self.who, record.stream_id, START)

    def _draft(self, stream_id: str, key: str, request: GenerationRequest, grant: Grant | None) -> StreamRecord:
        tier_max = self.who.identity.tier.max_tokens
        if tier_max is not None and request.max_tokens is None:
            request = msgspec.structs.replace(request, max_tokens=tier_max)
        now = time()
        return StreamRecord(
            stream_id=stream_id,
            principal=self.who.principal,
            surface=self.surface,
            request=request,
            on_disconnect="finish" if self.surface in UNATTENDED else self.ctx.policy(self.on_disconnect, bool(key)),
            grace_seconds=self.ctx.grace_seconds,
            created_unix=int(now),
            idempotency=key,
            body_hash=digest(self._asked if self.cached and key != self.who.key else self._said),
            grant=grant,
            metadata=dict(self.metadata),
            asked_unix=now - (monotonic() - self.who.asked_at),
        )


def _behind(conversation: Conversation, request: GenerationRequest) -> GenerationRequest:
    """The request, with what was said before between the system's words and its own."""
    messages = request.messages
    return msgspec.structs.replace(request, messages=[*messages[:-1], *conversation.messages, messages[-1]])
