"""A rollout of the whole: a second instance on the same log comes up, the first is told to stop; all under load."""

import asyncio
import random
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from time import monotonic

import aiohttp
from openai import AsyncOpenAI

from tests.support.balancer import Balancer
from tests.support.chain import Chain
from tests.support.crowd import body, check_texts, reasons, session
from tests.support.machine import carried
from tests.support.resuming_client import ResumingClient

HEARTBEAT_SECONDS = 1.0
DRAIN_SECONDS = 8
STREAMS = 200
POSTS_PER_SECOND = 20
SDK_CLIENTS = 10
SDK_TOKENS = 60


def env(stream_log: str) -> dict[str, str]:
    """Of each instance."""
    return {
        "SLUICE_STREAM_LOG": stream_log,
        "SLUICE_DRAIN_SECONDS": str(DRAIN_SECONDS),
        "SLUICE_DRAIN_SPREAD_SECONDS": "3",
        "SLUICE_HEARTBEAT_SECONDS": str(HEARTBEAT_SECONDS),
    }


@dataclass
class Rollout:
    """Use `run` once.

    Args:
        stream_log: the log that all instances read.
        rounds: how many instances follow each other.
        slower: as `tests.support.machine` says: so much fewer streams.
    """

    stream_log: str
    rounds: int = 1
    slower: float = 1.0
    workers: int = 2
    clients: list[ResumingClient] = field(default_factory=list)
    sdk: Counter[str] = field(default_factory=Counter)
    logs: list[str] = field(default_factory=list)

    @property
    def streams(self) -> int:
        """Long ones, that live through all of it."""
        return carried(STREAMS, self.slower)

    async def run(self) -> None:
        async with AsyncExitStack() as stack:
            http = await stack.enter_async_context(session())
            begun = monotonic()
            instance = await self._start(stack)
            start_seconds = monotonic() - begun
            balancer = await stack.enter_async_context(Balancer([instance]))
            await balancer.until_ready(instance)
            # On a busy machine an instance takes long to start, and streams must still run when the other one leaves.
            seconds = int(8 + self.rounds * (DRAIN_SECONDS + 4 + start_seconds))
            long = [body(n, tokens=10 * seconds, tokens_per_second=10, jitter=0.5) for n in range(self.streams)]
            reading = [asyncio.create_task(self._read(http, balancer.url, one)) for one in long]
            posting = asyncio.create_task(self._post(http, balancer.url))
            await asyncio.sleep(2)
            for _ in range(self.rounds):
                instance = await self._replace(stack, balancer, instance)
            posting.cancel()
            await asyncio.gather(*reading, posting, return_exceptions=True)
            await asyncio.gather(*self._posted)
            await check_texts(balancer.url, self.clients)
            self.logs.append(instance.log)

    @property
    def reasons(self) -> dict[str, int]:
        """Why connections ended, and what was refused."""
        return reasons([client.journal for client in self.clients])

    async def _start(self, stack: AsyncExitStack) -> Chain:
        chain = Chain(env(self.stream_log), workers=self.workers)
        await asyncio.to_thread(chain.__enter__)
        stack.callback(chain.__exit__, None, None, None)
        return chain

    async def _replace(self, stack: AsyncExitStack, balancer: Balancer, old: Chain) -> Chain:
        new = await self._start(stack)
        # As many as stay with the old one to their ends: these cannot come back.
        fitting = [asyncio.create_task(self._ask_sdk(balancer.url, number)) for number in range(SDK_CLIENTS)]
        await asyncio.sleep(0.5)
        balancer.instances.append(new)
        await balancer.until_ready(new)
        await asyncio.to_thread(old.stop)
        balancer.instances.remove(old)
        self.logs.append(old.log)
        await asyncio.gather(*fitting)
        return new

    async def _read(self, http: aiohttp.ClientSession, url: str, request: dict[str, object]) -> None:
        key = f"rollout-{len(self.clients)}-{random.random()}"
        rng = random.Random(key)
        client = ResumingClient(http, url, request, key, rng, HEARTBEAT_SECONDS)
        self.clients.append(client)
        await client.run()

    _posted: list[asyncio.Task[None]] = field(default_factory=list)

    async def _post(self, http: aiohttp.ClientSession, url: str) -> None:
        number = 1_000_000
        while True:
            number += 1
            request = body(number, tokens=20, tokens_per_second=15)
            self._posted.append(asyncio.create_task(self._read(http, url, request)))
            await asyncio.sleep(self.slower / POSTS_PER_SECOND)

    async def _ask_sdk(self, url: str, number: int) -> None:
        simulator = {"seed": number, "tokens": SDK_TOKENS, "tokens_per_second": 12}
        async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            chunks = await client.chat.completions.create(
                model="simulator",
                messages=[{"role": "user", "content": f"Tell me {number}."}],
                stream=True,
                extra_body={"simulator": simulator},
            )
            tokens, end = 0, None
            async for chunk in chunks:
                tokens += bool(chunk.choices[0].delta.content)
                end = chunk.choices[0].finish_reason or end
        self.sdk["complete" if (tokens, end) == (SDK_TOKENS, "stop") else f"{tokens} tokens, {end}"] += 1
