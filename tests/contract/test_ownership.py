"""Who produces: leases, takeovers, and the fence that keeps a former owner out."""

import asyncio

import pytest

from tests.contract.conftest import Open
from tests.contract.logs import Log, Options
from tests.contract.streams import DONE, begin, numbered, put, read_all, state, words
from tests.support.waiting import until


async def test_a_stream_belongs_to_its_owner_while_the_lease_holds(log: Log) -> None:
    await log.beat("w1")
    stream_id = await begin(log, "w1")
    assert await log.orphans() == []
    assert await log.claim(stream_id, "w2", 1) is None
    assert (await state(log, stream_id)).owner_alive


async def test_a_lease_that_is_not_renewed_makes_orphans(opened: Open) -> None:
    log = await opened(Options(lease_seconds=0.6))
    await log.beat("w1")
    stream_id = await begin(log, "w1")

    async def orphaned() -> bool:
        return stream_id in await log.orphans()

    await until(orphaned)
    now = await state(log, stream_id)
    assert not now.owner_alive
    await asyncio.sleep(0.3)
    later = await state(log, stream_id)
    assert later.orphaned_seconds >= now.orphaned_seconds + 0.25
    assert later.orphaned_seconds < 20


async def test_a_beat_extends_the_lease(opened: Open) -> None:
    log = await opened(Options(lease_seconds=2.0))
    stream_id = await begin(log, "w1")
    for _ in range(10):
        await log.beat("w1")
        await asyncio.sleep(0.3)
        assert (await state(log, stream_id)).owner_alive
    assert await log.orphans() == []


async def test_an_expired_worker_loses_all_its_streams_at_once_and_nobody_else_does(log: Log) -> None:
    await log.beat("w1")
    await log.beat("w2")
    lost = [await begin(log, "w1") for _ in range(3)]
    kept = await begin(log, "w2")
    await log.expire("w1")
    assert sorted(await log.orphans()) == sorted(lost)
    assert (await state(log, kept)).owner_alive
    now = await state(log, lost[0])
    assert not now.owner_alive
    assert now.orphaned_seconds < 20


async def test_expiring_twice_does_not_begin_the_time_anew(log: Log) -> None:
    await log.beat("w1")
    stream_id = await begin(log, "w1")
    await log.expire("w1")
    await asyncio.sleep(0.3)
    await log.expire("w1")
    assert (await state(log, stream_id)).orphaned_seconds >= 0.25


async def test_an_owner_that_never_took_a_lease_can_be_replaced(log: Log) -> None:
    stream_id = await begin(log, "w1")
    assert await log.orphans() == [stream_id]
    assert (await state(log, stream_id)).orphaned_seconds < 20
    await log.beat("w2")
    assert await log.claim(stream_id, "w2", 1) == 2
    assert await put(log, stream_id, 1, words(1, 1), fence=1) == "fenced"
    assert await put(log, stream_id, 1, words(1, 1), fence=2) == "ok"


async def test_a_takeover_raises_the_fence_and_keeps_the_former_owner_out(log: Log) -> None:
    await log.beat("w1")
    stream_id = await begin(log, "w1")
    await put(log, stream_id, 1, words(1, 3))
    await log.expire("w1")
    await log.beat("w2")
    assert await log.claim(stream_id, "w2", 1) == 2
    # The former owner wakes up, beats, and tries everything that it could have had in mind.
    await log.beat("w1")
    assert await put(log, stream_id, 4, words(4, 2), fence=1) == "fenced"
    assert await put(log, stream_id, 1, words(1, 3), fence=1) == "fenced"
    assert await put(log, stream_id, 4, [DONE], fence=1) == "fenced"
    assert await put(log, stream_id, 0, words(4, 2), fence=1, epoch=1) == "fenced"
    assert await put(log, stream_id, 4, words(4, 2), fence=3) == "fenced"
    await log.release(stream_id, 1)
    now = await state(log, stream_id)
    assert (now.state, now.owner, now.owner_alive) == ("running", "w2", True)
    assert (now.fence, now.takeovers, now.last) == (2, 1, (0, 3))
    assert await put(log, stream_id, 4, [*words(4, 2), DONE], fence=2) == "ok"
    assert await read_all(log, stream_id) == numbered(1, [*words(1, 5), DONE])


async def test_of_many_who_claim_one_gets_it(log: Log) -> None:
    stream_id = await begin(log, "w1")
    for number in range(20):
        await log.beat(f"c{number}")
    claims = await asyncio.gather(*(log.claim(stream_id, f"c{number}", 1) for number in range(20)))
    assert sorted(claim for claim in claims if claim is not None) == [2]
    now = await state(log, stream_id)
    assert now.owner == f"c{claims.index(2)}"
    assert (now.fence, now.takeovers) == (2, 1)


