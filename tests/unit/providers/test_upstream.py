"""The pool of connections to an upstream: reuse, bounds, names, and what a cancelled request leaves behind."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager

import pytest

from app.errors import UpstreamError, UpstreamUnreachable
from app.providers.openai import OpenAIProvider
from tests.support.upstream import ScriptedUpstream
from tests.unit.providers.conftest import Provide
from tests.unit.providers.drive import asked, closed, collect


async def test_a_whole_answer_gives_its_connection_back(upstream: ScriptedUpstream, provide: Provide) -> None:
    provider = provide()
    for _ in range(5):
        assert (await collect(provider, "reused")).done is not None
    assert len({entry.connection for entry in upstream.requests("reused")[-5:]}) == 1


async def test_an_error_answer_gives_its_connection_back(upstream: ScriptedUpstream, provide: Provide) -> None:
    upstream.script("reused-error", status=429)
    provider = provide()
    for _ in range(3):
        await collect(provider, "reused-error")
    assert len({entry.connection for entry in upstream.requests("reused-error")[-3:]}) == 1


async def test_an_end_that_comes_a_moment_late_gives_its_connection_back(
    upstream: ScriptedUpstream, provide: Provide
) -> None:
    upstream.script("late-end", eof_delay_seconds=0.01)
    provider = provide()
    for _ in range(3):
        await collect(provider, "late-end")
    assert len({entry.connection for entry in upstream.requests("late-end")[-3:]}) == 1


async def test_an_end_that_does_not_come_is_not_waited_for(upstream: ScriptedUpstream, provide: Provide) -> None:
    upstream.script("no-end", eof_delay_seconds=60, tokens=1)
    outcome = await collect(provide(), "no-end")
    assert outcome.done is not None
    assert outcome.seconds < 1
    await closed(upstream, "no-end")


async def test_half_an_answer_never_gives_its_connection_back(upstream: ScriptedUpstream, provide: Provide) -> None:
    """Its rest would be read as the answer to the next request."""
    upstream.script("half", tokens=50, delay_seconds=0.02)
    provider = provide(concurrency_max=1)
    for _ in range(3):
        async with aclosing(provider.generate(asked("half"))) as events:
            await anext(events)
    outcome = await collect(provider, "half")
    assert len(outcome.tokens) == 50
    assert len({entry.connection for entry in upstream.requests("half")[-4:]}) == 4


async def test_closing_the_provider_closes_its_connections(upstream: ScriptedUpstream) -> None:
    provider = OpenAIProvider(base_url=upstream.base_url)
    before = upstream.log().open
    await collect(provider, "pooled")
    assert upstream.log().open == before + 1
    await provider.aclose()
    await asyncio.sleep(0.1)
    assert upstream.log().open == before


def test_a_provider_can_be_made_and_closed_without_an_event_loop_around(upstream: ScriptedUpstream) -> None:
    provider = OpenAIProvider(base_url=upstream.base_url)

    async def use() -> None:
        assert (await collect(provider, "anywhere")).done is not None
        await provider.aclose()

    asyncio.run(use())
    asyncio.run(use())


async def test_proxies_of_the_environment_are_not_used(
    upstream: ScriptedUpstream, provide: Provide, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert (await collect(provide(), "no-proxy")).done is not None


async def test_a_refused_connection_is_unreachable_at_once(provide: Provide) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        outcome = await collect(provide(base_url=f"http://127.0.0.1:{unused.getsockname()[1]}/v1"), "any")
    assert isinstance(outcome.error, UpstreamUnreachable)
    assert outcome.seconds < 2


async def test_a_name_that_does_not_exist_is_unreachable(provide: Provide) -> None:
    outcome = await collect(provide(base_url="http://canary.invalid/v1", connect_seconds=2), "any")
    assert isinstance(outcome.error, UpstreamUnreachable)
    assert outcome.seconds < 5
    assert "canary" not in repr(outcome.error.as_event())


async def test_plain_http_where_tls_is_expected_is_unreachable(upstream: ScriptedUpstream, provide: Provide) -> None:
    outcome = await collect(provide(base_url=f"https://127.0.0.1:{upstream.port}/v1", connect_seconds=1), "any")
    assert isinstance(outcome.error, UpstreamUnreachable)


async def test_names_resolve_while_the_default_executor_is_full(upstream: ScriptedUpstream, provide: Provide) -> None:
    """The loop's own resolver waits for a free thread there, and took other work's slowness for failing names."""
    loop = asyncio.get_running_loop()
    executor = ThreadPoolExecutor(2)
    loop.set_default_executor(executor)
    sleepers = [loop.run_in_executor(None, time.sleep, 1.5) for _ in range(6)]
    try:
        outcome = await collect(provide(base_url=f"http://localhost:{upstream.port}/v1", connect_seconds=2), "dns")
        assert not sleepers[-1].done()
        assert outcome.done is not None
    finally:
        for sleeper in sleepers:
            sleeper.cancel()
        executor.shutdown(wait=False, cancel_futures=True)


async def test_waiting_for_a_free_connection_ends_at_the_connect_deadline(
    upstream: ScriptedUpstream, provide: Provide
) -> None:
    upstream.script("holds", stall_after=1)
    provider = provide(concurrency_max=1, connect_seconds=0.5)
    async with aclosing(provider.generate(asked("holds"))) as first:
        await anext(first)
        outcome = await collect(provider, "waits")
        assert isinstance(outcome.error, UpstreamUnreachable)
        assert 0.45 < outcome.seconds < 3
    assert (await collect(provider, "waits")).done is not None


async def test_waiting_for_a_connection_does_not_count_as_waiting_for_a_token(
    upstream: ScriptedUpstream, provide: Provide
) -> None:
    upstream.script("holds-long", tokens=2, delay_seconds=0.8)
    provider = provide(concurrency_max=1, connect_seconds=10, first_token_seconds=0.6)
    first = asyncio.create_task(collect(provider, "holds-long"))
    await asyncio.sleep(0.1)
    upstream.script("queued", first_delay_seconds=0.3)
    outcome = await collect(provider, "queued")
    assert outcome.error is None
    assert (await first).error is None


@asynccontextmanager
async def backlog_full() -> AsyncIterator[socket.socket]:
    """A listener that takes no more connections: a SYN is dropped, so connecting hangs as over a black hole."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
            fillers.append(filler)
        await asyncio.sleep(0.05)
        try:
            yield listener
        finally:
            for filler in fillers:
                filler.close()


