"""Who may stop a stream of this worker, what stopping leaves behind, and what starts no more."""

import asyncio
import gc
import secrets
from collections.abc import AsyncIterator, Sequence
from time import monotonic

import pytest
import pytest_asyncio

from app.errors import Draining, Internal, LogUnavailable, ModelNotFound, NotFound
from app.events import Done, Failed, Token
from app.streams.account import Account
from app.streams.generation import Generation
from app.streams.live import LiveStream
from app.streams.log import START, STREAM_ID, Append, AppendResult, Cursor, StreamRecord, StreamState
from app.streams.memory_log import MemoryLog
from app.streams.reader import Reader
from tests.support.asgi import until
from tests.support.providers import DONE, FOREVER, REQUEST, Steps, tokens
from tests.support.worker import PRINCIPAL, Worker, worker


@pytest_asyncio.fixture
async def here() -> AsyncIterator[Worker]:
    async with worker() as here:
        yield here


class SlowLog(MemoryLog):
    """A log across a network: its commits take 50 ms."""

    def append_nowait(self, batch: Sequence[Append]) -> None:  # type: ignore[override]
        """It always needs waiting."""

    async def append(self, batch: Sequence[Append]) -> list[AppendResult]:
        await asyncio.sleep(0.05)
        return super().append_nowait(batch)


class FencingLog(SlowLog):
    """Its first answer is lost, though it has taken what was sent, and then the stream is another's."""

    def __init__(self) -> None:
        super().__init__()
        self.appends = 0

    async def append(self, batch: Sequence[Append]) -> list[AppendResult]:
        self.appends += 1
        if self.appends > 1:
            return ["fenced"] * len(batch)
        await super().append(batch)
        raise LogUnavailable("The answer was lost.")


def live(here: Worker, reader: Reader) -> LiveStream:
    return here.streams.live[reader.record.stream_id]


async def begun(here: Worker, provider: Steps) -> Reader:
    """A reader of a stream whose first token is there."""
    reader = await here.open(provider)
    await until(lambda: live(here, reader).tail.entries)
    return reader


async def test_names_of_streams_are_long_and_never_the_same(here: Worker) -> None:
    readers = [await here.open(Steps(DONE)) for _ in range(50)]
    names = {reader.record.stream_id for reader in readers}
    assert len(names) == 50
    assert all(STREAM_ID.fullmatch(name) for name in names)
    for reader in readers:
        await here.read(reader)


async def test_a_cancelled_stream_closes_its_upstream_at_once_and_says_so(here: Worker) -> None:
    provider = Steps(Token("a"), FOREVER)
    reader = await begun(here, provider)
    cancelled = monotonic()
    await here.streams.cancel(reader.record.stream_id, PRINCIPAL)
    *_, last = await here.read(reader)
    await until(lambda: provider.closed)
    assert provider.closed_at - cancelled < 1
    assert isinstance(last, Failed)
    assert (last.code, last.retryable) == ("cancelled", False)
    assert (await here.streams.status(reader.record.stream_id, PRINCIPAL)).state == "cancelled"


async def test_a_stream_that_is_cancelled_before_it_began_asks_no_upstream(here: Worker) -> None:
    provider = Steps(*tokens(3), DONE)
    reader = await here.open(provider)
    here.streams.cancel_here(live(here, reader))
    assert [type(event) for event in await here.read(reader)] == [Failed]
    assert provider.started == 0


async def test_a_finished_stream_cannot_be_cancelled(here: Worker) -> None:
    reader = await here.open(Steps(Token("a"), DONE))
    events = await here.read(reader)
    await here.streams.cancel(reader.record.stream_id, PRINCIPAL)
    assert isinstance(events[-1], Done)
    assert (await here.streams.status(reader.record.stream_id, PRINCIPAL)).state == "done"


async def test_nobody_cancels_or_reads_the_stream_of_another(here: Worker) -> None:
    reader = await begun(here, Steps(Token("a"), FOREVER))
    stream_id = reader.record.stream_id
    for attempt in (
        here.streams.cancel(stream_id, "somebody"),
        here.streams.status(stream_id, "somebody"),
        here.streams.attach(stream_id, "somebody", START),
        here.streams.attach("x" * 24, PRINCIPAL, START),
    ):
        with pytest.raises(NotFound):
            await attempt
    assert here.active == 1
    here.streams.detach(reader)


