"""A reader's way from the log to the tail, when the two are not at the same place."""

import secrets
from collections.abc import Sequence

import pytest

from app.errors import CursorGone, LogUnavailable, ProducerLost
from app.events import Event, Token
from app.streams.log import START, Append, Cursor, StreamRecord
from app.streams.memory_log import MemoryLog
from app.streams.reader import Reader
from app.streams.tail import Tail
from tests.support.providers import REQUEST


class Stream:
    """A stream that another worker writes: its log, and the tail that this worker has of it."""

    def __init__(self, log: MemoryLog) -> None:
        self.log = log
        self.stream_id = secrets.token_urlsafe(18)
        self.record = StreamRecord(self.stream_id, "anonymous", "native", REQUEST, "grace", 1.0, 1_790_000_000)
        self.tail = Tail(START)
        self._written = 0

    async def write(self, count: int) -> None:
        """Add tokens to the log."""
        events: Sequence[Event] = [Token("x", index=self._written + 1 + index) for index in range(count)]
        await self.log.append([Append(self.stream_id, 1, Cursor(0, self._written + 1), events)])
        self._written += count

    async def follow(self) -> None:
        """Bring the tail to where the log is."""
        self.tail.extend(await self.log.read(self.stream_id, self.tail.last, 1000))

    def reader(self, seq: int) -> Reader:
        return Reader(self.record, self.tail, self.log, Cursor(0, seq))


@pytest.fixture
async def stream() -> Stream:
    """Ten tokens in the log; the tail begins behind them."""
    found = Stream(MemoryLog())
    await found.log.create(found.record, "elsewhere")
    await found.write(10)
    found.tail = Tail(Cursor(0, 10))
    return found


async def places(reader: Reader) -> list[int]:
    return [cursor.seq for cursor, _ in await reader.take() if cursor is not None]


async def test_a_reader_that_is_ahead_of_the_tail_waits_for_it(stream: Stream) -> None:
    """Its page of history also had what the other worker had just written. The page behind that was empty, which was
    taken for a hole: a client that resumed at the wrong moment was told that its id was gone."""
    reader = stream.reader(5)
    await stream.write(5)
    assert await places(reader) == list(range(6, 16))
    assert await places(reader) == []
    await stream.follow()
    assert await places(reader) == []
    await stream.write(1)
    await stream.follow()
    assert await places(reader) == [16]


async def test_what_comes_while_the_log_is_asked_is_not_slept_over(stream: Stream) -> None:
    class Asked(MemoryLog):
        """Answers once as things were, while the tail moves on."""

        asked = False

        async def read(self, stream_id: str, after: Cursor, events_max: int) -> list[tuple[Cursor, Event]]:
            if self.asked:
                return await stream.log.read(stream_id, after, events_max)
            self.asked = True
            await stream.write(1)
            await stream.follow()
            return []

    reader = stream.reader(5)
    await stream.write(5)
    await places(reader)
    reader._log = Asked()
    assert await places(reader) == [16]


async def test_a_reader_ahead_of_a_tail_that_nobody_fills_any_more_is_told(stream: Stream) -> None:
    reader = stream.reader(5)
    await stream.write(5)
    await places(reader)
    stream.tail.break_off(ProducerLost("gone"))
    with pytest.raises(ProducerLost):
        await reader.take()


async def test_what_fell_out_of_the_tail_while_the_log_was_away_is_gone_and_not_skipped(stream: Stream) -> None:
    """The tail took the last id before what it had dropped for the place behind it: a slow reader went on there, and
    its text had a hole that nobody spoke of."""
    behind, reader = stream.reader(10), stream.reader(10)
    stream.tail.extend([(None, Token("unlogged 11"))])
    await reader.take()
    stream.tail.extend([(None, Token("unlogged 12")), (None, Token("unlogged 13"))])
    stream.tail._drop(2)
    for one in (behind, reader, stream.reader(10)):
        with pytest.raises(CursorGone):
            await one.take()


async def test_what_a_reader_had_without_an_id_comes_again_only_on_another_connection(stream: Stream) -> None:
    """The log went away, took what was said all the same, and gave the stream to another worker: on the connection on
    which it had come without an id it came a second time, with one."""
    had, slow = stream.reader(10), stream.reader(10)
    pushed = stream.reader(10)
    stream.tail.extend([(None, Token("y", index=11))])
    assert pushed.passes(stream.tail.entries, 0)
    assert [cursor for cursor, _ in await had.take()] == [None]
    stream.tail.forget_unnamed()
    await stream.write(2)
    await stream.follow()
    for reader in (had, pushed):
        with pytest.raises(LogUnavailable) as raised:
            await reader.take()
        assert raised.value.as_event().retryable
    assert await places(slow) == [11, 12]
    assert await places(stream.reader(10)) == [11, 12]


async def test_a_tail_without_such_events_goes_on_in_other_hands(stream: Stream) -> None:
    reader = stream.reader(10)
    stream.tail.forget_unnamed()
    await stream.write(1)
    await stream.follow()
    assert await places(reader) == [11]
