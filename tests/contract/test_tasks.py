"""A task on every log: it goes on where its worker died, asks for nothing twice, and keeps what came of it."""

import asyncio
import secrets
from collections.abc import Sequence

from app.admission.places import Places
from app.events import Done, Event, Token
from app.providers.base import GenerationRequest
from app.routing.batch import TASKS, Batch, read_lines
from app.routing.route import Route
from app.streams.follower import Follower
from app.streams.log import START, Cursor, StreamRecord
from app.streams.opener import Opener
from app.streams.registry import Streams
from tests.contract.conftest import Open
from tests.contract.logs import Log, Options
from tests.contract.streams import read_all
from tests.support.waiting import until
from tests.unit.routing.test_batch import Echo

PROMPTS = 12
LEASE_SECONDS = 1.0


class Side:
    """One worker, with an upstream of its own."""

    def __init__(self, name: str, log: Log) -> None:
        self.echo = Echo(pause_seconds=0.05)
        maker = Batch(Route.to(self.echo), 20.0, 1000, 20.0, 0)
        places = Places(1000, 0, 1)
        self.streams = Streams(log, name, lambda _: maker, 60, 1 << 20, pod_draining=lambda: False, places=places)
        self.follower = Follower(self.streams, LEASE_SECONDS)
        self.streams.follow = self.follower.follow

    async def vanish(self) -> None:
        """Say nothing more, as one that was killed."""
        for live in self.streams.owned:
            assert live.generation is not None
            live.generation.fence = 0
            live.generation.lose()
        await self.streams.committer.aclose()


async def begin(side: Side) -> str:
    messages = [{"role": "user", "content": f"p {number}"} for number in range(PROMPTS)]
    name = secrets.token_urlsafe(18)
    record = StreamRecord(name, "alice", TASKS, GenerationRequest("m", messages), "finish", 1.0, 1_790_000_000)
    return (await Opener(side.streams, degrade=False).open(record)).stream_id


def content(entries: Sequence[tuple[Cursor, Event]]) -> str:
    return "".join(event.text for _, event in entries if isinstance(event, Token) and event.kind == "content")


async def test_a_task_is_finished_by_another_worker_than_began_it(opened: Open) -> None:
    log = await opened(Options(lease_seconds=LEASE_SECONDS))
    first, second = Side("w1", log), Side("w2", log)
    await log.beat("w1")
    task_id = await begin(first)

    async def some() -> bool:
        return len(await log.read(task_id, START, 100)) > 4

    await until(some)
    await first.vanish()
    await log.expire("w1")
    await log.beat("w2")
    known = {line.index for line in read_lines(content(await read_all(log, task_id)))}
    assert 0 < len(known) < PROMPTS
    found = await log.describe(task_id)
    assert found is not None
    await second.follower.take_over(*found)

    async def ended() -> bool:
        known = await log.describe(task_id)
        return known is not None and known[1].state == "done"

    await until(ended)
    await asyncio.sleep(0)
    entries = await read_all(log, task_id)
    assert sorted(line.index for line in read_lines(content(entries))) == list(range(PROMPTS))
    indices = [event.index for _, event in entries if isinstance(event, Token) and event.kind == "content"]
    assert indices == list(range(1, PROMPTS + 1))
    assert isinstance(entries[-1][1], Done)
    # What was not in the log when the first one died was asked again, and nothing else.
    assert sorted(second.echo.asked) == sorted(f"p {number}" for number in set(range(PROMPTS)) - known)
    await second.streams.committer.aclose()
