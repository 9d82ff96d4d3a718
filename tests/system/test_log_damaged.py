"""The log on this machine's disk: full, damaged under way, and a disk that has no room for anything else."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.call import Call, ask
from tests.support.chain import Chain
from tests.support.crowd import body, check_beginnings, crowd
from tests.support.launched import HOME
from tests.support.log_lines import wrong_lines
from tests.support.surfaces import NATIVE, OPENAI
from tests.support.workers import log_works, pid_behind, sockets, until, until_replaced

SMALL_LOG = {"SLUICE_LOG_BYTES_MAX": str(4 * 1024 * 1024), "SLUICE_HEARTBEAT_SECONDS": "1"}
# Found at the next commit; the store is made anew by the reaper, which comes every 2 s.
NEW_STORE_SECONDS_MAX = 8.0
DISK_MB = 24
PAGE_BYTES = 4096
QUESTION = {"prompt": "Is there room?", "stream": True, "simulator": {"tokens": 5, "tokens_per_second": 50}}


def test_a_full_log_ends_streams_with_an_error_and_refuses_new_ones() -> None:
    with Chain(SMALL_LOG, workers=2) as chain:
        lasting = QUESTION | {"simulator": {"tokens": 3000, "tokens_per_second": 50}}
        with Call(chain.url, NATIVE.path, lasting) as running:
            running.until(5)
            large = QUESTION | {"simulator": {"tokens": 32_000, "tokens_per_second": 0}}
            deadline = time.monotonic() + 60
            while (answer := ask(chain.url, NATIVE.path, large)).status == 200:
                assert time.monotonic() < deadline
            assert (answer.status, answer.json["error"]["code"]) == (503, "log_full")
            # Room is kept for the ends.
            running.finish()
            assert running.verdict == "error"
            assert running.frames[-1].json()["code"] == "limit_exceeded"
            assert running.frames[-1].id
        for surface in (NATIVE, OPENAI):
            refused = ask(chain.url, surface.path, surface.body("simulator"))
            assert (refused.status, refused.json["error"]["code"]) == (503, "log_full")
            assert int(refused.headers["retry-after"]) >= 1
        again = ask(chain.url, f"/api/v1/streams/{running.headers['x-stream-id']}")
        assert again.frames == running.frames
        assert [ask(chain.url, path).status for path in ("/livez", "/readyz", "/health")] == [200] * 3
        assert list(wrong_lines(chain.log)) == []


async def test_damage_under_way_ends_streams_honestly_and_a_new_log_is_made() -> None:
    """The log was away for ever: what leaves a damaged store came behind a question to that store, which failed."""
    with Chain(SMALL_LOG, workers=2) as chain:
        pids = chain.worker_pids()
        bodies = [body(n, tokens=300, tokens_per_second=10) for n in range(10)]
        async with crowd(chain.url, bodies, heartbeat_seconds=1.0, seconds_max=25.0) as clients:
            (data,) = (chain.state_dir / "streams").rglob("data.mdb")
            with data.open("r+b") as file:
                # Behind the two pages by which the store is found.
                file.seek(2 * PAGE_BYTES)
                file.write(random.Random(1).randbytes(2 * 1024 * 1024))
            await asyncio.to_thread(until, lambda: log_works(chain), NEW_STORE_SECONDS_MAX, "a new log is there")
        for client in clients:
            journal = client.journal
            said = journal.end["code"] if journal.end else journal.wrongs[-1]
            assert said in ("not_found", "cursor_gone") or said.startswith("refused: 404"), said
        await check_beginnings(chain.url, clients)
        assert chain.worker_pids() == pids


def test_streams_survive_a_disk_that_is_full() -> None:
    """On a file system of its own, which holds all that is written: the log's store, sockets, NGINX's files, output."""
    with tempfile.TemporaryDirectory(prefix="sluice-", dir="/tmp") as folder:  # sockets have short paths
        in_a_file_system_of_its_own(Path(folder))


def in_a_file_system_of_its_own(tmp_path: Path) -> None:
    mount = f"mount -t tmpfs -o size={DISK_MB}m none {tmp_path}"
    command = f"{mount} && exec {sys.executable} -m tests.system.test_log_damaged {tmp_path}"
    done = subprocess.run(
        ["unshare", "--mount", "--map-root-user", "sh", "-c", command],
        cwd=HOME,
        capture_output=True,
        text=True,
        timeout=110,
    )
    if done.stderr.startswith(("unshare:", "mount:")):
        pytest.skip(f"no file system of one's own here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stdout + done.stderr


def on_a_full_disk(folder: Path) -> None:
    """Streams before, while and after the last byte is taken; then a worker dies, and another one takes its place."""
    with Chain(SMALL_LOG | {"SLUICE_STATE_DIR": str(folder / "state")}, workers=2) as chain:
        path, other = sockets(chain)
        lasting = QUESTION | {"simulator": {"tokens": 150, "tokens_per_second": 20}}
        with Call(path, NATIVE.path, lasting) as first:
            first.until(5)
            fill(folder)
            assert log_works(chain)
            reader = Call(other, f"/api/v1/streams/{first.headers['x-stream-id']}").until(20)
            dead = pid_behind(path)
            killer = threading.Timer(1.0, os.kill, (dead, signal.SIGKILL))
            killer.start()
            reader.finish(30)
            killer.join()
        assert reader.verdict == "complete"
        assert [frame.json()["index"] for frame in reader.frames[:-1]] == list(range(1, 151))
        assert max(b - a for a, b in pairwise(reader.times)) < 7
        until_replaced(chain, {dead}, 30)
        assert log_works(chain)
        assert fill(folder) < 64 * 1024, "it was full all the time"


def fill(folder: Path) -> int:
    """Take what is left; how much that was."""
    taken = 0
    with (folder / "full").open("ab", buffering=0) as file:
        try:
            while True:
                taken += file.write(bytes(4096))
        except OSError:
            return taken


if __name__ == "__main__":
    on_a_full_disk(Path(sys.argv[1]))
