"""One WebSocket, from its acceptance to its end: what the client says, and the stream that it reads just now."""

import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic

import structlog
from msgspec.structs import replace
from pydantic import ValidationError
from starlette.websockets import WebSocket, WebSocketDisconnect

from app.api.context import Caller, Context, upstream_headers
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
from app.streams.delivery import Delivery
from app.streams.log import START, STREAM_ID, Cursor, format_id, parse_id
from app.streams.reader import Reader
from app.streams.response import RETRY_MS, Push
from app.streams.sockets import SocketConnection, SocketEncoder, error_message, message
from app.streams.tail import Entry

log = structlog.get_logger(__name__)

# A client that says so many wrong things in a row is no client of this protocol.
WRONG_MESSAGES_MAX = 10
PONG = message("pong")
# RFC 6455 and IANA's registry: service restart; unauthorized; policy violation; internal error.
RESTART, UNAUTHORIZED, POLICY, INTERNAL = 1012, 3000, 1008, 1011


@dataclass(frozen=True)
class Reading:
    """The stream that is read just now."""

    reader: Reader
    encoder: SocketEncoder
    delivery: Delivery

    @property
    def stream_id(self) -> str:
        return self.reader.record.stream_id


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
        self._key = "" if conversation_id is None else ctx.conversations.key(who.principal, conversation_id)
        self._reading: Reading | None = None
        self._at: str | None = None  # of the conversation's streams, that which was told last
        self._news = False
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
            if self._key:
                self._ctx.conversations.follow(self._key, self._hear)
                self._at = next(iter(reversed(await self._turns())), (None, ""))[0]
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
            if self._key:
                self._ctx.conversations.unfollow(self._key, self._hear)

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
            elif entries := await self._take():
                await self._tell(entries)
            elif connection.leaving:
                return await self._say_farewell(connection.leaving)
            elif connection.heartbeat_due:
                if self._reading is not None:  # a socket that rests is no stream that is silent
                    figures.add(HEARTBEATS)
                await self._send(SocketEncoder.heartbeat)
            elif self._news and self._reading is None:
                await self._look()
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
        elif stream_id is None and self._key:
            stream_id = next(iter(reversed(await self._turns())), ("", ""))[0]
        if stream_id is None:
            raise InvalidRequest("resume: needs last_event_id or stream_id.")
        opening = self._who.identity.opening
        if not STREAM_ID.fullmatch(stream_id) or (
            opening is not None
            and opening.kind == "conversation"
            and stream_id not in [each for each, _ in await self._turns()]
        ):
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
            self._at, self._news = stream_id, bool(self._key)
            await self._send(message("end", id=wanted.last_event_id, stream_id=stream_id))
        else:
            await self._read(reader)

    async def _look(self) -> None:
        """Read the conversation's next stream, if there is one."""
        self._news = False
        turns = await self._turns()
        ids = [stream_id for stream_id, _ in turns]
        # One that is not there any more did not end well, or was forgotten for its age.
        place = ids.index(self._at) + 1 if self._at in ids else max(0, len(ids) - 1) if self._at else 0
        if place == len(ids):
            return
        stream_id, said = turns[place]
        self._at = stream_id
        try:
            reader = await self._ctx.attach(self._who, stream_id, START)
        except NotFound:
            self._news = True
            return
        await self._read(reader, said)

    async def _turns(self) -> list[tuple[str, str]]:
        turns = await self._ctx.conversations.turns(self._key)
        return [(turn.stream_id, turn.said) for turn in turns]

    async def _read(self, reader: Reader, said: str | None = None) -> None:
        """Tell the client of a stream from now on."""
        record = reader.record
        encoder = SocketEncoder(record.stream_id, record.request.model)
        self._reading = Reading(reader, encoder, Delivery())
        self._at = record.stream_id
        self.streams += 1
        tracing.link(record.request.headers)
        tracing.describe(stream_id=record.stream_id)
        drain = self._ctx.terms.drain
        drain.leave(self._connection)
        drain.enter(self._connection, resumable=True)
        await self._send(
            message(
                "start",
                stream_id=record.stream_id,
                model=record.request.model,
                conversation_id=self._conversation_id,
                message=said if self._key else None,
            )
        )
        reader.follow(Push(reader, self._connection, encoder, self._reading.delivery))

    async def _take(self) -> Sequence[Entry]:
        if self._reading is None:
            return ()
        try:
            return await self._reading.reader.take()
        except SluiceError as error:
            # An end of the reading, not of the stream: it has no id.
            self._reading.reader.ended = True
            return [(None, error.as_event())]

    async def _tell(self, entries: Sequence[Entry]) -> None:
        assert self._reading is not None
        reading = self._reading
        reading.delivery.count(entries)
        await self._send(b"".join([reading.encoder.encode(cursor, event) for cursor, event in entries]))
        if reading.reader.ended:
            self._end_reading(reading.delivery.outcome)
            self._ctx.terms.drain.leave(self._connection)
            self._ctx.terms.drain.rest(self._connection)
            self._news = bool(self._key)

    def _end_reading(self, outcome: str) -> None:
        if self._reading is not None:
            figures.add(READERS, 1, outcome)
            self.tokens += self._reading.delivery.tokens
            self._ctx.streams.detach(self._reading.reader)
            self._reading = None

    async def _say_farewell(self, reason: str) -> str:
        at: Cursor = START if self._reading is None else self._reading.reader.cursor
        last = None if self._reading is None or at == START else format_id(self._reading.stream_id, at)
        stream_id = None if self._reading is None else self._reading.stream_id
        await self._send(
            message("reconnect", reason=reason, retry_ms=_retry_ms(), last_event_id=last, stream_id=stream_id)
        )
        await self._close(UNAUTHORIZED if reason == "reauthenticate" else RESTART, reason)
        return reason

    def _hear(self) -> None:
        self._news = True
        self._connection.wake()

    async def _send(self, frames: bytes) -> None:
        await self._connection.send_frames(frames)

    async def _close(self, code: int, reason: str) -> None:
        if not self._connection.gone:
            with suppress(WebSocketDisconnect):
                await self._connection.send({"type": "websocket.close", "code": code, "reason": reason})


def _retry_ms() -> int:
    return random.randint(*RETRY_MS)  # noqa: S311