async def test_a_reader_gets_nothing_twice_on_the_connection_on_which_it_came_without_an_id() -> None:
    """It comes again with its id from the log, which another worker writes now: by that he has to come back."""
    async with worker(FencingLog()) as here:
        reader = await begun(here, Steps(Token("a"), FOREVER))
        tail = live(here, reader).tail
        assert [cursor for cursor, _ in await reader.take()] == [None]
        await until(lambda: tail.last == Cursor(0, 1))
        with pytest.raises(LogUnavailable):
            await reader.take()
        here.streams.detach(reader)


async def test_cancelling_twice_does_not_interrupt_the_cleaning_up() -> None:
    """The client leaves and the process stops: the second cancellation must not cut the closing of the upstream."""
    async with worker(SlowLog()) as here:
        provider = Steps(Token("a"), FOREVER, closing_seconds=0.1)
        reader = await begun(here, provider)
        stream = live(here, reader)
        for _ in range(3):
            here.streams.cancel_here(stream)
            await asyncio.sleep(0.01)
        await here.drain.finish()
        await here.read(reader)
        await until(lambda: provider.closed == 1)


async def test_the_last_reader_to_leave_decides_and_no_other(here: Worker) -> None:
    provider = Steps(Token("a"), FOREVER)
    first = await begun(here, provider)
    second = await here.streams.attach(first.record.stream_id, PRINCIPAL, START)
    here.streams.detach(first)
    await asyncio.sleep(0.05)
    assert provider.closed == 0
    here.streams.detach(second)
    await until(lambda: provider.closed)


async def test_a_reader_that_comes_back_in_its_grace_finds_the_stream_running(here: Worker) -> None:
    here.on_disconnect = "grace"
    go_on = asyncio.Event()
    reader = await begun(here, Steps(Token("a"), go_on, Token("b"), DONE))
    here.streams.detach(reader)
    await asyncio.sleep(0.05)
    again = await here.streams.attach(reader.record.stream_id, PRINCIPAL, START)
    await asyncio.sleep(0.3)  # past the grace of 0.2 s
    go_on.set()
    assert [type(event) for event in await here.read(again)] == [Token, Token, Done]


async def test_a_stream_that_nobody_comes_back_to_ends_after_its_grace(here: Worker) -> None:
    here.on_disconnect = "grace"
    provider = Steps(Token("a"), FOREVER)
    reader = await begun(here, provider)
    left = monotonic()
    here.streams.detach(reader)
    await until(lambda: provider.closed)
    assert 0.19 <= provider.closed_at - left < 1.2


async def test_a_stream_that_is_to_finish_does_so_without_readers(here: Worker) -> None:
    here.on_disconnect = "finish"
    go_on = asyncio.Event()
    reader = await begun(here, Steps(Token("a"), go_on, DONE))
    here.streams.detach(reader)
    await asyncio.sleep(0.05)
    go_on.set()
    await until(lambda: here.active == 0)
    assert (await here.streams.status(reader.record.stream_id, PRINCIPAL)).state == "done"


async def test_a_stream_that_comes_late_to_a_worker_that_stops_is_begun(here: Worker) -> None:
    """NGINX keeps connections to it: refused there, a client was sent away though other workers had room."""
    here.drain.begin()
    reader = await here.open(Steps(Token("a"), DONE))
    token, end = await here.read(reader)
    assert token == Token("a", index=1)
    assert type(end) is Done


async def test_nothing_starts_once_everything_was_let_go(here: Worker) -> None:
    here.drain.begin()
    await here.drain.finish()
    provider = Steps(DONE)
    with pytest.raises(Draining) as raised:
        await here.open(provider)
    assert (raised.value.status, raised.value.retry_after_seconds) == (503, 1)
    assert (here.active, provider.started) == (0, 0)


async def test_a_model_that_nobody_serves_starts_nothing(here: Worker) -> None:
    def none(_model: str) -> object:
        raise ModelNotFound("There is no such model.")

    here.routes.clear()
    here.streams._maker = none  # type: ignore[assignment]
    with pytest.raises(ModelNotFound):
        await here.open(Steps(DONE))
    assert here.streams.live == {}


async def test_the_garbage_collector_takes_no_running_stream(here: Worker) -> None:
    """The event loop references tasks weakly: without a registry they vanish, and their streams with them."""
    here.on_disconnect = "finish"
    names = []
    for _ in range(5):
        reader = await here.open(Steps(*[step for token in tokens(5) for step in (token, 0.005)], DONE))
        names.append(reader.record.stream_id)
        here.streams.detach(reader)
    del reader
    while here.active:
        gc.collect()
        await asyncio.sleep(0.002)
    assert [(await here.streams.status(name, PRINCIPAL)).state for name in names] == ["done"] * 5


