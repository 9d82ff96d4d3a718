"""What clients do while pods come and go: some read long streams, others ask for short ones all the time."""

import asyncio
import random
from collections.abc import Mapping
from contextlib import AsyncExitStack
from time import monotonic
from types import TracebackType
from typing import Any, Self

from tests.support.asgi import until
from tests.support.crowd import body, check_texts, reasons, session
from tests.support.resuming_client import ResumingClient

LONG_TOKENS_PER_SECOND = 10


class Traffic:
    """Use as an async context manager; leaving the block, or `finish`, waits for every stream's end.

    Args:
        url: where to.
        headers: of every request.
        streams: how many long ones are open at any time.
        stream_seconds: how long each takes.
        posts_per_second: short ones, each on a connection of its own, as new clients come.
    """

    def __init__(
        self, url: str, headers: Mapping[str, str], *, streams: int, stream_seconds: float, posts_per_second: float
    ) -> None:
        self.clients: list[ResumingClient] = []
        # When each connection ended, and why.
        self.ends: list[tuple[float, str]] = []
        self._url, self._headers = url, headers
        self._streams, self._stream_seconds, self._pause = streams, stream_seconds, 1 / posts_per_second
        self._reading: list[asyncio.Task[Any]] = []
        self._asking: list[asyncio.Task[None]] = []
        self._long: dict[str, tuple[ResumingClient, asyncio.Task[Any]]] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._http = await self._stack.enter_async_context(session(self._headers, force_close=True))
        self._asking = [asyncio.create_task(self._post())]
        for _ in range(self._streams):
            self._asking.append(asyncio.create_task(self._read_on()))
        await until(lambda: self._reading_long == self._streams, 60.0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in (*self._asking, *self._reading):
            task.cancel()
        await asyncio.gather(*self._asking, *self._reading, return_exceptions=True)
        await self._stack.aclose()

    async def finish(self) -> None:
        """Everybody's stream ends."""
        for task in self._asking:
            task.cancel()
        await asyncio.gather(*self._reading)

    async def check(self) -> None:
        """Everybody has the text that he should have, once. Asks for each of them again."""
        await check_texts(self._url, self.clients, self._headers)

    @property
    def reasons(self) -> dict[str, int]:
        """Why connections ended, and what was refused."""
        return reasons([client.journal for client in self.clients])

    @property
    def _reading_long(self) -> int:
        """How many have a long stream that has begun and not ended."""
        return sum(bool(client.journal.tokens) for client, task in self._long.values() if not task.done())

    async def _read_on(self) -> None:
        """One long stream after the other, so that as many are always open."""
        tokens = int(LONG_TOKENS_PER_SECOND * self._stream_seconds)
        while True:
            number = len(self.clients)
            client, task = self._read(body(number, tokens=tokens, tokens_per_second=LONG_TOKENS_PER_SECOND, jitter=0.5))
            self._long[client.key] = (client, task)
            await asyncio.wait([task])

    def _read(self, request: dict[str, Any]) -> "tuple[ResumingClient, asyncio.Task[Any]]":
        key = f"traffic-{len(self.clients)}-{random.random()}"
        seconds_max = 60 + 2 * self._stream_seconds
        client = ResumingClient(self._http, self._url, request, key, random.Random(key), seconds_max=seconds_max)
        client.on_connection = lambda reason: self.ends.append((monotonic(), reason))
        self.clients.append(client)
        task = asyncio.create_task(client.run())
        self._reading.append(task)
        return client, task

    async def _post(self) -> None:
        number = 1_000_000
        while True:
            number += 1
            self._read(body(number, tokens=20, tokens_per_second=15))
            await asyncio.sleep(self._pause)
