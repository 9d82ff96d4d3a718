"""What all streams of a worker have in common, and what the trouble of one must not do to the others."""

import asyncio
from collections.abc import Sequence

import pytest

from app.errors import LogUnavailable
from app.events import Done, Event, Failed, Reset, Token, Usage
from app.streams.committer import Committer
from app.streams.generation import Generation
from app.streams.log import START, Append, AppendResult, Cursor, StreamRecord
from app.streams.memory_log import MemoryLog
from app.streams.tail import Tail
from tests.support.asgi import until
from tests.support.providers import REQUEST

DONE = Done("stop", Usage(1, 1))


class Away(MemoryLog):
    """A log across a network that has gone away."""

    away = True

    def append_nowait(self, batch: Sequence[Append]) -> None:  # type: ignore[override]
        """It always needs waiting."""

    async def append(self, batch: Sequence[Append]) -> list[AppendResult]:
        await asyncio.sleep(0.01)
        if self.away:
            raise LogUnavailable("The log is away.")
        return super().append_nowait(batch)


async def generation(log: MemoryLog, name: str) -> Generation:
    """A stream that this worker owns."""
    record = StreamRecord(name * 24, "anonymous", "native", REQUEST, "cancel", 0.0, 1_790_000_000)
    await log.create(record, "worker-1")
    return Generation(record, Tail(START), 1, on_over=lambda _: None)


def told(stream: Generation) -> list[Event]:
    """What its readers have."""
    return [event for _, event in stream.tail.entries]


async def test_what_all_streams_say_in_one_turn_is_one_commit() -> None:
    batches: list[int] = []

    class Counting(MemoryLog):
        def append_nowait(self, batch: Sequence[Append]) -> list[AppendResult]:
            batches.append(len(batch))
            return super().append_nowait(batch)

    log = Counting()
    committer = Committer(log)
    streams = [await generation(log, name) for name in "abc"]
    for stream in streams:
        committer.add(stream, Token("1"))
        committer.add(stream, Token("2"))
    assert [told(stream) for stream in streams] == [[], [], []]
    await committer.flush()
    assert batches == [3]
    for stream in streams:
        assert told(stream) == [Token("1", index=1), Token("2", index=2)]
        assert [cursor for cursor, _ in stream.tail.entries] == [Cursor(0, 1), Cursor(0, 2)]


@pytest.mark.parametrize("log", [MemoryLog(), Away()], ids=["log", "log away"])
async def test_a_stream_that_was_lost_meanwhile_takes_nothing_from_the_others(log: MemoryLog) -> None:
    """It has nothing to commit any more, and an empty delivery would end the commit of all."""
    committer = Committer(log)
    lost, kept = await generation(log, "a"), await generation(log, "b")
    committer.add(lost, Token("1"))
    lost.lose()
    committer.add(kept, Token("1"))
    await committer.flush()
    assert told(lost) == []
    assert told(kept) == [Token("1", index=1)]
    committer.add(kept, DONE)
    await until(lambda: kept.tail.ended)
    if isinstance(log, Away):
        log.away = False
    await until(lambda: committer.available)


@pytest.mark.parametrize("log", [MemoryLog(), Away()], ids=["log", "log away"])
async def test_a_reader_whose_waking_fails_takes_nothing_from_the_others(log: MemoryLog) -> None:
    committer = Committer(log)
    first, second = await generation(log, "a"), await generation(log, "b")
    woken: list[int] = []

    def stumble(_entries: object, _first: int) -> None:
        raise RuntimeError("no")

    first.tail.follow(stumble)
    first.tail.follow(lambda _entries, _first: woken.append(1))
    for _ in range(2):
        committer.add(first, Token("1"))
        committer.add(second, Token("1"))
        await asyncio.wait_for(committer.flush(), 5)
    assert woken == [1, 1]
    assert len(told(first)) == len(told(second)) == 2
    if isinstance(log, Away):
        log.away = False
    await until(lambda: committer.available)


async def test_a_stream_that_the_log_does_not_know_takes_nothing_from_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = MemoryLog()
    committer = Committer(log)
    before, unknown, behind = [await generation(log, name) for name in "abc"]
    unknown.fence = 0
    deliver = unknown.deliver_unlogged

    def stumble(_events: Sequence[Event]) -> None:
        monkeypatch.setattr(unknown, "deliver_unlogged", deliver)
        raise RuntimeError("no")

    monkeypatch.setattr(unknown, "deliver_unlogged", stumble)
    for text in "12":
        for stream in (before, unknown, behind):
            committer.add(stream, Token(text))
        await asyncio.wait_for(committer.flush(), 5)
    for stream in (before, behind):
        assert [event.text for event in told(stream) if type(event) is Token] == ["1", "2"]


