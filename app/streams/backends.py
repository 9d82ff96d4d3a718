"""Chooses the stream log that a URL names."""

from app.errors import LogUnavailable
from app.streams.log import Backend
from app.streams.memory_log import MemoryLog


async def open_backend(
    url: str, bytes_max: int, stream_bytes_max: int, ttl_seconds: float, lease_seconds: float
) -> Backend:
    """The log behind `url`, ready to be used.

    Args:
        url: memory://, lmdb:///folder, redis://…, rediss://….
        bytes_max: size of a store that is this machine's.
        stream_bytes_max, ttl_seconds, lease_seconds: see the backends.

    Raises:
        LogUnavailable: it cannot be opened; the message says why.
    """
    scheme = url.partition(":")[0]
    if scheme == "memory":
        return MemoryLog(bytes_max, stream_bytes_max, ttl_seconds, lease_seconds)
    raise LogUnavailable(f"SLUICE_STREAM_LOG: {scheme!r} is none of memory, lmdb, redis and rediss.")


def is_shared(url: str) -> bool:
    """Whether other machines read the same log."""
    return url.startswith("redis")
