"""One WebSocket, from its acceptance to its end: what the client says, and what it is told."""

import random
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic

import structlog
from msgspec.structs import replace
from pydantic import ValidationError
from starlette.websockets import WebSocket, WebSocketDisconnect

from app.api.context import Caller, Context, upstream_headers
from app.api.conversation_feed import ConversationFeed
from app.api.socket_reading import SocketReading
from app.api.socket_schemas import (
    CLIENT_MESSAGE,
    CancelMessage,
    PingMessage,
    PongMessage,
    ResumeMessage,
    SayMessage,
)
from app.api.wanted import Wanted
from app.errors import Busy, CursorGone, InvalidRequest, NotFound, SluiceError
from app.observability import tracing
from app.observability.figures import figures
from app.observability.metrics import HEARTBEATS, READERS, REFUSED, RESUMES
from app.providers.base import GenerationRequest
from app.scope import socket_wire
from app.streams.connection import ClientGone, ReaderStuck
from app.streams.log import START, STREAM_ID, parse_id
from app.streams.reader import Reader
from app.streams.response import RETRY_MS
from app.streams.sockets import SocketConnection, SocketEncoder, error_message, message
from app.streams.tail import Entry

log = structlog.get_logger(__name__)

# A client that says so many wrong things in a row is no client of this protocol.
WRONG_MESSAGES_MAX = 10
PONG = message("pong")
# RFC 6455 and IANA's registry: service restart; unauthorized; policy violation; internal error.
RESTART, UNAUTHORIZED, POLICY, INTERNAL = 1012, 3000, 1008, 1011


