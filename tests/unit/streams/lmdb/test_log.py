"""What is particular to the log that workers of one machine share; `tests/contract` has what all logs do."""

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import monotonic

import pytest
import uvloop

from app.errors import LogFull, LogUnavailable
from app.events import Token
from app.streams.lmdb import room
from app.streams.lmdb.log import LmdbLog
from app.streams.log import START, Append, Cursor
from tests.contract.lag import LoopLag
from tests.contract.logs import Options
from tests.contract.remote_log import RemoteLog
from tests.contract.streams import DONE, FAILED, begin, numbered, put, read_all, state, words

ROOT = Path(__file__).parents[4]
BYTES = 8 * 1024 * 1024
OPTIONS = Options(bytes_max=BYTES, ttl_seconds=0.2)


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[LmdbLog]:
    opened = await LmdbLog(tmp_path, BYTES, ttl_seconds=0.2).open()
    yield opened
    await opened.aclose()


def neighbour(tmp_path: Path) -> RemoteLog:
    """Another process with the same log."""
    return RemoteLog(f"lmdb:{tmp_path}", OPTIONS)


STOPPED_WRITER = """
import asyncio, os, pathlib, signal, sys
from app.streams.lmdb.log import LmdbLog
from tests.contract.streams import begin

async def stop(path):
    log = await LmdbLog(path, 8 * 1024 * 1024).open()
    def work(transaction):
        transaction.put(b"half", b"written", db=log._tables.keys)
        print("writing", flush=True)
        os.kill(os.getpid(), signal.SIGSTOP)
    await log._write(work)
    print(await begin(log), flush=True)

asyncio.run(stop(pathlib.Path(sys.argv[1])))
"""


