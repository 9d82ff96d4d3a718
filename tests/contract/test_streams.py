"""What every log does with events: keeps them in order, gives them out from any place, refuses what does not fit."""

import gc
from contextlib import suppress
from time import process_time

import pytest

from app.errors import CursorGone, LogFull, NotFound
from app.events import Done, Event, Failed, Reset, Token, Usage
from app.streams.log import START, Append, Cursor
from tests.contract.conftest import Open
from tests.contract.logs import Log, Options
from tests.contract.streams import DONE, FAILED, begin, numbered, put, read_all, record, state, words
from tests.support.waiting import until

AWKWARD = [
    "",
    " ",
    "\n",
    "\r\n\r\ndata: x",
    "\u2028\u2029\x85\0",
    "🌍👩‍👩‍👧",
    "e\u0301",
    "\U0010ffff",
    "\\u0000",
    "x" * 70_000,
]


async def test_a_new_stream_is_described_as_it_was_created(log: Log) -> None:
    made = await log.create(record("s" * 22, "key", "hash"), "w1")
    await log.beat("w1")
    assert made == record("s" * 22, "key", "hash")
    known = await log.describe("s" * 22)
    assert known is not None
    assert known[0] == made
    assert known[1].state == "running"
    assert (known[1].owner, known[1].owner_alive, known[1].orphaned_seconds) == ("w1", True, 0.0)
    assert (known[1].fence, known[1].takeovers, known[1].last) == (1, 0, START)
    assert not known[1].cancel_requested
    assert not known[1].readers_seen


async def test_an_unknown_stream_is_nothing_to_describe_and_not_found_to_read(log: Log) -> None:
    assert await log.describe("n" * 22) is None
    with pytest.raises(NotFound):
        await log.read("n" * 22, START, 10)


async def test_creating_the_same_stream_again_changes_nothing(log: Log) -> None:
    stream_id = await begin(log)
    await put(log, stream_id, 1, words(1, 3))
    again = await log.create(record(stream_id), "w2")
    assert again.stream_id == stream_id
    assert (await state(log, stream_id)).owner == "w1"
    assert len(await read_all(log, stream_id)) == 3


async def test_events_come_back_in_order_under_their_cursors(log: Log) -> None:
    stream_id = await begin(log)
    events: list[Event] = [*words(1, 5), Token("why", "thought"), Token('[{"index":0}]', "tool_call"), DONE]
    assert await put(log, stream_id, 1, events[:3]) == "ok"
    assert await put(log, stream_id, 4, events[3:4]) == "ok"
    assert await put(log, stream_id, 5, events[4:]) == "ok"
    assert await read_all(log, stream_id) == numbered(1, events)
    assert (await state(log, stream_id)).last == (0, 8)


async def test_any_text_comes_back_as_it_was(log: Log) -> None:
    stream_id = await begin(log)
    events = [Token(text, index=number) for number, text in enumerate(AWKWARD, 1)]
    assert await put(log, stream_id, 1, events) == "ok"
    assert await read_all(log, stream_id) == numbered(1, events)


async def test_a_read_begins_behind_any_cursor_also_within_one_append(log: Log) -> None:
    stream_id = await begin(log)
    for first in range(1, 31, 5):
        await put(log, stream_id, first, words(first, 5))
    for after in range(31):
        found = await read_all(log, stream_id, Cursor(0, after), page=7)
        assert found == numbered(after + 1, words(after + 1, 30 - after))


async def test_a_page_holds_what_was_asked_for_and_no_more_than_one_append_over(log: Log) -> None:
    stream_id = await begin(log)
    for first in range(1, 101, 10):
        await put(log, stream_id, first, words(first, 10))
    assert len(await log.read(stream_id, START, 25)) in range(25, 35)
    assert len(await log.read(stream_id, START, 1)) in range(1, 11)


async def test_a_page_of_large_events_is_a_short_one(log: Log) -> None:
    """Each reader that takes nothing holds one of them in memory."""
    stream_id = await begin(log)
    large = [Token("x" * 20_000, index=number) for number in range(1, 201)]
    for number, token in enumerate(large, 1):
        await put(log, stream_id, number, [token])
    assert 10 <= len(await log.read(stream_id, START, 500)) <= 50
    assert await read_all(log, stream_id) == numbered(1, large)