async def test_a_stream_is_forgotten_here_when_it_has_ended_and_is_read(here: Worker) -> None:
    names = set()
    for reader in [await here.open(Steps(*tokens(2), DONE)) for _ in range(10)]:
        names.add(reader.record.stream_id)
        await here.read(reader)
    reader = await here.open(Steps(*tokens(2), DONE))  # the committer still knows what it committed last
    await here.read(reader)
    assert (here.active, here.streams.live) == (0, {})
    del reader
    await asyncio.sleep(0.01)
    gc.collect()
    kept = [thing for thing in gc.get_objects() if isinstance(thing, Generation | LiveStream)]
    assert not [thing for thing in kept if thing.record.stream_id in names]


class Elsewhere:
    """A stream that another worker produces, read here."""

    def __init__(self, here: Worker) -> None:
        self.streams = here.streams
        self.stream_id = secrets.token_urlsafe(18)

    async def begin(self) -> None:
        record = StreamRecord(self.stream_id, PRINCIPAL, "native", REQUEST, "grace", 1.0, 1_790_000_000)
        await self.streams.backend.beat("elsewhere")
        await self.streams.backend.create(record, "elsewhere")

    async def end(self) -> None:
        await self.streams.backend.append([Append(self.stream_id, 1, Cursor(0, 1), [Token("a", index=1), DONE])])

    async def attach(self) -> Reader:
        return await self.streams.attach(self.stream_id, PRINCIPAL, START)


async def test_whoever_comes_while_the_follower_leaves_has_one_of_his_own(here: Worker) -> None:
    """The follower had looked for the last time and was not gone yet: nobody filled the tail of whoever came then, and
    he got heartbeats until the end of his connection."""
    stream, late = Elsewhere(here), []
    await stream.begin()
    real = here.streams.follow

    async def leave(_: LiveStream) -> None:
        here.streams.follow = real
        late.append(await stream.attach())

    here.streams.follow = leave
    first = await stream.attach()
    await until(lambda: late)
    here.streams.detach(first)
    await stream.end()
    assert await asyncio.wait_for(here.read(late[0]), 5) == [Token("a", index=1), DONE]


async def test_readers_of_a_follower_that_fails_are_told(here: Worker) -> None:
    stream = Elsewhere(here)
    await stream.begin()

    async def fail(_: LiveStream) -> None:
        raise RuntimeError("a defect")

    here.streams.follow = fail
    reader = await stream.attach()
    await until(lambda: live(here, reader).tail.broken)
    with pytest.raises(Internal):
        await reader.take()
    here.streams.detach(reader)
    await until(lambda: not here.streams.live)


class GatedLog(MemoryLog):
    """The first who asks for a description gets it when the gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self._asked = 0

    async def describe(self, stream_id: str) -> tuple[StreamRecord, StreamState] | None:
        self._asked += 1
        if self._asked == 1:
            await self.gate.wait()
        return await super().describe(stream_id)


async def test_an_end_that_is_heard_of_while_another_reader_comes_is_not_passed_over() -> None:
    """The end was put behind the tail of the other reader, which was one event short of it: whoever came back with the
    id of that event was told by 204 that he had everything."""
    log = GatedLog()
    async with worker(log) as here:
        stream = Elsewhere(here)
        await stream.begin()
        await log.append([Append(stream.stream_id, 1, Cursor(0, 1), [Token("a", index=1)])])
        follow, hold = here.streams.follow, asyncio.Event()

        async def held(found: LiveStream) -> None:
            await hold.wait()
            assert follow is not None
            await follow(found)

        here.streams.follow = held
        late = asyncio.create_task(here.streams.attach(stream.stream_id, PRINCIPAL, Cursor(0, 1)))
        await asyncio.sleep(0)
        first = await stream.attach()
        await log.append([Append(stream.stream_id, 1, Cursor(0, 2), [DONE])])
        log.gate.set()
        reader = await late
        assert not reader.past_end
        hold.set()
        assert await asyncio.wait_for(here.read(reader), 5) == [DONE]
        assert await asyncio.wait_for(here.read(first), 5) == [Token("a", index=1), DONE]


async def test_a_stream_that_is_cancelled_before_it_took_a_step_is_accounted_for(here: Worker) -> None:
    """What was taken of its caller's limits stayed taken until the slot lapsed, and the tokens for the minute."""
    told: list[Account] = []
    here.streams.accounts.append(told.append)
    provider = Steps(*tokens(2), FOREVER)
    reader = await here.open(provider)
    await here.streams.cancel(reader.record.stream_id, PRINCIPAL)
    await until(lambda: told != [])
    assert [account.outcome for account in told] == ["cancelled"]
    here.streams.detach(reader)
