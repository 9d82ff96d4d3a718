"""What holds between processes: they see each other's events, and one that is killed or stopped harms nobody."""

import asyncio
import random
import secrets
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from time import monotonic

import pytest

from app.errors import LogUnavailable
from app.streams.log import START, Append, Cursor
from tests.contract.lag import LoopLag
from tests.contract.logs import SHARED, Log, Options, Place, open_log
from tests.contract.remote_log import ProcessGone, RemoteLog
from tests.contract.streams import DONE, begin, numbered, put, read_all, record, state, words
from tests.support.waiting import until

OPTIONS = Options(lease_seconds=2.0)
SOON_SECONDS = 3.0
LONG_SECONDS = 30.0

Spawn = Callable[[], Awaitable[RemoteLog]]


@pytest.fixture(params=SHARED)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(request.param, tmp_path)


@pytest.fixture
async def log(place: Place) -> AsyncIterator[Log]:
    opened = await open_log(place.address, OPTIONS)
    yield opened
    await opened.aclose()


@pytest.fixture
async def spawn(place: Place) -> AsyncIterator[Spawn]:
    """Starts another process that has the same log open; all are killed after the test."""
    async with AsyncExitStack() as stack:
        yield lambda: stack.enter_async_context(RemoteLog(place.address, OPTIONS))


async def test_what_one_process_wrote_another_reads(log: Log, spawn: Spawn) -> None:
    other = await spawn()
    stream_id = (await other.create(record(idempotency=secrets.token_hex(8)), "w2")).stream_id
    assert await put(other, stream_id, 1, [*words(1, 30), DONE]) == "ok"
    assert await read_all(log, stream_id) == numbered(1, [*words(1, 30), DONE])
    assert await read_all(other, stream_id) == numbered(1, [*words(1, 30), DONE])
    known = await log.describe(stream_id)
    assert known is not None
    assert (known[1].owner, known[1].state, known[1].last) == ("w2", "done", (0, 31))


async def test_a_document_of_one_process_is_another_ones_and_only_one_of_them_replaces_it(
    log: Log, spawn: Spawn
) -> None:
    other = await spawn()
    version = await other.put_document("a", b"1", 0, 60.0)
    assert await log.get_document("a") == (version, b"1")
    made = await asyncio.gather(*(each.put_document("a", b"2", version, 60.0) for each in (log, other) * 5))
    assert sum(one is not None for one in made) == 1
    assert (await log.get_document("a")) == (await other.get_document("a")) == (max(filter(None, made)), b"2")


async def test_a_key_makes_one_stream_for_all_processes(log: Log, spawn: Spawn) -> None:
    other = await spawn()
    for _ in range(10):
        key = secrets.token_hex(8)
        made = await asyncio.gather(
            *(process.create(record(idempotency=key), "w") for process in (log, other) for _ in range(3))
        )
        assert len({one.stream_id for one in made}) == 1


async def test_a_stream_is_claimed_by_one_process_only(log: Log, spawn: Spawn) -> None:
    other = await spawn()
    for _ in range(20):
        stream_id = await begin(log, "gone")
        fences = await asyncio.gather(log.claim(stream_id, "w1", 1), other.claim(stream_id, "w2", 1))
        assert sorted(fence or 0 for fence in fences) == [0, 2]
        winner, loser = (log, other) if fences[0] else (other, log)
        assert await put(loser, stream_id, 1, words(1, 1), fence=1) == "fenced"
        assert await put(winner, stream_id, 1, words(1, 1), fence=2) == "ok"


async def test_a_reader_is_woken_by_another_process(log: Log, spawn: Spawn) -> None:
    other = await spawn()
    stream_id = await begin(log)
    after = START
    for seq in range(1, 21):
        waiting = asyncio.create_task(other.wait(stream_id, after, LONG_SECONDS))
        await asyncio.sleep(0.02)
        began = monotonic()
        assert await put(log, stream_id, seq, words(seq, 1)) == "ok"
        await waiting
        assert monotonic() - began < SOON_SECONDS
        after = Cursor(0, seq)
        assert len(await other.read(stream_id, Cursor(0, seq - 1), 10)) == 1


async def test_cancellations_readers_and_leases_are_known_to_all(log: Log, spawn: Spawn) -> None:
    other = await spawn()
    await other.beat("w2")
    stream_id = (await other.create(record(), "w2")).stream_id
    assert (await state(log, stream_id)).owner_alive
    await log.request_cancel(stream_id)
    await log.touch_readers([stream_id])
    assert await other.cancel_requests("w2") == [stream_id]
    assert (await state(other, stream_id)).readers_seen
    await log.expire("w2")
    assert stream_id in await other.orphans()


async def test_an_owner_hears_at_once_that_another_process_asks_it_to_cancel(log: Log, spawn: Spawn) -> None:
    owner = await spawn()
    await owner.beat("w2")
    bystander = asyncio.create_task(log.wait_for_cancels("w1", LONG_SECONDS))
    for _ in range(3):
        stream_id = (await owner.create(record(), "w2")).stream_id
        asked = asyncio.create_task(owner.wait_for_cancels("w2", LONG_SECONDS))
        await asyncio.sleep(0.2)
        assert not asked.done()
        began = monotonic()
        await log.request_cancel(stream_id)
        await asked
        assert monotonic() - began < SOON_SECONDS
        assert stream_id in await owner.cancel_requests("w2")
    assert not bystander.done()
    bystander.cancel()


