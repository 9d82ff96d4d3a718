"""Everything that people do to a streaming API in an hour, in a few minutes: for tests of what operators see of it."""

import asyncio
import json
import os
import random
import signal
from pathlib import Path
from time import monotonic
from typing import Any

import aiohttp

from tests.support.chain import Chain
from tests.support.crowd import session
from tests.support.resuming_client import ResumingClient
from tests.support.upstream import ScriptedUpstream

HEARTBEAT_SECONDS = 1.0
REQUEST_SECONDS_MAX = 30.0
# As many callers at a time as two busy cores carry beside everything else.
CALLERS = 12
PAUSE_SECONDS = 0.2
ENV = {
    "SLUICE_HEARTBEAT_SECONDS": f"{HEARTBEAT_SECONDS:g}",
    # Shorter than the longest streams, so that some outlive a drain; long enough for several scrapes to see it.
    "SLUICE_DRAIN_SECONDS": "9",
    "SLUICE_DRAIN_SPREAD_SECONDS": "0.5",
    "SLUICE_GRACE_SECONDS": "3",
    # Each worker has room for its half of the callers: one that is left alone has some of them wait.
    "SLUICE_STREAMS_MAX": "6",
    "SLUICE_ADMISSION_SECONDS": "0.9",
}
# Of the models that the scripted upstream answers for, and what it does to them.
SCRIPTS: dict[str, dict[str, Any]] = {
    "well": {"tokens": 30, "delay_seconds": 0.02},
    "slow": {"tokens": 10, "first_delay_seconds": 2.5, "delay_seconds": 0.2},
    "narrow": {"tokens": 20, "delay_seconds": 0.05},
    "refuses": {"status": 503},
    "refuses-alone": {"status": 500},
    "breaks": {"tokens": 20, "die_after": 5, "how": "rst"},
    "breaks-anew": {"tokens": 20, "die_after": 5, "how": "rst"},
    "breaks-alone": {"tokens": 20, "die_after": 5, "how": "rst"},
}


def catalog(folder: Path, upstream: ScriptedUpstream) -> Path:
    """A models file in which upstreams fail, and others stand in for them or do not."""
    price = {"input": 1, "output": 4}
    simulator = {"provider": "simulator", "price": price}

    def asked(**settings: Any) -> dict[str, Any]:
        return {"provider": "openai", "base_url": upstream.base_url, "price": price, "retries_max": 1, **settings}

    for name, fields in SCRIPTS.items():
        upstream.script(name, **fields)
    quick = {"breaker_failures_max": 3, "breaker_open_seconds": 2}
    models: dict[str, Any] = {
        "simulator": [simulator],
        "well": [asked()],
        "slow": [asked()],
        "narrow": [asked(concurrency_max=1, queue_max=20, queue_seconds=0.9)],
        "refuses": [asked(**quick), simulator],
        "refuses-alone": [asked(**quick)],
        "breaks": {"after_first_token": "splice", "upstreams": [asked(), simulator]},
        "breaks-anew": {"after_first_token": "reset", "upstreams": [asked(), simulator]},
        "breaks-alone": [asked()],
    }
    path = folder / "models.json"  # JSON is YAML
    path.write_text(json.dumps({"models": models}))
    return path