async def test_nothing_follows_the_last_event(log: Log) -> None:
    stream_id = await begin(log)
    assert await log.read(stream_id, START, 10) == []
    await put(log, stream_id, 1, [*words(1, 2), DONE])
    assert await log.read(stream_id, Cursor(0, 3), 10) == []


async def test_streams_in_one_batch_do_not_touch_each_other(log: Log) -> None:
    ids = [await begin(log) for _ in range(50)]
    await log.expire("w1")
    assert await log.claim(ids[7], "w2", 1) == 2
    for first in (1, 4):
        batch = [Append(stream_id, 1, Cursor(0, first), words(first, 3)) for stream_id in ids]
        results = await log.append(batch)
        assert [result for number, result in enumerate(results) if number != 7] == ["ok"] * 49
        assert results[7] == "fenced"
    assert await read_all(log, ids[7]) == []
    for stream_id in ids[:7] + ids[8:]:
        assert await read_all(log, stream_id) == numbered(1, words(1, 6))


async def test_two_appends_of_one_stream_in_a_batch_are_taken_in_turn(log: Log) -> None:
    stream_id = await begin(log)
    batch = [Append(stream_id, 1, Cursor(0, first), words(first, 2)) for first in (1, 3)]
    assert await log.append(batch) == ["ok", "ok"]
    assert await read_all(log, stream_id) == numbered(1, words(1, 4))


async def test_an_empty_batch_and_an_empty_append_change_nothing(log: Log) -> None:
    stream_id = await begin(log)
    assert await log.append([]) == []
    assert await put(log, stream_id, 1, []) == "ok"
    assert await put(log, stream_id, 1, [], fence=2) == "fenced"
    assert await read_all(log, stream_id) == []


async def test_a_repeated_append_is_ok_and_changes_nothing(log: Log) -> None:
    stream_id = await begin(log)
    await put(log, stream_id, 1, words(1, 3))
    await put(log, stream_id, 4, words(4, 3))
    for first in (1, 4, 4):
        assert await put(log, stream_id, first, words(first, 3)) == "ok"
    assert await read_all(log, stream_id) == numbered(1, words(1, 6))


async def test_a_repeated_ending_is_ok_and_the_stream_still_ends_once(log: Log) -> None:
    stream_id = await begin(log)
    ending: list[Event] = [*words(1, 2), DONE]
    assert [await put(log, stream_id, 1, ending) for _ in range(3)] == ["ok"] * 3
    assert await read_all(log, stream_id) == numbered(1, ending)


async def test_a_repetition_that_has_grown_adds_only_what_is_new(log: Log) -> None:
    """A committer that got no answer sends its events again, cut otherwise, with what came since."""
    stream_id = await begin(log)
    for first in (1, 3, 5):
        await put(log, stream_id, first, words(first, 2))
    assert await put(log, stream_id, 1, words(1, 6)) == "ok"
    assert await put(log, stream_id, 2, words(2, 3)) == "ok"
    assert await read_all(log, stream_id) == numbered(1, words(1, 6))
    ending: list[Event] = [*words(4, 6), DONE]
    assert [await put(log, stream_id, 4, ending) for _ in range(2)] == ["ok", "ok"]
    assert await read_all(log, stream_id) == numbered(1, [*words(1, 9), DONE])


async def test_an_id_never_gets_other_content(log: Log) -> None:
    """A second producer under the same fence is a defect, and must not become two texts under one id."""
    stream_id = await begin(log)
    await put(log, stream_id, 1, words(1, 4))
    assert await put(log, stream_id, 1, words(11, 4)) == "fenced"
    assert await put(log, stream_id, 3, [*words(3, 1), *words(11, 4)]) == "fenced"
    assert await put(log, stream_id, 4, words(11, 1)) == "fenced"
    assert await put(log, stream_id, 0, words(0, 6)) == "fenced"
    assert await read_all(log, stream_id) == numbered(1, words(1, 4))


