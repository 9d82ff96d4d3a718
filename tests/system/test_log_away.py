"""The log away under the whole chain: Redis hung, restarted, emptied, full, evicting and failed over, mid-stream."""

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest

from tests.support.call import Call, ask
from tests.support.chain import Chain
from tests.support.crowd import body, check_beginnings, check_texts, crowd
from tests.support.journal import check_wrongs
from tests.support.log_lines import wrong_lines
from tests.support.redis import RedisServer, SentinelGroup
from tests.support.resuming_client import ResumingClient
from tests.support.surfaces import NATIVE, OPENAI
from tests.support.workers import log_works, until

STREAMS = 20
AWAY_SECONDS = 3.0
# The promise is 2 s; the third is a busy machine's.
BACK_SECONDS_MAX = 3.0
# A command's time, once more to connect, and a retry of NGINX.
REFUSED_SECONDS_MAX = 2.0
# Half a second until the master counts as down, an election, and our own second between two tries.
FAILOVER_SECONDS_MAX = 15.0
ENV = {"SLUICE_HEARTBEAT_SECONDS": "1"}
QUESTION = {"prompt": "Are you there?", "stream": True, "simulator": {"tokens": 5, "tokens_per_second": 50}}


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """Keeps what it was given when it is killed, as a log's server should."""
    with RedisServer(appendonly="yes", appendfsync="always") as server:
        yield server


@pytest.fixture(scope="module")
def chain(redis: RedisServer) -> Iterator[Chain]:
    with Chain(ENV | {"SLUICE_STREAM_LOG": redis.url}, workers=2) as running:
        yield running
        assert list(wrong_lines(running.log)) == []


@pytest.fixture(autouse=True)
def working(chain: Chain, redis: RedisServer) -> None:
    """Whatever became of it in the test before."""
    if redis.process is None:
        redis.start()
    redis.cont()
    redis.ask("CONFIG", "SET", "maxmemory", 0)
    until(lambda: log_works(chain), BACK_SECONDS_MAX, "the log works")


@asynccontextmanager
async def reading(chain: Chain, seconds: float, **options: object) -> AsyncIterator[list[ResumingClient]]:
    """Clients whose streams last for about so long."""
    bodies = [body(n, tokens=int(10 * seconds), tokens_per_second=10, jitter=0.5) for n in range(STREAMS)]
    async with crowd(chain.url, bodies, heartbeat_seconds=1.0, **options) as clients:
        yield clients


def check_refused(chain: Chain, code: str) -> None:
    """New streams get a 503 that says when to come again; probes are answered as ever."""
    for surface in (NATIVE, OPENAI):
        began = time.monotonic()
        refused = ask(chain.url, surface.path, surface.body("simulator"))
        assert time.monotonic() - began < REFUSED_SECONDS_MAX
        assert (refused.status, refused.json["error"]["code"]) == (503, code)
        assert int(refused.headers["retry-after"]) >= 1
    assert [ask(chain.url, path).status for path in ("/livez", "/readyz", "/health")] == [200] * 3


async def until_it_works(chain: Chain, seconds: float) -> None:
    await asyncio.to_thread(until, lambda: log_works(chain), seconds, "the log works again")


async def tokens_flow(clients: list[ResumingClient], count: int) -> None:
    """Until each has got so many more."""
    before = [len(client.journal.tokens) for client in clients]
    async with asyncio.timeout(10.0):
        while not all(  # noqa: ASYNC110 - ten journals, each filled by a task of its own
            len(client.journal.tokens) >= had + count or client.journal.end
            for client, had in zip(clients, before, strict=True)
        ):
            await asyncio.sleep(0.05)


async def probed(chain: Chain) -> None:
    """Readiness does not flap: what all workers have in common takes none of them out of service."""
    while True:
        assert (await asyncio.to_thread(ask, chain.url, "/readyz")).status == 200
        await asyncio.sleep(0.1)


@pytest.mark.parametrize("how", ["hung", "killed"])
async def test_streams_go_on_without_the_log_and_nothing_is_missing_in_it(
    chain: Chain, redis: RedisServer, how: str
) -> None:
    """Their readers are told, and told again when it is back; later all of it can be read by its ids."""
    away, back = (redis.stop, redis.cont) if how == "hung" else (redis.kill, redis.start)
    async with reading(chain, AWAY_SECONDS + 5) as clients:
        probes = asyncio.create_task(probed(chain))
        away()
        await tokens_flow(clients, 8)
        await asyncio.to_thread(check_refused, chain, "log_unavailable")
        assert ask(chain.url, "/health").json["checks"]["stream_log"] == "unavailable"
        await asyncio.sleep(AWAY_SECONDS - 2)
        back()  # in this thread: a process that another one starts ends with that
        await until_it_works(chain, BACK_SECONDS_MAX)
        probes.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await probes
    await check_texts(chain.url, clients)
    for client in clients:
        assert client.journal.notices == [False, True]
        assert client.journal.connections == 1
        assert client.journal.without_id > 5
        again = await asyncio.to_thread(ask, chain.url, f"/api/v1/streams/{client.journal.stream_id}")
        assert again.text == client.journal.text
        assert [frame.id.rpartition(".")[2] for frame in again.frames] == [
            str(number) for number in range(1, len(again.frames) + 1)
        ]


async def test_connections_that_are_cut_while_the_log_is_away_find_everything_when_it_is_back(
    chain: Chain, redis: RedisServer
) -> None:
    async with reading(chain, AWAY_SECONDS + 5) as clients:
        redis.stop()
        await tokens_flow(clients, 8)
        for client in clients:
            client.cuts = lambda _journal, client=client: _once(client)  # type: ignore[misc]
        await tokens_flow(clients, 1)
        await asyncio.sleep(AWAY_SECONDS - 1.5)
        redis.cont()
    await check_texts(chain.url, clients)
    assert all(client.journal.waits["cut by the client"] == 1 for client in clients)