@contextmanager
def stopped_writer(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that was stopped in the middle of a transaction, with every lock that there is."""
    command = [sys.executable, "-c", STOPPED_WRITER, str(path)]
    with subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "writing\n"
            yield process
        finally:
            process.kill()


async def test_a_writer_stopped_in_a_transaction_holds_no_event_loop(log: LmdbLog, tmp_path: Path) -> None:
    stream_id = await begin(log)
    await put(log, stream_id, 1, words(1, 3))
    with stopped_writer(tmp_path) as writer:
        async with LoopLag() as lag:
            began = monotonic()
            with pytest.raises(LogUnavailable):
                await put(log, stream_id, 4, words(4, 3))
            assert 0.9 < monotonic() - began < 3.0
            assert log.append_nowait([Append(stream_id, 1, Cursor(0, 4), words(4, 3))]) is None
            # Readers go on as if nothing were.
            assert await read_all(log, stream_id) == numbered(1, words(1, 3))
            assert (await state(log, stream_id)).last == (0, 3)
        assert lag.worst_seconds < 0.5
        writer.send_signal(signal.SIGCONT)
        assert writer.stdout is not None
        other = writer.stdout.readline().strip()
        assert await put(log, stream_id, 4, words(4, 3)) == "ok"
        assert await log.describe(other) is not None


async def test_a_writer_killed_in_a_transaction_leaves_no_trace(log: LmdbLog, tmp_path: Path) -> None:
    stream_id = await begin(log)
    for seq in range(1, 6):
        with stopped_writer(tmp_path):
            pass
        assert await put(log, stream_id, seq, words(seq, 1)) == "ok"
    assert await read_all(log, stream_id) == numbered(1, words(1, 5))
    assert log._read(lambda transaction: transaction.get(b"half", db=log._tables.keys)) is None


async def test_a_new_process_opens_beside_a_stopped_one_or_says_that_it_cannot(
    log: LmdbLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.streams.lmdb.store.OPEN_SECONDS_MAX", 0.5)
    await log.aclose()
    with stopped_writer(tmp_path):
        async with LoopLag() as lag:
            with pytest.raises(LogUnavailable, match="does not answer"):
                await log.open()
        assert lag.worst_seconds < 0.5
    await log.open()
    assert await put(log, await begin(log), 1, words(1, 1)) == "ok"


async def test_appending_without_waiting_is_appending(log: LmdbLog) -> None:
    stream_id = await begin(log)
    batch = [Append(stream_id, 1, Cursor(0, 1), words(1, 3)), Append("n" * 22, 1, Cursor(0, 1), words(1, 3))]
    assert log.append_nowait(batch) == ["ok", "fenced"]
    assert await read_all(log, stream_id) == numbered(1, words(1, 3))


async def test_a_backlog_is_written_in_parts_and_gives_others_their_turn(tmp_path: Path) -> None:
    """The log was away for a while: what all streams kept comes back in one batch."""
    log = await LmdbLog(tmp_path, 64 * 1024 * 1024).open()
    ids = [await begin(log) for _ in range(20)]
    batch = [Append(stream_id, 1, Cursor(0, 1), words(1, 5000)) for stream_id in ids]
    assert log.append_nowait(batch) is None
    assert log._store is not None
    commits = log._store.env.info()["last_txnid"]
    async with LoopLag() as lag:
        assert await log.append(batch) == ["ok"] * 20
    assert log._store.env.info()["last_txnid"] == commits + 20
    assert lag.worst_seconds < 0.5
    page = await log.read(ids[0], START, 10)
    assert len(page) <= 510
    assert await read_all(log, ids[0]) == numbered(1, words(1, 5000))
    assert await put(log, ids[0], 1, words(1, 5000)) == "ok"
    assert (await state(log, ids[0])).last == (0, 5000)
    await log.aclose()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_reader_is_woken_by_a_datagram_before_it_looks_for_itself(tmp_path: Path, run: object) -> None:
    """It looks every 250 ms: without datagrams the median would be above 100."""

    async def latencies() -> list[float]:
        log = await LmdbLog(tmp_path, BYTES).open()
        found = []
        async with neighbour(tmp_path) as other:
            stream_id = await begin(other)
            for seq in range(1, 42):
                waiting = asyncio.create_task(log.wait(stream_id, Cursor(0, seq - 1), 30))
                await asyncio.sleep(0.01)
                began = monotonic()
                assert await put(other, stream_id, seq, words(seq, 1)) == "ok"
                await waiting
                found.append(monotonic() - began)
        await log.aclose()
        return found

    assert median(run(latencies())) < 0.05  # type: ignore[operator]


async def test_a_lost_datagram_costs_a_quarter_of_a_second(log: LmdbLog, tmp_path: Path) -> None:
    async with neighbour(tmp_path) as other:
        stream_id = await begin(other)
        waiting = [asyncio.create_task(log.wait(stream_id, START, 30)) for _ in range(3)]
        await asyncio.sleep(0.05)
        log._wakeups._loop.remove_reader(log._wakeups._socket)
        began = monotonic()
        assert await put(other, stream_id, 1, words(1, 1)) == "ok"
        await asyncio.gather(*waiting)
        assert monotonic() - began < 3.0


async def test_a_stopped_reader_cannot_fill_the_store_so_that_streams_do_not_end(log: LmdbLog, tmp_path: Path) -> None:
    """It stands in a read transaction, so that no page which was freed since can be used again."""
    ids = [await begin(log) for _ in range(5)]
    assert await log.append([Append(stream_id, 1, Cursor(0, 1), words(1, 1)) for stream_id in ids]) == ["ok"] * 5
    script = """
import asyncio, os, pathlib, signal, sys
from app.streams.lmdb.log import LmdbLog
async def stand(path):
    log = await LmdbLog(path, 8 * 1024 * 1024).open()
    with log._store.env.begin() as transaction:
        transaction.get(b"x", db=log._tables.keys)
        print("reading", flush=True)
        os.kill(os.getpid(), signal.SIGSTOP)
asyncio.run(stand(pathlib.Path(sys.argv[1])))
"""
    reader = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(tmp_path), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert reader.stdout is not None
    assert await reader.stdout.readline() == b"reading\n"
    seq, results = 2, {"ok"}
    while results == {"ok"}:
        batch = [Append(stream_id, 1, Cursor(0, seq), words(seq, 1)) for stream_id in ids]
        results = {*await log.append(batch)}
        await asyncio.sleep(0.02)  # it takes half a second until a reader counts as standing
        seq += 1
        assert seq < 5000
    assert results == {"full"}
    with pytest.raises(LogFull):
        await _begin_many(log)
    ends = [await put(log, stream_id, seq - 1, [FAILED]) for stream_id in ids]
    assert ends == ["ok"] * 5
    reader.kill()
    await reader.wait()
    await log.reap()
    other = await begin(log)
    assert await put(log, other, 1, words(1, 100)) == "ok"


async def _begin_many(log: LmdbLog) -> None:
    for _ in range(1000):
        await begin(log)


async def test_what_another_worker_wrote_just_now_keeps_newcomers_out(
    log: LmdbLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An estimate of a tenth of a second ago let them into the room that is kept for running streams."""
    monkeypatch.setattr(room, "COUNT_SECONDS", 60.0)
    async with neighbour(tmp_path) as other:
        stream_id = await begin(log)
        assert await put(log, stream_id, 1, words(1, 1)) == "ok"
        filler, seq = await begin(other), 1
        while await put(other, filler, seq, words(seq, 500)) == "ok":
            seq += 500
            assert seq < 2_000_000
    with pytest.raises(LogFull):
        await begin(log)


async def test_readers_that_died_are_forgotten(log: LmdbLog, tmp_path: Path) -> None:
    """Their slots would keep every page that was freed since from being used again."""
    stream_id = await begin(log)
    async with neighbour(tmp_path) as other:
        assert await read_all(other, stream_id) == []
        assert log._store is not None
        assert len(log._store.env.readers().splitlines()) == 3
    await log.reap()
    assert len(log._store.env.readers().splitlines()) == 2


async def test_a_large_stream_is_forgotten_bit_by_bit(tmp_path: Path) -> None:
    log = await LmdbLog(tmp_path, 64 * 1024 * 1024, ttl_seconds=0.0).open()
    stream_id, kept = await begin(log), await begin(log)
    for first in range(1, 30_000, 1000):
        batch = [Append(stream_id, 1, Cursor(0, seq), words(seq, 1)) for seq in range(first, first + 1000)]
        assert set(await log.append(batch)) == {"ok"}
    await put(log, kept, 1, words(1, 3))
    await put(log, stream_id, 30_001, [DONE])
    assert log._store is not None
    commits = log._store.env.info()["last_txnid"]
    async with LoopLag() as lag:
        async with asyncio.timeout(30):
            while log._read(lambda transaction: transaction.stat(log._tables.events)["entries"]) > 1:
                await log.reap()
                assert await log.describe(stream_id) is None
    assert lag.worst_seconds < 0.5
    assert log._store.env.info()["last_txnid"] > commits + 5
    assert log._read(lambda transaction: transaction.stat(log._tables.ended)["entries"]) == 0
    assert await read_all(log, kept) == numbered(1, words(1, 3))
    await log.aclose()


async def test_leases_of_the_long_gone_are_forgotten_unless_they_left_streams(
    log: LmdbLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.streams.lmdb.streams.LEASE_KEPT_SECONDS", 0.0)
    for owner in ("gone", "left", "here"):
        await log.beat(owner)
    stream_id = await begin(log, "left")
    await log.expire("gone")
    await log.expire("left")
    await asyncio.sleep(0.01)
    await log.reap()
    names = log._read(lambda transaction: [bytes(name) for name, _ in transaction.cursor(log._tables.leases)])
    assert names == [b"here", b"left"]
    assert await log.orphans() == [stream_id]


async def test_nothing_is_left_of_a_stream_that_was_forgotten(log: LmdbLog) -> None:
    stream_id = await begin(log)
    await log.touch_readers([stream_id])
    await log.request_cancel(stream_id)
    await put(log, stream_id, 1, [*words(1, 30), DONE])
    await asyncio.sleep(0.3)
    await log.reap()
    left = {
        name: log._read(lambda transaction, table=table: transaction.stat(table)["entries"])  # type: ignore[misc]
        for name, table in vars(log._tables).items()
    }
    assert left == dict.fromkeys(left, 0)


async def test_a_child_may_not_use_its_parents_log(log: LmdbLog) -> None:
    """LMDB's reader table goes by process: a child in it would corrupt what its parent reads."""
    stream_id = await begin(log)
    assert _in_a_child(log, stream_id) == ["LogUnavailable"] * 3
    assert await put(log, stream_id, 1, words(1, 1)) == "ok"


def _in_a_child(log: LmdbLog, stream_id: str) -> object:
    """What becomes of calls in a forked child."""
    near, far = multiprocessing.Pipe()
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return near.recv()
    results = []
    append = Append(stream_id, 1, Cursor(0, 1), [])
    for call in (log.read(stream_id, START, 10), log.beat("child"), log.append([append])):
        try:
            call.send(None)
        except BaseException as error:
            results.append(type(error).__name__)
    far.send(results)
    os._exit(0)


async def test_a_closed_log_says_so_and_lets_its_readers_go(log: LmdbLog) -> None:
    stream_id = await begin(log)
    waiting = asyncio.create_task(log.wait(stream_id, START, 30))
    await asyncio.sleep(0.01)
    await log.aclose()
    await log.aclose()
    await waiting
    for call in (log.read(stream_id, START, 10), log.beat("w1"), log.describe(stream_id), log.reap()):
        with pytest.raises(LogUnavailable):
            await call
    assert log.append_nowait([Append(stream_id, 1, Cursor(0, 1), [Token("late")])]) is None
    await log.open()


async def test_a_name_that_could_be_taken_for_anothers_is_refused(log: LmdbLog) -> None:
    for name in ("", "a\0b", "n" * 500):
        with pytest.raises(ValueError, match="no name"):
            await log.beat(name)
