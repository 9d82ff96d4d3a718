"""Workers that share a log, whose upstreams never say the same as each other, and clients that read there."""

import asyncio
import secrets
from collections.abc import AsyncGenerator
from time import time

from app.admission.places import Places
from app.errors import CursorGone
from app.events import Done, Token, Usage
from app.providers.base import GenerationRequest, Pour
from app.routing.route import Resume, Route
from app.streams.follower import Follower
from app.streams.log import START, Backend, OnDisconnect, StreamRecord, parse_id
from app.streams.opener import Opener
from app.streams.registry import Streams
from app.streams.sse import NativeEncoder
from tests.support.asgi import until
from tests.support.journal import Journal, parse_frame
from tests.support.providers import REQUEST

PRINCIPAL = "anonymous"
TOKENS = 9
LEASE_SECONDS = 0.5


class Talker:
    """Says `<name><n> ` for n from where the text so far ends; waits at a token until it may go on."""

    def __init__(self, name: str, wait_at: int = 0) -> None:
        self.name = name
        self.wait_at = wait_at
        self.go_on = asyncio.Event()
        self.started = 0
        self.closed = 0

    async def generate(
        self, request: GenerationRequest, pour: Pour | None = None
    ) -> AsyncGenerator[Token | Done, None]:
        self.started += 1
        try:
            for number in range(len(request.prefix.split()) + 1, TOKENS + 1):
                if number == self.wait_at:
                    await self.go_on.wait()
                await asyncio.sleep(0.02)
                yield Token(f"{self.name}{number} ")
            yield Done("stop", Usage())
        finally:
            self.closed += 1

    async def aclose(self) -> None:
        """Nothing is held."""


class Side:
    """One worker, and what its upstream says.

    Args:
        wait_at: see `Talker`.
        resume: how a stream is gone on with.
    """

    def __init__(self, name: str, backend: Backend, wait_at: int = 0, resume: Resume = "continue") -> None:
        self.talker = Talker(name, wait_at)
        route = Route.to(self.talker, resume)
        self.streams = Streams(
            backend,
            name,
            lambda _: route,
            60,
            1 << 20,
            pod_draining=lambda: False,
            places=Places(1000, 0, 1),
        )
        self.follower = Follower(self.streams, LEASE_SECONDS)
        self.streams.follow = self.follower.follow

    async def open(self, on_disconnect: OnDisconnect = "finish") -> str:
        """Begin a stream."""
        name = secrets.token_urlsafe(18)
        record = StreamRecord(name, PRINCIPAL, "native", REQUEST, on_disconnect, 1.0, 1_790_000_000, asked_unix=time())
        return (await Opener(self.streams, degrade=False).open(record)).stream_id

    async def read(self, journal: Journal, tokens: int = TOKENS + 1, seconds: float = 4.0) -> None:
        """As a client that comes with its last id, until it has so many tokens, or the end, or no patience."""
        after = parse_id(journal.last_id)[1] if journal.last_id else START
        encoder = NativeEncoder(journal.stream_id, "m")
        news = asyncio.Event()
        try:
            reader = await self.streams.attach(journal.stream_id, PRINCIPAL, after)
        except CursorGone:
            journal.wrong("the id of an event that was delivered is not in the log")
            return
        journal.begin()
        reader.follow(lambda _entries, _first: news.set())
        try:
            async with asyncio.timeout(seconds):
                while journal.end is None and len(journal.tokens) < tokens:
                    news.clear()
                    for cursor, event in await reader.take():
                        frame = parse_frame(encoder.encode(cursor, event).rstrip())
                        assert frame is not None
                        journal.see(frame)
                    if journal.end is None and len(journal.tokens) < tokens:
                        await news.wait()
        except TimeoutError:
            journal.wrong(f"silence behind {journal.tokens}")
        finally:
            self.streams.detach(reader)

    async def stop(self) -> None:
        """Let go of everything, without a word to the log."""
        for live in self.streams.owned:
            assert live.generation is not None
            live.generation.stop()
        await until(lambda: self.talker.closed == self.talker.started)
