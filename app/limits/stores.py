"""Chooses where accounts are kept, by a URL."""

from pathlib import Path

from app.errors import LogUnavailable
from app.limits.counters import Counters
from app.limits.lmdb_counters import LmdbCounters
from app.limits.memory_counters import MemoryCounters
from app.limits.redis_counters import RedisCounters


async def open_counters(url: str) -> Counters:
    """The store behind `url`, ready to be used.

    Args:
        url: memory://, lmdb:///folder, redis://…, rediss://…, redis+sentinel://…, redis+cluster://….

    Raises:
        LogUnavailable: it cannot be opened; `message` and `detail` say why.
    """
    scheme, _, rest = url.partition("://")
    if scheme == "memory":
        return MemoryCounters()
    if scheme == "lmdb" and rest:
        return await LmdbCounters(Path(rest)).open()
    if scheme.startswith("redis"):
        return await RedisCounters(url).open()
    raise LogUnavailable(
        f"SLUICE_LIMITS_STORE: {scheme}:// is none of memory://, lmdb:///folder, redis://… and rediss://…."
    )
