"""One redis-server for all tests of limits; each begins with an empty one."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.limits.counters import Counters
from tests.support.redis import RedisServer
from tests.unit.limits.stores import ALL, opened


@pytest.fixture(params=ALL)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Counters]:
    url = ""
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis")
        server.ask("FLUSHALL")
        url = server.url
    async with opened(request.param, tmp_path, url) as store:
        yield store
