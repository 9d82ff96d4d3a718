"""What one worker has for its streams, put together as the app does it, on a log in memory and without HTTP."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from time import time
from typing import Any

from app.admission.places import Places
from app.api.errors import error_body
from app.events import Event
from app.providers.base import Provider
from app.routing.route import Route
from app.streams.batch_response import BatchResponse
from app.streams.connection import Connection
from app.streams.drain import Drain
from app.streams.follower import Follower
from app.streams.log import START, Backend, OnDisconnect, StreamRecord
from app.streams.memory_log import MemoryLog
from app.streams.opener import Opener
from app.streams.reader import Reader
from app.streams.reader_response import Terms
from app.streams.registry import Streams
from app.streams.response import StreamResponse
from app.streams.sse import Encoder, NativeEncoder
from app.streams.unread import Unread
from tests.support.asgi import Peer, no_tasks_left
from tests.support.providers import REQUEST

LONG = 60.0
PRINCIPAL = "anonymous"


def native(reader: Reader) -> Encoder:
    """What encodes unless a test says otherwise."""
    return NativeEncoder(reader.record.stream_id, "m")


@dataclass
class Worker:
    """Every stream is of the provider that it was opened with."""

    streams: Streams
    drain: Drain
    routes: dict[str, Route]
    heartbeat_seconds: float = LONG
    send_seconds: float = LONG
    age_seconds_max: float = LONG
    on_disconnect: OnDisconnect = "cancel"
    calls: list[asyncio.Task[None]] = field(default_factory=list)
    opener: Opener = field(init=False)

    def __post_init__(self) -> None:
        self.opener = Opener(self.streams, degrade=False)

    @property
    def terms(self) -> Terms:
        return Terms(
            self.streams, self.drain, self.heartbeat_seconds, self.send_seconds, self.age_seconds_max, error_body
        )

    @property
    def active(self) -> int:
        """Streams that are produced here."""
        return len(self.streams.owned)

    async def open(
        self,
        provider: Provider,
        connection: Connection | None = None,
        *,
        principal: str = PRINCIPAL,
        priority: int = 0,
        key: str = "",
        background: bool = False,
    ) -> Reader:
        """Begin a stream and read it."""
        model = f"m{len(self.routes)}"
        self.routes[model] = Route.to(provider)
        record = StreamRecord(
            stream_id=secrets.token_urlsafe(18),
            principal=principal,
            surface="native",
            request=type(REQUEST)(model, REQUEST.messages),
            on_disconnect=self.on_disconnect,
            grace_seconds=0.2,
            created_unix=1_790_000_000,
            idempotency=key,
            asked_unix=time(),
        )
        patience = None if connection is None else connection.unless_gone
        opened = await self.opener.open(record, "bound", priority, patience, background)
        return await self.streams.attach(opened.stream_id, principal, START)

    async def read(self, reader: Reader) -> list[Event]:
        """All events of a stream that ends, read as they come."""
        news = asyncio.Event()
        reader.follow(lambda _entries, _first: news.set())
        events: list[Event] = []
        while not reader.ended:
            news.clear()
            entries = await reader.take()
            events += [event for _, event in entries]
            if not entries:
                await asyncio.wait_for(news.wait(), 10)
        self.streams.detach(reader)
        return events

    def serve(
        self, provider: Provider, peer: Peer, *, resumable: bool = False, encoder: Callable[[Reader], Encoder] = native
    ) -> asyncio.Task[None]:
        """Answer with a stream of what the provider says."""

        common: dict[str, Any] = {"terms": self.terms, "open_reader": partial(self.open, provider)}
        return self._call(StreamResponse(encoder, True, resumable=resumable, **common), peer)

    def follow(self, stream_id: str, peer: Peer, *, resumable: bool = True) -> asyncio.Task[None]:
        """Answer with a stream that has begun, from its beginning."""
        common: dict[str, Any] = {
            "terms": self.terms,
            "open_reader": lambda _: self.streams.attach(stream_id, PRINCIPAL, START),
        }
        return self._call(StreamResponse(native, False, resumable=resumable, **common), peer)

    def serve_batch(self, provider: Provider, peer: Peer) -> asyncio.Task[None]:
        """Answer with one document."""
        answer = BatchResponse(
            lambda whole: {"text": whole.text}, terms=self.terms, open_reader=partial(self.open, provider)
        )
        return self._call(answer, peer)

    def _call(self, app: Any, peer: Peer) -> asyncio.Task[None]:
        task = asyncio.create_task(app(peer.scope, peer.receive, peer.send), name="call")
        self.calls.append(task)
        return task


@asynccontextmanager
async def worker(
    backend: Backend | None = None,
    *,
    stream_seconds_max: float = LONG,
    stream_bytes_max: int = 1024 * 1024,
    places: Places | None = None,
) -> AsyncIterator[Worker]:
    """A worker that leaves nothing behind: whatever its streams started has to be over at the end."""
    backend = backend or MemoryLog()
    routes: dict[str, Route] = {}
    async with no_tasks_left():
        streams = Streams(
            backend,
            "worker-1",
            lambda record: routes[record.request.model],
            stream_seconds_max,
            stream_bytes_max,
            pod_draining=lambda: False,
            places=places or Places(1000, 0, LONG),
        )
        streams.follow = Follower(streams, lease_seconds=1.0).follow
        streams.unread = Unread(streams, lease_seconds=1.0).decide
        drain = Drain(streams, spread_seconds=0.1, shared_log=False)
        await backend.beat(streams.owner)
        try:
            yield Worker(streams, drain, routes)
        finally:
            drain.begin()
            await drain.finish()
            await backend.aclose()
