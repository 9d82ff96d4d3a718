"""Chooses the stream log that a URL names."""

from pathlib import Path

from app.errors import LogUnavailable
from app.streams.lmdb.log import LmdbLog
from app.streams.log import Backend
from app.streams.memory_log import MemoryLog
from app.streams.redis.log import RedisLog


async def open_backend(
    url: str, bytes_max: int, stream_bytes_max: int, ttl_seconds: float, lease_seconds: float
) -> Backend:
    """The log behind `url`, ready to be used.

    Args:
        url: memory://, lmdb:///folder, redis://…, rediss://…, redis+sentinel://…, redis+cluster://….
        bytes_max: size of a store that is this machine's.
        stream_bytes_max, ttl_seconds, lease_seconds: see the backends.

    Raises:
        LogUnavailable: it cannot be opened; `message` and `detail` say why.
    """
    scheme, _, rest = url.partition("://")
    if scheme == "memory":
        return MemoryLog(bytes_max, stream_bytes_max, ttl_seconds, lease_seconds)
    if scheme == "lmdb" and rest:
        return await LmdbLog(Path(rest), bytes_max, stream_bytes_max, ttl_seconds, lease_seconds).open()
    if is_shared(url):
        return await RedisLog(url, stream_bytes_max, ttl_seconds, lease_seconds).open()
    raise LogUnavailable(
        f"SLUICE_STREAM_LOG: {scheme}:// is none of memory://, lmdb:///folder, redis://… and rediss://…."
    )


def is_shared(url: str) -> bool:
    """Whether other machines read the same log."""
    return url.startswith("redis")