class Session:
    """Serves one socket that was accepted.

    Args:
        conversation_id: what is said here belongs to it, and what is said in it elsewhere is told here.

    `streams` are those that were read here, `begun` those of them that began here, `tokens` what came of all.
    """

    def __init__(self, ctx: Context, who: Caller, socket: WebSocket, conversation_id: str | None = None) -> None:
        self._ctx = ctx
        self._who = who
        self._socket = socket
        self._conversation_id = conversation_id
        self._reading: SocketReading | None = None
        self._feed: ConversationFeed | None = None
        self._wrong = 0
        self.streams = self.begun = self.tokens = 0

    async def run(self) -> str:
        """Until it ends; why it did."""
        outcome = "server_error"
        try:
            outcome = await self._run()
        finally:
            self._end_reading(outcome)
        return outcome

    async def _run(self) -> str:
        terms, wire = self._ctx.terms, socket_wire(self._socket.scope)
        raw = self._socket
        self._connection = SocketConnection(
            raw.receive,
            raw.send,
            terms.heartbeat_seconds,
            terms.send_seconds,
            wire,
        )
        try:
            terms.drain.rest(self._connection)
            self._leave_in_time()
            if self._conversation_id is not None:
                await self._follow(self._conversation_id)
            return await self._serve()
        except ClientGone:
            return "client_cancelled"
        except ReaderStuck:
            wire.end(message("reconnect", reason="slow_reader", retry_ms=_retry_ms()), terms.send_seconds)
            return "slow_reader"
        except SluiceError as error:
            await self._send(error_message(error.as_event()))
            await self._close(RESTART, error.code)
            return error.code
        except Exception:
            log.exception("socket failed")
            await self._close(INTERNAL, "internal_error")
            return "server_error"
        finally:
            terms.drain.leave(self._connection)
            self._connection.close()
            if self._feed is not None:
                self._feed.end()

    async def _follow(self, conversation_id: str) -> None:
        conversations = self._ctx.conversations
        key = conversations.key(self._who.principal, conversation_id)
        self._feed = ConversationFeed(conversations, key, self._connection.wake)
        await self._feed.begin()

    def _leave_in_time(self) -> None:
        self._connection.key = self._who.identity.key
        seconds = self._who.identity.seconds_left
        if seconds is not None:
            self._connection.leave_after(seconds, "reauthenticate")
        age = self._ctx.terms.age_seconds_max * random.uniform(0.8, 1.2)  # noqa: S311
        self._connection.leave_after(age, "max_age")

    async def _serve(self) -> str:
        connection = self._connection
        while not connection.gone:
            said = connection.take_message()
            if said is not None:
                if not await self._handle(said):
                    await self._close(POLICY, "invalid_request")
                    return "invalid_request"
            elif (reading := self._reading) is not None and (entries := await reading.take()):
                await self._tell(reading, entries)
            elif connection.leaving:
                return await self._say_farewell(connection.leaving)
            elif connection.heartbeat_due:
                if self._reading is not None:  # a socket that rests is no stream that is silent
                    figures.add(HEARTBEATS)
                await self._send(SocketEncoder.heartbeat)
            elif self._feed is not None and self._feed.news and self._reading is None:
                await self._look(self._feed)
            else:
                await connection.wait()
        return "client_cancelled"

    async def _handle(self, said: str) -> bool:
        """Do what the client asks for; False once it has been wrong too often."""
        try:
            await self._do(said)
            self._wrong = 0
        except ValidationError as error:
            self._wrong += 1
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"][1:])
            text = f"{field}: {first['msg']}" if field else str(first["msg"])
            await self._refuse(InvalidRequest(text))
        except SluiceError as error:
            await self._refuse(error)
        return self._wrong < WRONG_MESSAGES_MAX

    async def _refuse(self, error: SluiceError) -> None:
        figures.add(REFUSED, 1, error.code)
        await self._send(error_message(error.as_event()))

    async def _do(self, said: str) -> None:
        wanted = CLIENT_MESSAGE.validate_json(said)
        if isinstance(wanted, PingMessage):
            await self._send(PONG)
        elif isinstance(wanted, CancelMessage):
            if self._reading is not None:
                await self._ctx.streams.cancel(self._reading.stream_id, self._who.principal)
        elif not isinstance(wanted, PongMessage):
            if self._reading is not None:
                raise Busy("This socket is still being answered.", retry_after_seconds=1)
            if isinstance(wanted, ResumeMessage):
                await self._resume(wanted)
            else:
                await self._begin(wanted)

    async def _begin(self, wanted: SayMessage) -> None:
        ctx = self._ctx
        who = replace(self._who, idempotency_key=wanted.idempotency_key, asked_at=monotonic())
        system = [{"role": "system", "content": wanted.system}] if wanted.system else []
        request = GenerationRequest(
            model=wanted.model or ctx.models[0],
            messages=[*system, {"role": "user", "content": wanted.text}],
            max_tokens=wanted.max_tokens,
            temperature=wanted.temperature,
            simulator=ctx.simulator(wanted.simulator),
            headers=upstream_headers(self._socket),
        )
        policy = ctx.asked_policy("native", wanted.on_disconnect, streamed=True)
        record = await Wanted(ctx, who, "native", request, policy, conversation_id=self._conversation_id).begin(
            "told", self._connection.unless_gone
        )
        self.begun += 1
        await self._read(await ctx.attach(who, record.stream_id, START), wanted.text)

    async def _resume(self, wanted: ResumeMessage) -> None:
        stream_id, cursor = wanted.stream_id, START
        if wanted.last_event_id is not None:
            stream_id, cursor = parse_id(wanted.last_event_id)
        elif stream_id is None and self._feed is not None:
            stream_id = await self._feed.newest() or ""
        if stream_id is None:
            raise InvalidRequest("resume: needs last_event_id or stream_id.")
        if not STREAM_ID.fullmatch(stream_id) or not await self._may_read(stream_id):
            raise NotFound("There is no such stream.")
        try:
            reader = await self._ctx.attach(self._who, stream_id, cursor)
        except CursorGone:
            figures.add(RESUMES, 1, "gone")
            raise
        figures.add(RESUMES, 1, "past_end" if reader.past_end else "ok")
        if reader.past_end:
            tracing.link(reader.record.request.headers)
            self._ctx.streams.detach(reader)
            if self._feed is not None:
                self._feed.told(stream_id)
                self._feed.news = True
            await self._send(message("end", id=wanted.last_event_id, stream_id=stream_id))
        else:
            await self._read(reader)

    async def _may_read(self, stream_id: str) -> bool:
        """Whoever came with a conversation's ticket reads nothing else."""
        opening = self._who.identity.opening
        if opening is None or opening.kind != "conversation":
            return True
        return self._feed is not None and stream_id in await self._feed.stream_ids()

    async def _look(self, feed: ConversationFeed) -> None:
        """Read the conversation's next stream, if there is one."""
        found = await feed.next()
        if found is None:
            return
        stream_id, said = found
        try:
            reader = await self._ctx.attach(self._who, stream_id, START)
        except NotFound:
            feed.news = True
            return
        await self._read(reader, said)

    async def _read(self, reader: Reader, said: str | None = None) -> None:
        """Tell the client of a stream from now on."""
        reading = self._reading = SocketReading(reader)
        if self._feed is not None:
            self._feed.told(reading.stream_id)
        self.streams += 1
        tracing.link(reading.record.request.headers)
        tracing.describe(stream_id=reading.stream_id)
        drain = self._ctx.terms.drain
        drain.leave(self._connection)
        drain.enter(self._connection, resumable=True)
        await self._send(reading.start(self._conversation_id, None if self._feed is None else said))
        reading.follow(self._connection)

    async def _tell(self, reading: SocketReading, entries: Sequence[Entry]) -> None:
        await self._send(reading.told(entries))
        if reading.ended:
            self._end_reading(reading.delivery.outcome)
            self._ctx.terms.drain.leave(self._connection)
            self._ctx.terms.drain.rest(self._connection)
            if self._feed is not None:
                self._feed.news = True

    def _end_reading(self, outcome: str) -> None:
        if self._reading is not None:
            figures.add(READERS, 1, outcome)
            self.tokens += self._reading.delivery.tokens
            self._ctx.streams.detach(self._reading.reader)
            self._reading = None

    async def _say_farewell(self, reason: str) -> str:
        reading = self._reading
        last = None if reading is None else reading.last_event_id
        stream_id = None if reading is None else reading.stream_id
        await self._send(
            message("reconnect", reason=reason, retry_ms=_retry_ms(), last_event_id=last, stream_id=stream_id)
        )
        await self._close(UNAUTHORIZED if reason == "reauthenticate" else RESTART, reason)
        return reason

    async def _send(self, frames: bytes) -> None:
        await self._connection.send_frames(frames)

    async def _close(self, code: int, reason: str) -> None:
        if not self._connection.gone:
            with suppress(WebSocketDisconnect):
                await self._connection.send({"type": "websocket.close", "code": code, "reason": reason})


def _retry_ms() -> int:
    return random.randint(*RETRY_MS)  # noqa: S311