@pytest.mark.parametrize(
    ("ending", "becomes"),
    [
        (DONE, "done"),
        (FAILED, "error"),
        (Failed("cancelled", "Somebody cancelled it.", 499, False), "cancelled"),
        (Done("cancelled", Usage()), "cancelled"),
    ],
)
async def test_the_terminal_event_closes_the_stream(log: Log, ending: Event, becomes: str) -> None:
    stream_id = await begin(log)
    await log.request_cancel(stream_id)
    assert await put(log, stream_id, 1, [*words(1, 2), ending]) == "ok"
    now = await state(log, stream_id)
    assert (now.state, now.last) == (becomes, (0, 3))
    assert await put(log, stream_id, 4, words(4, 1)) == "fenced"
    assert await put(log, stream_id, 4, [DONE]) == "fenced"
    assert await log.orphans() == []
    assert await log.cancel_requests("w1") == []
    assert await log.claim(stream_id, "w2", 1) is None
    assert await read_all(log, stream_id) == numbered(1, [*words(1, 2), ending])


async def test_a_new_epoch_begins_at_zero_and_cursors_of_the_old_one_reach_it(log: Log) -> None:
    stream_id = await begin(log)
    await put(log, stream_id, 1, words(1, 3))
    again: list[Event] = [Reset("failover"), *words(101, 3)]
    assert await put(log, stream_id, 0, again, epoch=1) == "ok"
    assert await put(log, stream_id, 4, words(4, 1)) == "fenced"
    assert await put(log, stream_id, 4, [DONE], epoch=1) == "ok"
    second = numbered(0, [*again, DONE], epoch=1)
    assert await read_all(log, stream_id) == numbered(1, words(1, 3)) + second
    assert await read_all(log, stream_id, Cursor(0, 3)) == second
    assert await read_all(log, stream_id, Cursor(1, 2)) == second[3:]
    assert (await state(log, stream_id)).last == (1, 4)


async def test_what_was_trimmed_is_gone_and_not_a_hole(log: Log) -> None:
    stream_id = await begin(log)
    for first in range(1, 21, 2):
        await put(log, stream_id, first, words(first, 2))
    await log.trim(stream_id, Cursor(0, 10))
    for after in range(10):
        with pytest.raises(CursorGone):
            await log.read(stream_id, Cursor(0, after), 100)
    assert await read_all(log, stream_id, Cursor(0, 10)) == numbered(11, words(11, 10))
    assert await put(log, stream_id, 21, [DONE]) == "ok"
    assert await read_all(log, stream_id, Cursor(0, 20)) == [(Cursor(0, 21), DONE)]


async def test_a_trimmed_append_cannot_come_back(log: Log) -> None:
    stream_id = await begin(log)
    for first in (1, 3, 5):
        await put(log, stream_id, first, words(first, 2))
    await log.trim(stream_id, Cursor(0, 4))
    assert await put(log, stream_id, 1, words(1, 2)) == "fenced"
    assert await read_all(log, stream_id, Cursor(0, 4)) == numbered(5, words(5, 2))


async def test_what_overflowed_while_the_log_was_away_is_a_hole_that_readers_hear_of(log: Log) -> None:
    """The owner may go on behind events that it could not keep; nobody may be led over them in silence."""
    stream_id = await begin(log)
    await put(log, stream_id, 1, words(1, 3))
    assert await put(log, stream_id, 10, [*words(10, 3), DONE]) == "ok"
    for page in (1, 3, 100):
        with pytest.raises(CursorGone):
            await read_all(log, stream_id, page=page)
        # What lies before the hole may be given out first, and nothing else.
        with suppress(CursorGone):
            found = await log.read(stream_id, START, page)
            assert found == numbered(1, words(1, len(found)))
            assert len(found) <= 3
    assert await read_all(log, stream_id, Cursor(0, 9)) == numbered(10, [*words(10, 3), DONE])
    assert (await state(log, stream_id)).state == "done"


@pytest.mark.parametrize("after", [Cursor(0, 4), Cursor(1, 0), Cursor(999_999_999, 999_999_999)])
async def test_a_cursor_beyond_the_end_is_gone(log: Log, after: Cursor) -> None:
    """A store that lost its newest events must not give other events to ids that are out already."""
    stream_id = await begin(log)
    await put(log, stream_id, 1, words(1, 3))
    with pytest.raises(CursorGone):
        await log.read(stream_id, after, 10)


