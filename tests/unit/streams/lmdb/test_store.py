"""Which store is opened, when one is begun anew, and what is said where neither can be done."""

import contextlib
import errno
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from app.errors import LogUnavailable, NotFound
from app.streams.lmdb import store as lmdb_store
from app.streams.lmdb.log import LmdbLog
from app.streams.log import START
from tests.contract.logs import Options
from tests.contract.remote_log import RemoteLog
from tests.contract.streams import begin, numbered, put, read_all, words

ROOT = Path(__file__).parents[4]
BYTES = 8 * 1024 * 1024
DATA_PAGES = 8192
"""Where LMDB's two first pages end, and data begins."""


async def opened(path: Path, bytes_max: int = BYTES) -> LmdbLog:
    return await LmdbLog(path, bytes_max, ttl_seconds=0.2).open()


async def a_stream_of_old(path: Path) -> str:
    """What an earlier process left behind."""
    log = await opened(path)
    stream_id = await begin(log)
    for first in range(1, 200, 10):
        await put(log, stream_id, first, words(first, 10))
    await log.aclose()
    return stream_id


def stores(path: Path) -> list[str]:
    return sorted(folder.name for folder in path.glob("v*-*/"))


def data_size(log: LmdbLog) -> int:
    """How far the store has been written to."""
    assert log._store is not None
    return int(log._store.env.info()["last_pgno"]) * 4096


def data(path: Path) -> Path:
    (store,) = stores(path)
    return path / store / "data.mdb"


async def test_a_store_is_found_again_by_the_next_process_of_this_boot(tmp_path: Path) -> None:
    stream_id = await a_stream_of_old(tmp_path)
    log = await opened(tmp_path)
    assert await read_all(log, stream_id) == numbered(1, words(1, 200))
    await log.aclose()
    assert len(stores(tmp_path)) == 1


async def test_the_whole_store_is_allocated_when_it_is_made(tmp_path: Path) -> None:
    """A file with holes would kill whoever writes into one once the disk is full."""
    await a_stream_of_old(tmp_path)
    status = data(tmp_path).stat()
    assert status.st_size == BYTES
    assert status.st_blocks * 512 >= BYTES


async def test_a_store_of_another_boot_is_begun_anew(tmp_path: Path) -> None:
    stream_id = await a_stream_of_old(tmp_path)
    identity = json.loads((tmp_path / "v1.json").read_text())
    (tmp_path / "v1.json").write_text(json.dumps(identity | {"boot": "another"}))
    with capture_logs() as lines:
        log = await opened(tmp_path)
    assert "stream log begins anew: the machine was started again" in [line["event"] for line in lines]
    assert await log.describe(stream_id) is None
    assert await put(log, await begin(log), 1, words(1, 3)) == "ok"
    await log.aclose()
    assert len(stores(tmp_path)) == 1
    assert stores(tmp_path) != [identity["folder"]]


async def test_processes_that_start_at_once_agree_on_the_new_store(tmp_path: Path) -> None:
    await a_stream_of_old(tmp_path)
    identity = json.loads((tmp_path / "v1.json").read_text())
    (tmp_path / "v1.json").write_text(json.dumps(identity | {"boot": "another"}))
    options = Options(bytes_max=BYTES)
    address = f"lmdb:{tmp_path}"
    async with (
        RemoteLog(address, options) as one,
        RemoteLog(address, options) as two,
        RemoteLog(address, options) as three,
    ):
        made = [await begin(process) for process in (one, two, three)]
        for process in (one, two, three):
            assert [await process.describe(stream_id) is not None for stream_id in made] == [True] * 3
    assert len(stores(tmp_path)) == 1


async def test_stores_of_other_schemas_are_deleted_once_nobody_has_them_open(tmp_path: Path) -> None:
    log = await opened(tmp_path)
    (in_use,) = stores(tmp_path)
    abandoned, current = tmp_path / "v0-00000000", tmp_path / "v2-00000000"
    for folder in (abandoned, current):
        folder.mkdir()
        (folder / "in_use").touch()
    identity = json.loads((tmp_path / "v1.json").read_text())
    (tmp_path / "v2.json").write_text(json.dumps(identity | {"folder": current.name}))
    (tmp_path / "v1.json").unlink()
    async with RemoteLog(f"lmdb:{tmp_path}", Options(bytes_max=BYTES)):
        assert in_use in stores(tmp_path)
        assert current.name in stores(tmp_path)
        assert abandoned.name not in stores(tmp_path)
        assert len(stores(tmp_path)) == 3
    await log.aclose()


