"""One writer at a time, and nobody who waits for one that will not go on."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import pytest

from app.errors import LogUnavailable
from app.streams.writer_lock import WriterLock
from tests.contract.lag import LoopLag

HOLDER = """
import asyncio, sys, pathlib
from app.streams.writer_lock import WriterLock
async def hold():
    async with WriterLock(pathlib.Path(sys.argv[1])):
        print("held", flush=True)
        sys.stdin.read()
asyncio.run(hold())
"""
ROOT = Path(__file__).parents[3]


@contextmanager
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has the lock, until it is killed."""
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


FORKED_HOLDER = """
import os, pathlib, sys, time
from app.streams.writer_lock import WriterLock
lock = WriterLock(pathlib.Path(sys.argv[1]))
assert lock.acquire_nowait()
if os.fork():
    print("forked", flush=True)
time.sleep(60)
"""


@contextmanager
def forked_holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has the lock, and a child of it; both are killed in the end."""
    command = [sys.executable, "-c", FORKED_HOLDER, str(path)]
    with subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "forked\n"
            yield process
        finally:
            os.killpg(process.pid, signal.SIGKILL)


async def test_writers_take_turns(tmp_path: Path) -> None:
    inside = 0
    most = 0
    turns = 0

    async def write() -> None:
        nonlocal inside, most, turns
        lock = WriterLock(tmp_path / "lock", seconds_max=30)
        for _ in range(50):
            async with lock:
                inside += 1
                most = max(most, inside)
                await asyncio.sleep(0)  # what nobody may do, so that it shows if two are inside
                inside -= 1
                turns += 1
        lock.close()

    await asyncio.gather(*(write() for _ in range(8)))
    assert (most, turns) == (1, 400)


async def test_a_lock_that_is_held_is_not_taken_without_waiting(tmp_path: Path) -> None:
    one, other = WriterLock(tmp_path / "lock"), WriterLock(tmp_path / "lock")
    assert one.acquire_nowait()
    assert not other.acquire_nowait()
    one.release()
    assert other.acquire_nowait()
    other.release()
    one.close()
    other.close()


async def test_a_stopped_holder_makes_the_log_unavailable_and_holds_nothing_else(tmp_path: Path) -> None:
    lock = WriterLock(tmp_path / "lock", seconds_max=1.0)
    with holder(tmp_path / "lock") as process:
        process.send_signal(signal.SIGSTOP)
        async with LoopLag() as lag:
            began = monotonic()
            with pytest.raises(LogUnavailable):
                async with lock:
                    pass
            assert 0.9 < monotonic() - began < 3.0
        assert lag.worst_seconds < 0.5
    lock.close()


async def test_a_killed_holder_leaves_the_lock_at_once(tmp_path: Path) -> None:
    lock = WriterLock(tmp_path / "lock", seconds_max=10.0)
    with holder(tmp_path / "lock") as process:
        process.send_signal(signal.SIGSTOP)
        waiting = asyncio.create_task(_enter(lock))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        process.kill()
        began = monotonic()
        await waiting
        assert monotonic() - began < 3.0
    lock.close()


async def test_a_child_does_not_keep_the_lock_of_a_parent_that_died(tmp_path: Path) -> None:
    """A forked child shares the open file, and with it the lock, unless it lets go of it."""
    with forked_holder(tmp_path / "lock") as parent:
        lock = WriterLock(tmp_path / "lock", seconds_max=5.0)
        assert not lock.acquire_nowait()
        parent.kill()
        await _enter(lock)
        lock.close()


async def test_a_closed_lock_says_so(tmp_path: Path) -> None:
    lock = WriterLock(tmp_path / "lock")
    lock.close()
    lock.close()
    with pytest.raises(LogUnavailable, match="closed"):
        lock.acquire_nowait()


async def _enter(lock: WriterLock) -> None:
    async with lock:
        pass
