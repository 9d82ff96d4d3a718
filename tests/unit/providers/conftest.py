"""The scripted upstream for all tests of providers, and providers that are closed after each."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import pytest_asyncio
import uvloop

from app.providers.openai import OpenAIProvider
from tests.support.upstream import ScriptedUpstream

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, LoopFactory]:
    """Both loops: uvloop runs in production, and asyncio's orders timers and reads the other way round."""
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


@pytest.fixture(scope="session")
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as process:
        yield process


Provide = Callable[..., OpenAIProvider]


@pytest_asyncio.fixture
async def provide(upstream: ScriptedUpstream) -> AsyncIterator[Provide]:
    """Makes providers for the scripted upstream, unless other arguments are given."""
    made = []

    def make(**arguments: Any) -> OpenAIProvider:
        made.append(OpenAIProvider(**{"base_url": upstream.base_url, **arguments}))
        return made[-1]

    yield make
    for provider in made:
        await provider.aclose()