def garbage(file: Path, start: int, length: int) -> None:
    with file.open("r+b") as writable:
        writable.seek(start)
        writable.write(random.Random(1).randbytes(length))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "first pages are garbage": lambda path: garbage(data(path), 0, DATA_PAGES),
    "data pages are garbage": lambda path: garbage(data(path), DATA_PAGES, 1 << 20),
    "zeros": lambda path: data(path).write_bytes(bytes(BYTES)),
    "empty": lambda path: os.truncate(data(path), 0),
    "short": lambda path: os.truncate(data(path), BYTES // 2),
    "no data": lambda path: data(path).unlink(),
    "no store": lambda path: shutil.rmtree(data(path).parent),
    "no lock": lambda path: data(path).with_name("lock.mdb").unlink(),
    "lock is garbage": lambda path: garbage(data(path).with_name("lock.mdb"), 0, 4096),
    "identity is garbage": lambda path: (path / "v1.json").write_bytes(b"\0{"),
    "identity is empty": lambda path: (path / "v1.json").write_bytes(b""),
    "found damaged before": lambda path: (data(path).parent / "damaged").touch(),
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_store_is_replaced_or_read_and_never_in_the_way(tmp_path: Path, damage: str) -> None:
    stream_id = await a_stream_of_old(tmp_path)
    DAMAGES[damage](tmp_path)
    log = await opened(tmp_path)
    with contextlib.suppress(NotFound):
        assert await read_all(log, stream_id) == numbered(1, words(1, 200))
    new = await begin(log)
    assert await put(log, new, 1, words(1, 3)) == "ok"
    assert data(tmp_path).stat().st_blocks * 512 >= BYTES
    await log.aclose()


async def test_damage_found_while_running_makes_the_log_unavailable_and_then_new(tmp_path: Path) -> None:
    log = await opened(tmp_path)
    stream_id = await begin(log)
    for first in range(1, 2000, 10):
        await put(log, stream_id, first, words(first, 10))
    garbage(data(tmp_path), DATA_PAGES, BYTES // 2)
    with pytest.raises(LogUnavailable):
        await log.read(stream_id, START, 10)
    with pytest.raises(LogUnavailable):
        await put(log, stream_id, 2001, words(2001, 10))
    await log.reap()
    assert await log.describe(stream_id) is None
    assert await put(log, stream_id, 2001, words(2001, 10)) == "fenced"
    assert await put(log, await begin(log), 1, words(1, 3)) == "ok"
    await log.aclose()


async def test_a_process_follows_the_others_to_a_new_store(tmp_path: Path) -> None:
    log = await opened(tmp_path)
    lost = await begin(log)
    (data(tmp_path).parent / "damaged").touch()
    async with RemoteLog(f"lmdb:{tmp_path}", Options(bytes_max=BYTES)) as other:
        new = await begin(other)
        assert await log.describe(new) is None
        await log.reap()
        assert await log.describe(new) is not None
        assert await log.describe(lost) is None
    await log.aclose()


@pytest.mark.parametrize(("bytes_max", "reason"), [(BYTES, "not a folder"), (100_000, "less than")])
async def test_what_cannot_be_a_store_is_said_at_the_start(tmp_path: Path, bytes_max: int, reason: str) -> None:
    (tmp_path / "log").touch()
    with pytest.raises(LogUnavailable) as refused:
        await opened(tmp_path / "log", bytes_max)
    assert reason in refused.value.detail
    assert str(tmp_path) in refused.value.detail
    assert str(tmp_path) not in refused.value.message


async def test_a_folder_that_cannot_be_made_is_said_at_the_start() -> None:
    with pytest.raises(LogUnavailable) as refused:
        await opened(Path("/proc/log"))
    assert "/proc/log" in refused.value.detail


async def test_opening_a_store_twice_in_one_process_is_refused_and_harms_nothing(tmp_path: Path) -> None:
    log = await opened(tmp_path)
    stream_id = await begin(log)
    with pytest.raises(LogUnavailable, match="cannot be opened"):
        await opened(tmp_path)
    assert await put(log, stream_id, 1, words(1, 3)) == "ok"
    await log.aclose()
    log = await opened(tmp_path)
    assert await read_all(log, stream_id) == numbered(1, words(1, 3))
    await log.aclose()


async def test_a_store_grows_with_the_setting_once_nobody_has_it_open(tmp_path: Path) -> None:
    stream_id = await a_stream_of_old(tmp_path)
    async with RemoteLog(f"lmdb:{tmp_path}", Options(bytes_max=BYTES)):
        log = await opened(tmp_path, 2 * BYTES)
        assert data(tmp_path).stat().st_size == BYTES
        await log.aclose()
    log = await opened(tmp_path, 2 * BYTES)
    status = data(tmp_path).stat()
    assert status.st_blocks * 512 >= status.st_size == 2 * BYTES
    assert await read_all(log, stream_id) == numbered(1, words(1, 200))
    seq = 201
    while data_size(log) < BYTES:
        assert await put(log, stream_id, seq, words(seq, 500)) == "ok"
        seq += 500
    await log.aclose()
    log = await opened(tmp_path, BYTES)
    assert data(tmp_path).stat().st_size == 2 * BYTES
    await log.aclose()


FILL = """
import asyncio, errno, os, pathlib, sys
from app.errors import LogUnavailable
from app.streams.lmdb.log import LmdbLog
from app.streams.log import Cursor
from tests.contract.streams import begin, put, words

async def fill(path, bytes_max, allocate):
    if not allocate:
        def unsupported(*_):
            raise OSError(errno.EOPNOTSUPP, "not supported")
        os.posix_fallocate = unsupported
    try:
        log = await LmdbLog(path, bytes_max, stream_bytes_max=1 << 30).open()
        stream_id = await begin(log)
        seq = 1
        while await put(log, stream_id, seq, words(seq, 500)) == "ok":
            seq += 500
        print("full")
        assert len(await log.read(stream_id, Cursor(0, seq - 501), 500)) == 500
    except LogUnavailable as error:
        print(error.detail)

asyncio.run(fill(pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "allocate"))
"""


def on_a_disk_of_16_mb(options: str, tmp_path: Path, *arguments: str) -> str:
    """What a process says that has its log on a file system of its own; it ends with the process."""
    command = f'mount -t tmpfs -o size=16m,{options} none {tmp_path} && exec {sys.executable} -c "$0" {tmp_path}/log $@'
    run = subprocess.run(
        ["unshare", "--mount", "--map-root-user", "sh", "-c", command, FILL, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    if run.stderr.startswith(("unshare:", "mount:")):
        pytest.skip(f"no file system of one's own here: {run.stderr.strip()}")
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()[-1]


def test_a_disk_without_room_for_the_store_is_said_at_the_start(tmp_path: Path) -> None:
    assert "there is no room for its 33554432 bytes" in on_a_disk_of_16_mb("rw", tmp_path, "33554432", "allocate")


def test_a_read_only_disk_is_said_at_the_start(tmp_path: Path) -> None:
    assert "Read-only file system" in on_a_disk_of_16_mb("ro", tmp_path, "8388608", "allocate")


def test_a_store_that_is_allocated_fills_without_harm(tmp_path: Path) -> None:
    assert on_a_disk_of_16_mb("rw", tmp_path, "8388608", "allocate") == "full"


def test_a_disk_that_fills_up_under_a_store_with_holes_makes_the_log_unavailable(tmp_path: Path) -> None:
    """Where the file system cannot allocate, pages are written instead of mapped, and a full disk is an error."""
    assert "No space left" in on_a_disk_of_16_mb("rw", tmp_path, "33554432", "holes")


def test_a_file_system_that_cannot_allocate_gets_a_store_with_holes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(os, "posix_fallocate", unsupported)
    assert not lmdb_store._allocate(tmp_path / "file", BYTES)
    assert (tmp_path / "file").stat().st_size == BYTES