class Traffic:
    """Callers of every kind at a chain, and what befalls its workers meanwhile."""

    def __init__(self, chain: Chain, seed: int = 1) -> None:
        self._chain = chain
        self._rng = random.Random(seed)
        self._number = 0

    async def run(self, seconds: float, rounds: int = 1) -> None:
        """In each round a worker is killed, and later all are replaced; the last tenth is calm."""
        ends = monotonic() + seconds * 0.9
        async with session() as opened:
            callers = [asyncio.create_task(self._caller(opened, ends)) for _ in range(CALLERS)]
            try:
                for _ in range(rounds):
                    await asyncio.sleep(seconds / rounds / 3)
                    os.kill(self._chain.worker_pids()[0], signal.SIGKILL)
                    await asyncio.sleep(seconds / rounds / 3)
                    os.kill(self._chain.gunicorn_pid(), signal.SIGHUP)
                    await asyncio.sleep(seconds / rounds / 6)
                await asyncio.gather(*callers)
            finally:
                for caller in callers:
                    caller.cancel()
        await asyncio.sleep(max(0.0, ends + seconds * 0.1 - monotonic()))

    async def _caller(self, opened: aiohttp.ClientSession, ends: float) -> None:
        kinds = [self._reads, self._resumes, self._lasts, self._leaves, self._asks_other_models, self._errs]
        while monotonic() < ends:
            try:
                async with asyncio.timeout(REQUEST_SECONDS_MAX):
                    await self._rng.choice(kinds)(opened)
            except (TimeoutError, aiohttp.ClientError, ConnectionError):
                pass  # a worker died: what becomes of it is what the figures are to say
            await asyncio.sleep(self._rng.uniform(0, PAUSE_SECONDS))

    def _body(self, **fields: Any) -> dict[str, Any]:
        self._number += 1
        return {"prompt": f"Question {self._number}.", "stream": True, **fields}

    async def _post(self, opened: aiohttp.ClientSession, path: str, body: Any, **headers: str) -> None:
        async with opened.post(f"{self._chain.url}{path}", json=body, headers=headers) as answer:
            await answer.read()

    async def _reads(self, opened: aiohttp.ClientSession) -> None:
        simulator = {"seed": self._number, "tokens": 40, "tokens_per_second": 60, "first_token_ms": 50}
        await self._post(opened, "/api/v1/generate", self._body(simulator=simulator))

    async def _lasts(self, opened: aiohttp.ClientSession) -> None:
        """Longer than a drain; whoever reads it follows it to another worker."""
        simulator = {"seed": self._number, "tokens": 280, "tokens_per_second": 20}
        client = self._client(opened, self._body(simulator=simulator), cut_every=10_000)
        await client.run()

    async def _resumes(self, opened: aiohttp.ClientSession) -> None:
        simulator = {"seed": self._number, "tokens": 60, "tokens_per_second": 40}
        await self._client(opened, self._body(simulator=simulator), cut_every=20).run()

    def _client(self, opened: aiohttp.ClientSession, body: dict[str, Any], cut_every: int) -> ResumingClient:
        rng = random.Random(self._number)
        key = f"traffic-{self._number}"
        return ResumingClient(
            *(opened, self._chain.url, body, key, rng, HEARTBEAT_SECONDS),
            seconds_max=REQUEST_SECONDS_MAX,
            cuts=lambda _: rng.random() < 1 / cut_every,
        )

    async def _leaves(self, opened: aiohttp.ClientSession) -> None:
        simulator = {"tokens": 200, "tokens_per_second": 20}
        body = self._body(simulator=simulator, on_disconnect="cancel")
        async with opened.post(f"{self._chain.url}/api/v1/generate", json=body) as answer:
            await answer.content.readany()

    async def _asks_other_models(self, opened: aiohttp.ClientSession) -> None:
        model = self._rng.choice([*SCRIPTS, "narrow", "narrow"])
        messages = [{"role": "user", "content": "Hello"}]
        if self._rng.random() < 0.5:
            await self._post(opened, "/api/v1/generate", self._body(model=model))
        else:
            body = {"model": model, "messages": messages, "stream": True}
            await self._post(opened, "/v1/chat/completions", body)

    async def _errs(self, opened: aiohttp.ClientSession) -> None:
        """Refused before it begins, in one of several ways; and what is no stream at all."""
        match self._rng.randrange(3):
            case 0:
                await self._post(opened, "/api/v1/generate", {"prompt": ""})
            case 1:
                await self._post(opened, "/api/v1/generate", self._body(model="nobody's"))
            case _:
                async with opened.get(f"{self._chain.url}/v1/models") as answer:
                    await answer.read()
