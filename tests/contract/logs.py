"""What the contract is tested on: how to open each backend, from any process, by an address."""

from pathlib import Path
from typing import Protocol

import msgspec

from app.streams.lmdb.log import LmdbLog
from app.streams.log import Backend, Cursor
from app.streams.memory_log import MemoryLog
from tests.contract.redis_place import REDIS, open_redis, redis_address


class Log(Backend, Protocol):
    """The contract, and what only its tests need."""

    async def trim(self, stream_id: str, through: Cursor) -> None: ...


class Options(msgspec.Struct, frozen=True):
    """Bounds small enough to be met in a test."""

    bytes_max: int = 64 * 1024 * 1024
    stream_bytes_max: int = 16 * 1024 * 1024
    ttl_seconds: float = 60.0
    lease_seconds: float = 1.0


async def open_log(address: str, options: Options) -> Log:
    """A handle on the log at `address`: `memory:`, `lmdb:<folder>` …"""
    scheme, _, place = address.partition(":")
    return await _OPENERS[scheme](place, options)


async def _memory(place: str, options: Options) -> Log:
    return MemoryLog(**msgspec.structs.asdict(options))


async def _lmdb(place: str, options: Options) -> Log:
    return await LmdbLog(Path(place), **msgspec.structs.asdict(options)).open()


_OPENERS = {"lmdb": _lmdb, "memory": _memory, "redis": open_redis}


class Place:
    """Where one backend keeps the log of one test.

    Args:
        name: memory, lmdb …
        folder: the test's own.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.address = (
            redis_address(name) if name in REDIS else {"memory": "memory:", "lmdb": f"lmdb:{folder}/log"}[name]
        )


ALL = ["memory", "lmdb", *REDIS]
# Those that several processes may open at once.
SHARED = ["lmdb", *REDIS]