@pytest.mark.parametrize("fence", [0, 2, 99])
async def test_a_claim_under_another_fence_fails(log: Log, fence: int) -> None:
    stream_id = await begin(log, "w1")
    assert await log.claim(stream_id, "w2", fence) is None
    assert (await state(log, stream_id)).owner == "w1"


async def test_an_unknown_stream_can_neither_be_claimed_nor_given_up_nor_cancelled(log: Log) -> None:
    unknown = "u" * 22
    assert await log.claim(unknown, "w1", 1) is None
    await log.release(unknown, 1)
    await log.request_cancel(unknown)
    await log.touch_readers([unknown])
    assert await log.describe(unknown) is None
    assert await log.orphans() == []


async def test_takeovers_are_counted(log: Log) -> None:
    stream_id = await begin(log, "w0")
    for number in range(1, 6):
        assert await log.claim(stream_id, f"w{number}", number) == number + 1
        assert (await state(log, stream_id)).takeovers == number


async def test_a_stream_that_was_let_go_was_not_taken_from_the_dead(log: Log) -> None:
    """Four reloads would else end a long stream as if it had brought four workers down."""
    stream_id = await begin(log, "w0")
    for fence in range(1, 6):
        await log.beat(f"w{fence - 1}")
        await log.release(stream_id, fence)
        assert await log.claim(stream_id, f"w{fence}", fence) == fence + 1
        assert (await state(log, stream_id)).takeovers == 0
    await log.expire("w5")
    assert await log.claim(stream_id, "w6", 6) == 7
    assert (await state(log, stream_id)).takeovers == 1


async def test_a_released_stream_is_free_though_its_owner_lives(log: Log) -> None:
    await log.beat("w1")
    given_up, kept = await begin(log, "w1"), await begin(log, "w1")
    await log.release(given_up, 1)
    assert await log.orphans() == [given_up]
    assert not (await state(log, given_up)).owner_alive
    await asyncio.sleep(0.2)
    assert (await state(log, given_up)).orphaned_seconds >= 0.15
    await log.beat("w1")
    await log.beat("w2")
    assert await log.orphans() == [given_up]
    assert await log.claim(given_up, "w2", 1) == 2
    assert await log.orphans() == []
    now = await state(log, given_up)
    assert (now.owner, now.owner_alive, now.orphaned_seconds) == ("w2", True, 0.0)
    assert (await state(log, kept)).owner_alive


async def test_whoever_gave_a_stream_up_may_take_it_again(log: Log) -> None:
    await log.beat("w1")
    stream_id = await begin(log, "w1")
    await log.release(stream_id, 1)
    assert await log.claim(stream_id, "w1", 1) == 2
    assert (await state(log, stream_id)).owner_alive
    assert await log.orphans() == []


async def test_an_ended_stream_is_no_orphan(log: Log) -> None:
    stream_id = await begin(log, "w1")
    await put(log, stream_id, 1, [DONE])
    await log.expire("w1")
    assert await log.orphans() == []
    await log.release(stream_id, 1)
    assert await log.orphans() == []
    assert (await state(log, stream_id)).state == "done"


async def test_a_request_to_cancel_reaches_the_owner_whoever_it_is_now(log: Log) -> None:
    await log.beat("w1")
    mine, other = await begin(log, "w1"), await begin(log, "w1")
    theirs = await begin(log, "w2")
    await log.request_cancel(mine)
    await log.request_cancel(mine)
    await log.request_cancel(theirs)
    assert await log.cancel_requests("w1") == [mine]
    assert await log.cancel_requests("w2") == [theirs]
    assert await log.cancel_requests("w3") == []
    assert (await state(log, mine)).cancel_requested
    assert not (await state(log, other)).cancel_requested
    await log.expire("w1")
    await log.beat("w3")
    await log.claim(mine, "w3", 1)
    assert await log.cancel_requests("w1") == []
    assert await log.cancel_requests("w3") == [mine]


async def test_readers_are_seen_for_the_time_of_a_lease(opened: Open) -> None:
    log = await opened(Options(lease_seconds=1.0))
    read, unread = await begin(log), await begin(log)
    await log.touch_readers([read])
    await log.touch_readers([])
    assert (await state(log, read)).readers_seen
    assert not (await state(log, unread)).readers_seen

    async def unseen() -> bool:
        return not (await state(log, read)).readers_seen

    await until(unseen)


async def test_names_that_begin_alike_are_told_apart(log: Log) -> None:
    """Stores that find a worker's streams by a prefix must not find those of `w10` for `w1`."""
    for owner in ("w1", "w10", "w"):
        await log.beat(owner)
    streams = {owner: await begin(log, owner) for owner in ("w1", "w10", "w")}
    for stream_id in streams.values():
        await log.request_cancel(stream_id)
    assert await log.cancel_requests("w1") == [streams["w1"]]
    await log.expire("w1")
    assert await log.orphans() == [streams["w1"]]