async def test_a_connection_that_is_not_accepted_is_unreachable_at_its_deadline(provide: Provide) -> None:
    async with backlog_full() as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        outcome = await collect(provide(base_url=url, connect_seconds=0.5), "any")
    assert isinstance(outcome.error, UpstreamUnreachable)
    assert 0.45 < outcome.seconds < 3


async def test_requests_cancelled_while_they_connect_leave_the_pool_free(
    upstream: ScriptedUpstream, provide: Provide
) -> None:
    async with backlog_full() as listener:
        port = listener.getsockname()[1]
        provider = provide(base_url=f"http://127.0.0.1:{port}/v1", concurrency_max=2, connect_seconds=10)
        await cancel_twenty(provider, "any")
    # The same address, now with something behind it: what follows uses the same two places in the pool.
    async with relay(port, upstream.port):
        outcome = await collect(provider, "after-connect")
    assert outcome.done is not None
    assert outcome.seconds < 5


async def test_requests_cancelled_before_the_headers_leave_the_pool_free(
    upstream: ScriptedUpstream, provide: Provide
) -> None:
    upstream.script("slow-headers", headers_delay_seconds=60)
    provider = provide(concurrency_max=2, connect_seconds=10)
    await cancel_twenty(provider, "slow-headers")
    outcome = await collect(provider, "after-headers")
    assert outcome.done is not None
    assert outcome.seconds < 2
    await closed(upstream, "slow-headers")


async def cancel_twenty(provider: OpenAIProvider, model: str) -> None:
    """Twenty requests at once, cancelled one after the other: those with a connection and those in wait of one. Each
    second one is cancelled again while it cleans up."""
    tasks = [asyncio.create_task(collect(provider, model)) for _ in range(20)]
    await asyncio.sleep(0.2)
    for number, task in enumerate(tasks):
        task.cancel()
        if number % 2:
            await asyncio.sleep(0)
            task.cancel()
        await asyncio.sleep(0.01)
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(result, asyncio.CancelledError)


@asynccontextmanager
async def relay(port: int, to: int) -> AsyncIterator[None]:
    """Passes the bytes of connections to `port` on to the port `to`."""

    writers: list[asyncio.StreamWriter] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        while data := await reader.read(65_536):
            writer.write(data)
        writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", to)
        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer), return_exceptions=True)

    server = await asyncio.start_server(accept, "127.0.0.1", port)
    try:
        yield
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0.05)


async def test_every_failure_to_connect_is_an_upstream_error(provide: Provide) -> None:
    for url in ("http://127.0.0.1:1/v1", "http://[::1]:1/v1", "http://256.1.1.1/v1", "ftp://127.0.0.1/v1"):
        error = (await collect(provide(base_url=url, connect_seconds=2), "any")).error
        assert isinstance(error, UpstreamError), url