def _once(client: ResumingClient) -> bool:
    client.cuts = lambda _journal: False
    return True


async def test_streams_whose_log_was_lost_say_so(chain: Chain, redis: RedisServer) -> None:
    """No id is given out twice, and nobody waits for ever."""
    async with reading(chain, 30, seconds_max=25) as clients:
        redis.ask("FLUSHALL")
        await until_it_works(chain, BACK_SECONDS_MAX)
    ends = outcomes(clients)
    assert set(ends) <= {"not_found", "cursor_gone"}, ends
    await check_beginnings(chain.url, clients)


def outcomes(clients: list[ResumingClient]) -> Counter[str]:
    """How the streams ended for their clients: `done`, an error's code, or the status that sent them away for good."""
    found: Counter[str] = Counter()
    for client in clients:
        journal = client.journal
        if journal.end is not None:
            found["done" if journal.end_event == "done" else journal.end["code"]] += 1
        else:
            found[journal.wrongs[-1][:12]] += 1
    return found


async def test_a_full_redis_ends_streams_with_an_error_and_refuses_new_ones(chain: Chain, redis: RedisServer) -> None:
    async with reading(chain, 30) as clients:
        used = int(redis.info("memory").partition("used_memory:")[2].partition("\n")[0])
        redis.ask("CONFIG", "SET", "maxmemory", used // 2)
        await asyncio.to_thread(until, lambda: all(c.journal.end for c in clients), 10, "they have ended")
        await asyncio.to_thread(check_refused, chain, "log_full")
        redis.ask("CONFIG", "SET", "maxmemory", 0)
        await until_it_works(chain, BACK_SECONDS_MAX)
    assert outcomes(clients) == {"limit_exceeded": STREAMS}
    for client in clients:
        check_wrongs(client.journal.wrongs)
    await check_beginnings(chain.url, clients)
    for client in clients:
        assert ask(chain.url, f"/api/v1/streams/{client.journal.stream_id}").frames[-1].event == "error"


async def test_an_evicting_redis_leaves_each_stream_whole_or_ended_with_an_error(
    chain: Chain, redis: RedisServer
) -> None:
    redis.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-random")
    async with reading(chain, 6, seconds_max=30, cuts=_sometimes()) as clients:
        used = int(redis.info("memory").partition("used_memory:")[2].partition("\n")[0])
        redis.ask("CONFIG", "SET", "maxmemory", used - 30_000)
        await tokens_flow(clients, 20)
        redis.ask("CONFIG", "SET", "maxmemory", 0)
        redis.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
        await until_it_works(chain, BACK_SECONDS_MAX)
    ends = outcomes(clients)
    assert set(ends) <= {"done", "not_found", "cursor_gone", "producer_lost", "limit_exceeded", "refused: 404"}, ends
    await check_beginnings(chain.url, clients)


def _sometimes() -> Callable[[object], bool]:
    rng = random.Random(7)
    return lambda _journal: rng.random() < 0.02


@pytest.mark.slow
async def test_streams_survive_a_failover() -> None:
    with SentinelGroup() as group, Chain(ENV | {"SLUICE_STREAM_LOG": group.url}, workers=2) as chain:
        async with reading(chain, 9) as clients:
            group.master.ask("WAIT", 1, 5000)
            group.master.kill()
            await tokens_flow(clients, 5)
            await until_it_works(chain, FAILOVER_SECONDS_MAX)
        ends = outcomes(clients)
        # What the replica had not got is lost, and said: to whose stream that happened.
        assert set(ends) <= {"done", "cursor_gone", "not_found"}, ends
        await check_beginnings(chain.url, clients)
        assert list(wrong_lines(chain.log)) == []


def test_without_its_log_a_degrading_instance_begins_streams_that_cannot_be_resumed(redis: RedisServer) -> None:
    env = ENV | {"SLUICE_STREAM_LOG": redis.url, "SLUICE_WITHOUT_LOG": "degrade"}
    with Chain(env, workers=2) as chain:
        expected = ask(chain.url, NATIVE.path, QUESTION).text
        redis.stop()
        for surface in (NATIVE, OPENAI):
            simulator = QUESTION["simulator"]
            answer = ask(chain.url, surface.path, surface.body("simulator", simulator=simulator))
            assert answer.verdict == "complete"
            batch = ask(chain.url, surface.path, surface.body("simulator", simulator=simulator, stream=False))
            assert batch.status == 200
        answer = ask(chain.url, NATIVE.path, QUESTION)
        assert answer.text == expected
        assert answer.frames[0].event == "notice"
        assert answer.frames[0].json() == {"resumable": False}
        assert not any(frame.id for frame in answer.frames)
        with Call(chain.url, NATIVE.path, QUESTION | {"simulator": {"tokens": 30, "tokens_per_second": 10}}) as lasting:
            lasting.until(5)
            redis.cont()
            until(lambda: log_works(chain), BACK_SECONDS_MAX, "the log works again")
            assert lasting.finish().verdict == "complete"
        # It began without the log, and the log never knows of it.
        assert not any(frame.id for frame in lasting.frames)
        assert ask(chain.url, f"/api/v1/streams/{lasting.headers['x-stream-id']}").status == 404


def test_without_redis_an_instance_does_not_start_and_says_why(redis: RedisServer) -> None:
    redis.kill()
    with Chain({"SLUICE_STREAM_LOG": redis.url}, expect_ready=False) as chain:
        assert chain.process.wait(30) != 0
        assert "cannot open the stream log" in chain.log
        assert f"{redis.url}: Error 111" in chain.log
