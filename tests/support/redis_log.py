"""A log on Redis for tests that break Redis under it."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from app.streams.redis.log import RedisLog


@contextlib.asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[RedisLog]:
    """Open, and closed in the end."""
    log = await RedisLog(url, **options).open()
    try:
        yield log
    finally:
        await log.aclose()
