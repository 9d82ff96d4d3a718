"""What only the store of one machine has: other processes, their stops and deaths, and what an earlier boot left."""

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from time import monotonic

import pytest

from app.errors import LogUnavailable
from app.limits.account import ACCEPTED
from app.limits.lmdb_counters import LmdbCounters
from tests.contract.lag import LoopLag
from tests.unit.limits.stores import ask, cost

TAKER = """
import asyncio, sys
from pathlib import Path
from app.limits.lmdb_counters import LmdbCounters
from tests.unit.limits.stores import ask, cost

async def main():
    store = await LmdbCounters(Path(sys.argv[1])).open()
    print("open", flush=True)
    sys.stdin.readline()
    for number in range(100):
        taken = await store.take(ask(cost(1000), slot=f"{sys.argv[2]}-{number}", slots_max=50))
        print(taken.refused, flush=True)
asyncio.run(main())
"""
HOLDER = """
import fcntl, os, sys
descriptor = os.open(sys.argv[1], os.O_RDWR)
fcntl.flock(descriptor, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.readline()
"""


def start(code: str, *arguments: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline()
    return process


def test_three_processes_never_let_more_through_than_one(tmp_path: Path) -> None:
    takers = [start(TAKER, str(tmp_path), str(number)) for number in range(3)]
    said = [taker.communicate("go\n", timeout=30)[0].split() for taker in takers]
    assert Counter(word for words in said for word in words)[str(ACCEPTED)] == 50


async def test_a_process_that_was_stopped_with_the_lock_holds_nobody_up_for_long(tmp_path: Path) -> None:
    store = await LmdbCounters(tmp_path).open()
    holder = start(HOLDER, str(tmp_path / "writer.lock"))
    os.kill(holder.pid, signal.SIGSTOP)
    async with LoopLag() as lag:
        began = monotonic()
        with pytest.raises(LogUnavailable):
            await store.take(ask(cost(1)))
        assert monotonic() - began < 0.3
    assert lag.worst_seconds < 0.05
    holder.kill()
    holder.communicate()
    assert (await store.take(ask(cost(1)))).refused == ACCEPTED
    await store.aclose()


async def test_what_an_earlier_boot_left_is_deleted_and_not_believed(tmp_path: Path) -> None:
    left = tmp_path / "another-boot"
    left.mkdir()
    (left / "data.mdb").write_bytes(b"not ours")
    store = await LmdbCounters(tmp_path).open()
    assert not left.exists()
    assert (await store.take(ask(cost(1)))).refused == ACCEPTED
    await store.aclose()
    again = await LmdbCounters(tmp_path).open()
    assert (await again.take(ask(cost(1)))).refused == 0
    await again.aclose()
