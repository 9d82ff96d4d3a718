"""A crowd of resuming clients at a chain that burns, and what must hold when the fire is out.

fire = Fire(chain, inside, seed=7)
await fire.burn(seconds=15)
await fire.check()
"""

import asyncio
import json
import random
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import aiohttp
import psutil

from app.streams.follower import TAKEOVERS_MAX
from tests.support.arson import PAUSE_SECONDS, Arsonist
from tests.support.chain import Chain
from tests.support.footprint import Footprint, footprint
from tests.support.journal import Journal, check_wrongs, difference
from tests.support.log_lines import wrong_lines
from tests.support.machine import carried
from tests.support.resuming_client import ResumingClient
from tests.support.workers import all_active_streams

# Settings that keep a fire short: what waits for a heartbeat or a drain is over in seconds, and what nobody reads
# within the time that an overloaded machine takes to let its readers come back.
ENV = {"SLUICE_HEARTBEAT_SECONDS": "1", "SLUICE_DRAIN_SECONDS": "4", "SLUICE_GRACE_SECONDS": "60"}
HEARTBEAT_SECONDS = 1.0
STREAMS = 200
CLIENT_SECONDS_MAX = 60.0
# Until what was in use is given back: the readers' last polls, streams that nobody came back for.
SETTLE_SECONDS_MAX = 75.0
# A few connections to Redis that stay open.
MORE_FILES_MAX = 8
MORE_PRIVATE_BYTES_MAX = 24 * 1024 * 1024
# These begin when a worker first waits for another one's stream, and stay.
LASTING_TASKS = {"redis-tail", "redis-wake", "redis-probe"}