class PartlyAway(Away):
    """A log of several servers, of which one is away: that of the streams named `a`."""

    async def append(self, batch: Sequence[Append]) -> list[AppendResult]:
        there = [append for append in batch if not (self.away and append.stream_id.startswith("a"))]
        results = dict(zip((append.stream_id for append in there), super(Away, self).append_nowait(there), strict=True))
        return [results.get(append.stream_id, "unavailable") for append in batch]


async def test_a_lost_server_of_several_takes_the_ids_of_its_own_streams_and_of_no_others() -> None:
    log = PartlyAway()
    committer = Committer(log)
    lost, kept = await generation(log, "a"), await generation(log, "b")
    for number in range(1, 4):
        committer.add(lost, Token(f"{number}"))
        committer.add(kept, Token(f"{number}"))
        await committer.flush()
    assert [cursor for cursor, _ in kept.tail.entries] == [Cursor(0, 1), Cursor(0, 2), Cursor(0, 3)]
    assert [cursor for cursor, _ in lost.tail.entries] == [None, None, None]
    assert committer.available
    assert (committer.logs(lost), committer.logs(kept)) == (False, True)
    log.away = False
    await until(lambda: committer.logs(lost))
    committer.add(lost, DONE)
    await committer.flush()
    assert await log.read("a" * 24, START, 10) == [(Cursor(0, n), Token(f"{n}", index=n)) for n in (1, 2, 3)] + [
        (Cursor(0, 4), DONE)
    ]
    assert [cursor for cursor, _ in lost.tail.entries] == [Cursor(0, number) for number in range(1, 5)]


async def test_while_the_log_is_away_readers_get_events_without_ids_and_then_with() -> None:
    log = Away()
    committer = Committer(log)
    stream = await generation(log, "a")
    committer.add(stream, Token("1"))
    await until(lambda: told(stream))
    assert stream.tail.entries[0][0] is None
    assert not committer.available
    log.away = False
    await until(lambda: committer.available)
    assert [cursor for cursor, _ in stream.tail.entries] == [Cursor(0, 1)]
    assert await log.read("a" * 24, START, 10) == [(Cursor(0, 1), Token("1", index=1))]


@pytest.mark.parametrize("log", [MemoryLog, Away])
async def test_a_reset_opens_the_next_epoch_whatever_is_said_in_the_same_turn(log: type[MemoryLog]) -> None:
    """An answer may begin again, and once more, before anything of it was committed. Numbers begin anew."""
    there = log()
    if isinstance(there, Away):
        there.away = False
    committer = Committer(there)
    stream = await generation(there, "a")
    said: list[Event] = [Token("1"), Token("2"), Reset("x"), Token("3"), Reset("y"), Reset("z"), Token("4"), DONE]
    for event in said:
        committer.add(stream, event)
    await committer.flush()
    found = await there.read(stream.record.stream_id, START, 100)
    assert [tuple(cursor) for cursor, _ in found] == [
        (0, 1), (0, 2), (1, 0), (1, 1), (2, 0), (3, 0), (3, 1), (3, 2),
    ]  # fmt: skip
    events = [event for _, event in found]
    assert events == told(stream)
    assert [event.index for event in events if isinstance(event, Token)] == [1, 2, 1, 1]


async def test_resets_while_the_log_is_away_are_kept_for_its_return_under_their_own_cursors() -> None:
    log = Away()
    committer = Committer(log)
    stream = await generation(log, "a")
    said: list[Event] = [Token("1"), Reset("x"), Token("2")]
    for event in said:
        committer.add(stream, event)
        await committer.flush()
    assert told(stream) == [Token("1", index=1), Reset("x"), Token("2", index=1)]
    log.away = False
    committer.add(stream, DONE)
    await until(lambda: committer.logs(stream))
    await committer.flush()
    found = await log.read(stream.record.stream_id, START, 100)
    assert [tuple(cursor) for cursor, _ in found] == [(0, 1), (1, 0), (1, 1), (1, 2)]
    await committer.aclose()


async def test_a_log_that_comes_back_without_room_ends_the_stream_and_says_so() -> None:
    """It was given up as if another worker had it: nobody produced it, and its readers got heartbeats for ever."""

    class Full(Away):
        async def append(self, batch: Sequence[Append]) -> list[AppendResult]:
            await super().append([])
            ends = [type(each.events[-1]) is Failed for each in batch]
            return [self._kept(each) if end else "full" for each, end in zip(batch, ends, strict=True)]

        def _kept(self, append: Append) -> AppendResult:
            return MemoryLog.append_nowait(self, [append])[0]

    log = Full()
    committer = Committer(log)
    stream = await generation(log, "a")
    committer.add(stream, Token("1"))
    await until(lambda: told(stream) == [Token("1", index=1)])
    log.away = False
    await until(lambda: stream.tail.ended)
    assert stream.lost is False
    assert [type(event) for event in told(stream)] == [Token, Failed]
    found = await log.describe(stream.record.stream_id)
    assert found is not None
    assert found[1].state == "error"
    assert not committer._backlog