async def test_streams_of_a_killed_process_are_taken_over_within_its_lease(log: Log, spawn: Spawn) -> None:
    other = await spawn()
    await other.beat("w2")
    stream_id = (await other.create(record(), "w2")).stream_id
    assert await put(other, stream_id, 1, words(1, 5)) == "ok"
    await other.kill()
    assert await log.claim(stream_id, "w1", 1) is None
    began = monotonic()

    async def orphaned() -> bool:
        return stream_id in await log.orphans()

    await until(orphaned)
    assert monotonic() - began < OPTIONS.lease_seconds + SOON_SECONDS
    await log.beat("w1")
    assert await log.claim(stream_id, "w1", 1) == 2
    assert await put(log, stream_id, 6, [*words(6, 5), DONE], fence=2) == "ok"
    assert await read_all(log, stream_id) == numbered(1, [*words(1, 10), DONE])


async def test_a_stopped_producer_that_wakes_up_after_a_takeover_writes_nothing(log: Log, spawn: Spawn) -> None:
    other = await spawn()
    await other.beat("w2")
    stream_id = (await other.create(record(), "w2")).stream_id
    assert await put(other, stream_id, 1, words(1, 5)) == "ok"
    other.send(signal.SIGSTOP)
    late = asyncio.create_task(put(other, stream_id, 6, words(106, 5)))

    async def orphaned() -> bool:
        return stream_id in await log.orphans()

    await until(orphaned)
    await log.beat("w1")
    assert await log.claim(stream_id, "w1", 1) == 2
    assert await put(log, stream_id, 6, words(6, 5), fence=2) == "ok"
    other.send(signal.SIGCONT)
    assert await late == "fenced"
    assert await put(log, stream_id, 11, [DONE], fence=2) == "ok"
    assert await read_all(log, stream_id) == numbered(1, [*words(1, 10), DONE])


@pytest.mark.parametrize("seed", range(2))
async def test_a_kill_loses_nothing_that_was_confirmed(log: Log, spawn: Spawn, seed: int) -> None:
    """Two writers on 20 streams each; one is killed in the middle of what it does. The other does not stumble."""
    rng = random.Random(seed)
    victim, survivor = await spawn(), await spawn()
    confirmed: dict[str, int] = {}
    writers = []
    for process, owner in ((victim, "v"), (survivor, "s")):
        ids = [(await process.create(record(), owner)).stream_id for _ in range(20)]
        confirmed |= dict.fromkeys(ids, 0)
        writers.append(asyncio.create_task(_write(process, ids, confirmed)))
    await asyncio.sleep(0.2 + rng.random() * 0.5)
    await victim.kill()
    with pytest.raises(ExceptionGroup) as gone:
        await writers[0]
    assert all(isinstance(error, ProcessGone) for error in gone.value.exceptions)
    before = sum(confirmed.values())
    await asyncio.sleep(0.3)
    assert sum(confirmed.values()) > before
    writers[1].cancel()
    await asyncio.gather(*writers, return_exceptions=True)
    for stream_id, count in confirmed.items():
        found = await read_all(log, stream_id)
        assert len(found) >= count
        assert found == numbered(1, words(1, len(found)))
        await _go_on(log, stream_id, len(found))


async def _write(process: RemoteLog, ids: list[str], confirmed: dict[str, int]) -> None:
    """Append to all streams for ever, in four lanes, so that there is always something on its way."""
    async with asyncio.TaskGroup() as lanes:
        for number in range(4):
            lanes.create_task(_write_lane(process, ids[number::4], confirmed))


async def _write_lane(process: RemoteLog, ids: list[str], confirmed: dict[str, int]) -> None:
    rng = random.Random(ids[0])
    seqs = dict.fromkeys(ids, 1)
    while True:
        batch = []
        for stream_id in ids:
            events = words(seqs[stream_id], rng.randint(1, 5))
            batch.append(Append(stream_id, 1, Cursor(0, seqs[stream_id]), events))
            seqs[stream_id] += len(events)
        assert await process.append(batch) == ["ok"] * len(ids)
        confirmed |= {stream_id: seqs[stream_id] - 1 for stream_id in ids}


async def _go_on(log: Log, stream_id: str, count: int) -> None:
    """Whatever the kill left, the stream can be taken up behind it."""
    now = await state(log, stream_id)
    assert now.last == (0, count)
    await log.expire(now.owner)
    fence = await log.claim(stream_id, "w1", now.fence)
    assert fence is not None
    assert await put(log, stream_id, count + 1, [DONE], fence=fence) == "ok"


async def test_a_stopped_neighbour_does_not_hold_the_event_loop(log: Log, spawn: Spawn) -> None:
    """Wherever in its work it was stopped; whoever cannot write because of it hears so, in time."""
    neighbour = await spawn()
    ids = [(await neighbour.create(record(), "n")).stream_id for _ in range(20)]
    writer = asyncio.create_task(_write(neighbour, ids, dict.fromkeys(ids, 0)))
    stream_id = await begin(log)
    async with LoopLag() as lag:
        for seq in range(1, 11):
            await asyncio.sleep(0.05)
            neighbour.send(signal.SIGSTOP)
            began = monotonic()
            # Only where a lock is shared can it be stopped with it; then this is how the log says so.
            with suppress(LogUnavailable):
                assert await put(log, stream_id, seq, words(seq, 1)) == "ok"
            assert monotonic() - began < SOON_SECONDS
            assert len(await log.read(stream_id, START, 100)) in (seq - 1, seq)
            neighbour.send(signal.SIGCONT)
            assert await put(log, stream_id, seq, words(seq, 1)) == "ok"
    assert lag.worst_seconds < 0.5
    writer.cancel()
    await asyncio.gather(writer, return_exceptions=True)
