"""The contract's fixtures: a log of each backend, and more handles on the same store."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests.contract.logs import ALL, Log, Options, Place, open_log

Open = Callable[[Options], Awaitable[Log]]


@pytest.fixture(params=ALL)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(request.param, tmp_path)


@pytest.fixture
async def opened(place: Place) -> AsyncIterator[Open]:
    """Opens the test's log; closed after it."""
    logs: list[Log] = []

    async def open_one(options: Options) -> Log:
        logs.append(await open_log(place.address, options))
        return logs[-1]

    yield open_one
    for log in logs:
        await log.aclose()


@pytest.fixture
async def log(opened: Open) -> Log:
    return await opened(Options())