@dataclass
class Fire:
    """A crowd of `STREAMS` at a time; a client whose stream has ended begins another one while the fire burns.

    Args:
        chain: began with `ENV` and `inside_env(inside)`.
        seed: of everything that is random here.
        slower: as `tests.support.machine` says: so much fewer streams, and so much more time between two deeds.
        cut_every: a client cuts its own connection once in so many events.
    """

    chain: Chain
    inside: Path
    seed: int
    slower: float = 1.0
    cut_every: int = 500
    journals: list[Journal] = field(default_factory=list)
    bodies: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.streams = carried(STREAMS, self.slower)
        pause_seconds = (PAUSE_SECONDS[0] * self.slower, PAUSE_SECONDS[1] * self.slower)
        self.arsonist = Arsonist(self.chain, self.seed, pause_seconds)
        self.before = self._footprints()

    async def burn(self, seconds: float) -> None:
        """Start the crowd, set the fire, and wait until everybody has their text, or gave up."""
        print(f"fire: seed {self.seed}, {self.streams} streams, {seconds:.0f} s", file=sys.stderr)
        until = monotonic() + seconds
        async with _session() as session:
            crowd = [asyncio.create_task(self._client(session, slot, until)) for slot in range(self.streams)]
            await asyncio.sleep(1)  # everybody is in
            await self.arsonist.burn(seconds - 1)
            await asyncio.gather(*crowd)

    async def _client(self, session: aiohttp.ClientSession, slot: int, until: float) -> None:
        rng = random.Random(f"{self.seed}-{slot}")
        await asyncio.sleep(rng.random() * 0.5)
        number = 0
        while monotonic() < until:
            key = f"fire-{self.seed}-{slot}-{number}"
            body = self.bodies[key] = _body(key, rng)
            cuts = lambda _, rng=rng: rng.random() < 1 / self.cut_every  # noqa: E731
            client = ResumingClient(
                session, self.chain.url, body, key, rng, HEARTBEAT_SECONDS, CLIENT_SECONDS_MAX, cuts=cuts
            )
            self.journals.append(client.journal)
            await client.run()
            number += 1

    async def check(self) -> None:
        """Every oracle, and all that they found in one error.

        Raises:
            AssertionError: the fire did damage.
        """
        texts = [*self._client_wrongs(), *await self._text_wrongs()]
        others = [*self._takeover_wrongs(), *wrong_lines(self.chain.log), *await self._leftovers()]
        story = [f"seed {self.seed}", *self.story()]
        check_wrongs(texts, [*others[:40], *story])
        assert not others, "\n".join([f"{len(others)} wrongs", *others[:40], *story])

    @property
    def waits(self) -> Counter[str]:
        """Why connections ended, and what was refused."""
        return sum((journal.waits for journal in self.journals), Counter())

    @property
    def more_private_bytes(self) -> int:
        """What the largest worker takes, beyond what a fresh one took."""
        fresh = next(iter(self.before.values())).private_bytes
        return max(found.private_bytes for found in self._footprints().values()) - fresh

    def story(self) -> list[str]:
        """What happened, for people."""
        connections = sum(journal.connections for journal in self.journals)
        silence = max(journal.silence_seconds_max for journal in self.journals)
        return [
            *map(str, self.arsonist.done),
            f"{len(self.journals)} streams, {connections} connections, longest silence {silence:.1f} s",
            *(f"{count:6} {reason}" for reason, count in self.waits.most_common()),
        ]

    def _client_wrongs(self) -> Iterator[str]:
        for journal in self.journals:
            yield from (f"{journal.key} {journal.stream_id}: {wrong}" for wrong in journal.wrongs)
        ids = Counter(journal.stream_id for journal in self.journals)
        yield from (f"{stream_id} is the stream of {count} keys" for stream_id, count in ids.items() if count > 1)

    async def _text_wrongs(self) -> list[str]:
        expected = await self._expected()
        wrongs, given_up = [], self.given_up
        for journal in self.journals:
            text = expected[journal.key]
            if journal.stream_id in given_up and text.startswith(journal.text):
                continue
            if journal.end_event != "done":
                told = [line for line in self.chain.log.splitlines() if journal.stream_id in line]
                ended = f"{journal.key} {journal.stream_id}: ended with {journal.end_event} {journal.end}"
                wrongs.append("\n".join([ended, *told]))
            elif journal.text != text:
                wrongs.append(f"{journal.key} {journal.stream_id}: another text: {difference(journal.text, text)}")
        return wrongs

    async def _expected(self) -> dict[str, str]:
        """The same, asked for as one JSON answer: the text by key."""
        limit = asyncio.Semaphore(16)

        async def ask(session: aiohttp.ClientSession, key: str, body: dict[str, Any]) -> tuple[str, str]:
            pace = {"tokens_per_second": 0, "first_token_ms": 0}
            whole = body | {"stream": False, "simulator": body["simulator"] | pace}
            async with limit, session.post(f"{self.chain.url}/api/v1/generate", json=whole) as answer:
                assert answer.status == 200, await answer.text()
                return key, (await answer.json())["response"]

        async with _session() as session:
            return dict(await asyncio.gather(*(ask(session, *item) for item in self.bodies.items())))

    @property
    def given_up(self) -> set[str]:
        """Streams that lost as many producers as one stream may; their ends say so.

        One of a producer that was killed within 20 ms of its claim, before its line was written, is not seen here.
        """
        deaths = Counter(stream for stream, pid in self._takeovers() if pid in self.arsonist.killed)
        ended = {journal.stream_id for journal in self.journals if (journal.end or {}).get("code") == "producer_lost"}
        return {stream_id for stream_id in ended if deaths[stream_id] >= TAKEOVERS_MAX}

    def _takeover_wrongs(self) -> Iterator[str]:
        """A stream is taken over only from a worker that something was done to."""
        for stream_id, pid in self._takeovers():
            if pid not in self.arsonist.hit:
                yield f"{stream_id} was taken over from {pid}, which nobody touched"

    def _takeovers(self) -> Iterator[tuple[str, int]]:
        """Which stream was taken, and from which process."""
        lines = [json.loads(line) for line in self.chain.log.splitlines() if line.startswith("{")]
        booted = [int(line["event"].rpartition(" ")[2]) for line in lines if line["event"].startswith("Booting worker")]
        # A worker's name ends in how many were forked before it, and pids rise with time.
        names = {str(age): pid for age, pid in enumerate(sorted(booted), 1)}
        for line in lines:
            if line["event"] == "took a stream over":
                yield line["stream"], names[line["owner_before"].rpartition("-")[2]]

    async def _leftovers(self) -> list[str]:
        deadline = monotonic() + SETTLE_SECONDS_MAX
        while wrongs := self._leftovers_now():
            if monotonic() > deadline:
                return wrongs
            await asyncio.sleep(0.5)
        return []

    def _leftovers_now(self) -> list[str]:
        try:
            return list(self._found_now())
        except (OSError, psutil.Error) as error:
            return [f"a worker is not there yet, or not any more: {error!r}"]

    def _found_now(self) -> Iterator[str]:
        if any(active := all_active_streams(self.chain)):
            yield f"streams are still active: {active}"
        now = self._footprints()
        if len(now) != len(self.before):
            yield f"{len(now)} workers, {len(self.before)} before"
        first = next(iter(self.before.values()))
        for pid, found in now.items():
            yield from (f"worker {pid}: {wrong}" for wrong in _more(found, first))

    def _footprints(self) -> dict[int, Footprint]:
        return {pid: footprint(pid, self.inside) for pid in self.chain.worker_pids()}


def _more(found: Footprint, before: Footprint) -> Iterator[str]:
    """What a worker has that a fresh one had not."""
    if (files := found.files - before.files).total() > MORE_FILES_MAX:
        yield f"more files: {dict(files)}"
    if (more := found.private_bytes - before.private_bytes) > MORE_PRIVATE_BYTES_MAX:
        yield f"{more / 1e6:.0f} MB more memory"
    if found.threads > before.threads:
        yield f"{found.threads} threads, {before.threads} before"
    tasks = {name: count for name, count in (found.tasks - before.tasks).items() if name not in LASTING_TASKS}
    if tasks:
        yield f"more tasks: {tasks}"


def _body(key: str, rng: random.Random) -> dict[str, Any]:
    simulator = {
        "seed": rng.randrange(2**31),
        "tokens": rng.randint(40, 80),
        "tokens_per_second": rng.randint(9, 15),
        "first_token_ms": rng.randint(0, 300),
        "jitter": 0.5,
    }
    return {"prompt": f"What burns in {key}?", "stream": True, "simulator": simulator}


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
