"""What is kept for a log that is away: within a bound of bytes, and with every cursor where it belongs."""

import asyncio

import pytest

from app.errors import CursorGone
from app.events import Done, Token, Usage
from app.streams.backlog import EVENT_BYTES, Backlog
from app.streams.committer import Committer
from app.streams.generation import Generation
from app.streams.log import START, Append, Cursor
from tests.support.asgi import until
from tests.unit.streams.test_committer import Away, generation

TEXT = "ten bytes "
TOKEN_BYTES = EVENT_BYTES + len(TEXT)


def said(first: int, count: int, epoch: int = 0) -> Append:
    return Append("s", 1, Cursor(epoch, first), [Token(TEXT)] * count)


def span(append: Append) -> tuple[int, int]:
    return append.first.seq, append.first.seq + len(append.events) - 1


async def stream(name: str = "a") -> Generation:
    return await generation(Away(), name)


async def test_a_streams_oldest_goes_where_there_is_no_room_and_its_place_is_known() -> None:
    backlog, one = Backlog(stream_bytes_max=10 * TOKEN_BYTES), await stream()
    for first in range(1, 41, 4):
        backlog.add(one, said(first, 4))
        assert backlog.bytes <= 10 * TOKEN_BYTES
    append = backlog.append_of(one)
    assert span(append) == (33, 40)
    assert backlog.settle(one, append) == [Cursor(0, seq) for seq in range(1, 41)]
    assert not backlog
    assert backlog.bytes == 0


async def test_all_streams_of_a_worker_have_one_bound_too() -> None:
    backlog, streams = Backlog(worker_bytes_max=12 * TOKEN_BYTES), [await stream(name) for name in "abc"]
    for first in range(1, 31):
        for each in streams:
            backlog.add(each, said(first, 1))
            assert backlog.bytes <= 12 * TOKEN_BYTES
    # The last of each is there, whatever became of the rest.
    assert [span(backlog.append_of(each))[1] for each in streams] == [30, 30, 30]
    for each in streams:
        backlog.drop(each)
    assert backlog.bytes == 0


async def test_what_overflows_while_the_log_takes_an_append_is_neither_doubled_nor_forgotten() -> None:
    backlog, one = Backlog(stream_bytes_max=10 * TOKEN_BYTES), await stream()
    for first in range(1, 16):
        backlog.add(one, said(first, 1))
    append = backlog.append_of(one)
    assert span(append) == (6, 15)
    for first in range(16, 31):
        backlog.add(one, said(first, 1))
    # 1 to 5 were lost before it, 16 to 20 while it was on its way.
    assert backlog.settle(one, append) == [Cursor(0, seq) for seq in range(1, 16)]
    rest = backlog.append_of(one)
    assert span(rest) == (21, 30)
    assert backlog.settle(one, rest) == [Cursor(0, seq) for seq in range(16, 31)]
    assert not backlog


async def test_a_reset_ends_an_append() -> None:
    backlog, one = Backlog(), await stream()
    for append in (said(1, 2), said(3, 1), said(0, 2, epoch=1)):
        backlog.add(one, append)
    assert span(backlog.append_of(one)) == (1, 3)
    assert backlog.settle(one, backlog.append_of(one))[-1] == Cursor(0, 3)
    assert backlog.append_of(one).first == Cursor(1, 0)


async def test_readers_keep_what_a_long_outage_lost_and_whoever_comes_back_to_it_is_told() -> None:
    log = Away()
    committer = Committer(log)
    committer._backlog = Backlog(stream_bytes_max=10 * (EVENT_BYTES + 3))
    one = await generation(log, "a")
    for number in range(50):
        committer.add(one, Token(f"{number:3}"))
        await committer.flush()
        await asyncio.sleep(0)
    assert [cursor for cursor, _ in one.tail.entries] == [None] * 50
    log.away = False
    await until(lambda: committer.logs(one))
    # Under every text the cursor that it would have had, so that ids go on as if nothing had been.
    assert [cursor for cursor, _ in one.tail.entries] == [Cursor(0, seq) for seq in range(1, 51)]
    committer.add(one, Done("stop", Usage(1, 1)))
    await committer.flush()
    assert one.tail.last == Cursor(0, 51)
    stream_id = one.record.stream_id
    kept = await log.read(stream_id, Cursor(0, 41), 100)
    assert [event.text for _, event in kept if isinstance(event, Token)] == [f"{n:3}" for n in range(41, 50)]
    for gone in (START, Cursor(0, 20)):
        with pytest.raises(CursorGone):
            await log.read(stream_id, gone, 100)
    await committer.aclose()