async def test_a_stream_takes_no_more_than_its_bytes_and_then_its_end(opened: Open) -> None:
    log = await opened(Options(stream_bytes_max=20_000))
    stream_id, other = await begin(log), await begin(log)
    results: list[str] = []
    count = 0
    while not results or results[-1] == "ok":
        results.append(await put(log, stream_id, count + 1, words(count + 1, 10)))
        count += 10
        assert count < 2_000
    assert results[-1] == "full"
    assert await put(log, stream_id, count - 9, words(count - 9, 10)) == "full"
    assert await put(log, other, 1, words(1, 10)) == "ok"
    assert await put(log, stream_id, count - 9, [FAILED]) == "ok"
    kept = words(1, count - 10)
    assert await read_all(log, stream_id) == numbered(1, [*kept, FAILED])


async def test_a_full_store_refuses_new_streams_first_then_tokens_and_never_an_end(opened: Open) -> None:
    log = await opened(Options(bytes_max=4 * 1024 * 1024))
    ids = [await begin(log) for _ in range(4)]
    seqs = dict.fromkeys(ids, 1)
    text = "x" * 20_000
    refused_at = None
    for number in range(2_000):
        stream_id = ids[number % 4]
        if refused_at is None:
            try:
                await begin(log)
            except LogFull:
                refused_at = number
        result = await put(log, stream_id, seqs[stream_id], [Token(text)])
        if result == "full":
            break
        seqs[stream_id] += 1
    assert result == "full"
    assert refused_at is not None
    assert refused_at < number
    for stream_id in ids:
        assert await put(log, stream_id, seqs[stream_id], [Failed("log_full", "Full.", 503, True)]) == "ok"
        assert (await state(log, stream_id)).state == "error"
        assert len(await read_all(log, stream_id)) == seqs[stream_id]


async def test_a_store_says_how_full_it_is(opened: Open) -> None:
    log = await opened(Options(bytes_max=16 * 1024 * 1024))
    before = await log.fill()
    assert 0 <= before.bytes_used < before.bytes_max
    stream_id = await begin(log)
    for seq in range(1, 41):
        assert await put(log, stream_id, seq, [Token("x" * 100_000, index=seq)]) == "ok"
    after = await log.fill()
    # A store that copies on write, or a server, takes some more than what was written.
    assert 4_000_000 <= after.bytes_used - before.bytes_used < 12_000_000
    assert after.bytes_used < after.bytes_max


async def test_a_full_store_has_room_again_once_streams_have_gone(opened: Open) -> None:
    log = await opened(Options(bytes_max=4 * 1024 * 1024, ttl_seconds=0.2))
    for _ in range(3):
        stream_id = await begin(log)
        seq = 1
        while await put(log, stream_id, seq, [Token("x" * 20_000)]) == "ok":
            seq += 1
        assert seq > 50
        assert await put(log, stream_id, seq, [FAILED]) == "ok"
        await _until_gone(log, stream_id)
        for _ in range(10):
            await log.reap()


async def test_an_ended_stream_is_kept_for_its_time_and_then_not_found(opened: Open) -> None:
    log = await opened(Options(ttl_seconds=1.0))
    ended, running = await begin(log), await begin(log)
    await put(log, ended, 1, [*words(1, 50), DONE])
    await put(log, running, 1, words(1, 50))
    await log.reap()
    assert len(await read_all(log, ended)) == 51
    await _until_gone(log, ended)
    with pytest.raises(NotFound):
        await log.read(ended, START, 10)
    assert await put(log, ended, 52, words(52, 1)) == "fenced"
    assert len(await read_all(log, running)) == 50


async def test_fifty_thousand_events_are_read_in_pages_without_holding_the_loop(log: Log) -> None:
    stream_id = await begin(log)
    for first in range(1, 50_001, 50):
        await log.append([Append(stream_id, 1, Cursor(0, first), words(first, 50))])
    await put(log, stream_id, 50_001, [DONE])
    found: list[tuple[Cursor, Event]] = []
    longest = 0.0
    # As a worker does: what the test runner holds by now would be walked by each full collection, within some page.
    gc.collect()
    gc.freeze()
    while True:
        # CPU time: on a machine that others use too, the clock on the wall says little of one page.
        began = process_time()
        more = await log.read(stream_id, found[-1][0] if found else START, 500)
        longest = max(longest, process_time() - began)
        if not more:
            break
        found += more
    assert found == numbered(1, [*words(1, 50_000), DONE])
    gc.unfreeze()
    assert longest < 0.1


async def _until_gone(log: Log, stream_id: str) -> None:
    async def gone() -> bool:
        await log.reap()
        return await log.describe(stream_id) is None

    await until(gone)
