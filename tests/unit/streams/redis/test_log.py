"""What Redis may lose, never in silence: evicted, flushed, restarted, failed over, and a clock that was set back."""

import asyncio
import contextlib
import hashlib
import random
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from time import monotonic

import pytest

from app.errors import CursorGone, LogFull, LogUnavailable, NotFound
from app.events import Event, Failed, Reset, Token
from app.streams.log import START, Append, Cursor
from app.streams.redis import log as redis_log
from app.streams.redis.event_scripts import APPEND, CONFIRM
from app.streams.redis.leases import HORIZON_MS
from app.streams.redis.log import RedisLog
from app.streams.redis.script import Script
from tests.contract.streams import DONE, begin, numbered, put, read_all, record, state, words
from tests.support.chain import free_port
from tests.support.redis import RedisServer
from tests.support.redis_log import opened
from tests.support.stale_replica import StaleReplica, replicated, stale_replica
from tests.support.tcp_proxy import TcpProxy
from tests.support.waiting import until


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as started:
        yield started


@pytest.fixture
async def log(server: RedisServer) -> AsyncIterator[RedisLog]:
    async with opened(server.url) as made:
        yield made


def key(kind: str, name: str) -> str:
    return f"sluice:{{b0}}:{kind}:{name}"


async def test_entry_ids_rise_through_a_burst_and_a_new_epoch(server: RedisServer, log: RedisLog) -> None:
    stream_id = await begin(log)
    for first in range(1, 2_001, 5):
        assert await put(log, stream_id, first, words(first, 5)) == "ok"
    assert await put(log, stream_id, 0, [Reset("again")], epoch=1) == "ok"
    assert await put(log, stream_id, 1, [*words(1, 2), DONE], epoch=1) == "ok"
    entries = server.ask("XRANGE", key("s", stream_id), "-", "+")
    assert isinstance(entries, list)
    ids = [tuple(int(part) for part in entry[0].split(b"-")) for entry in entries]
    assert ids == sorted(set(ids))
    assert ids[-3:] == [(0, 2000), (1, 0), (1, 3)]
    assert len(await read_all(log, stream_id)) == 2004


@pytest.mark.parametrize("how", ["flushed", "restarted without its data"])
async def test_a_store_that_lost_everything_is_not_gone_on_with(server: RedisServer, log: RedisLog, how: str) -> None:
    await log.beat("w1")
    stream_id = await begin(log, "w1")
    await put(log, stream_id, 1, words(1, 10))
    if how == "flushed":
        server.ask("FLUSHALL")
    else:
        server.kill()
        server.start()
        await asyncio.sleep(0.1)
    assert await put(log, stream_id, 11, words(11, 1)) == "fenced"
    assert await put(log, stream_id, 11, [DONE]) == "fenced"
    assert await log.describe(stream_id) is None
    for after in (START, Cursor(0, 10)):
        with pytest.raises(NotFound):
            await log.read(stream_id, after, 10)
    assert await log.claim(stream_id, "w2", 1) is None
    assert await log.orphans() == []
    assert server.ask("KEYS", "*:s:*") == []


async def test_a_waiting_reader_hears_of_a_flush(server: RedisServer, log: RedisLog) -> None:
    stream_id = await begin(log)
    await put(log, stream_id, 1, words(1, 1))
    waiting = asyncio.create_task(log.wait(stream_id, Cursor(0, 1), 30.0))
    await asyncio.sleep(0.1)
    server.ask("FLUSHALL")
    async with asyncio.timeout(5.0):
        await waiting
    with pytest.raises(NotFound):
        await log.read(stream_id, Cursor(0, 1), 10)


async def test_evicted_events_are_a_hole_that_every_reader_hears_of(server: RedisServer, log: RedisLog) -> None:
    stream_id = await begin(log)
    await put(log, stream_id, 1, words(1, 10))
    server.ask("DEL", key("s", stream_id))
    for after in (START, Cursor(0, 9)):
        with pytest.raises(CursorGone):
            await log.read(stream_id, after, 10)
    assert await log.read(stream_id, Cursor(0, 10), 10) == []
    assert await put(log, stream_id, 11, words(11, 2)) == "ok"
    for after in (START, Cursor(0, 9)):
        with pytest.raises(CursorGone):
            await log.read(stream_id, after, 10)
    assert await read_all(log, stream_id, Cursor(0, 10)) == numbered(11, words(11, 2))
    # The new key must not live for ever.
    assert server.ask("PTTL", key("s", stream_id)) > 0  # type: ignore[operator]


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-lru", "volatile-ttl", "allkeys-random"])
async def test_an_evicting_server_makes_no_silent_hole(server: RedisServer, log: RedisLog, policy: str) -> None:
    server.ask("CONFIG", "SET", "maxmemory-policy", policy)
    ids = [await begin(log) for _ in range(40)]
    used = int(server.info("memory").partition("used_memory:")[2].partition("\n")[0])
    server.ask("CONFIG", "SET", "maxmemory", used + 300_000)
    fenced = set()
    for first in range(1, 61, 2):
        batch = [Append(one, 1, Cursor(0, first), [Token("x" * 200), Token("y")]) for one in ids if one not in fenced]
        for append, result in zip(batch, await log.append(batch), strict=True):
            assert result in {"ok", "fenced"}
            if result == "fenced":
                fenced.add(append.stream_id)
    gone = 0
    for one in ids:
        try:
            found = await read_all(log, one)
        except (CursorGone, NotFound):
            gone += 1
        else:
            assert [pair[0] for pair in found] == [Cursor(0, seq) for seq in range(1, len(found) + 1)]
            assert one in fenced or len(found) == 60
    assert gone


async def test_a_full_server_takes_ends_and_leases_and_claims(server: RedisServer, log: RedisLog) -> None:
    await log.beat("w1")
    ids = [await begin(log) for _ in range(20)]
    orphan = await begin(log, "gone")
    await log.append([Append(one, 1, Cursor(0, 1), words(1, 1)) for one in ids])
    server.ask("CONFIG", "SET", "maxmemory", 1)
    with pytest.raises(LogFull):
        await log.create(record(), "w1")
    half = [Append(one, 1, Cursor(0, 2), words(2, 1)) for one in ids[:10]]
    ends: list[Event] = [Failed("log_full", "Full.", 503, True)]
    last = [Append(one, 1, Cursor(0, 2), ends) for one in ids[10:]]
    mixed = [append for pair in zip(last, half, strict=True) for append in pair]
    assert await log.append(mixed) == ["ok", "full"] * 10
    await log.beat("w1")
    await log.beat("w2")
    assert await log.claim(orphan, "w2", 1) == 2
    await log.touch_readers(ids)
    await log.request_cancel(ids[0])
    assert await log.cancel_requests("w1") == [ids[0]]
    await log.release(ids[0], 1)
    assert await log.orphans() == [ids[0]]
    assert (await state(log, ids[1])).owner_alive
    assert (await state(log, ids[1])).readers_seen
    assert await read_all(log, ids[15]) == numbered(1, [*words(1, 1), *ends])


async def test_no_entry_comes_again_or_goes_missing_at_any_clock(server: RedisServer, log: RedisLog) -> None:
    """Entry ids are counted, so that a server whose clock is behind them takes appends all the same."""
    stream_id = await begin(log)
    far = 99_999_999
    assert await put(log, stream_id, far, words(1, 3)) == "ok"
    assert await put(log, stream_id, far + 3, [*words(4, 3), DONE]) == "ok"
    assert await read_all(log, stream_id, Cursor(0, far - 1)) == numbered(far, [*words(1, 6), DONE])


async def test_a_clock_that_was_set_back_prolongs_no_lease_by_more_than_one(server: RedisServer) -> None:
    async with opened(server.url, lease_seconds=1.0) as log:
        await log.beat("w1")
        stream_id = await begin(log, "w1")
        # What an hour back does: everything has an hour more to live.
        server.ask("PEXPIRE", key("l", "w1"), HORIZON_MS + 3_600_000)
        assert (await state(log, stream_id)).owner_alive
        began = monotonic()
        await until(lambda: _is_orphan(log, stream_id), 10.0)
        assert 0.5 < monotonic() - began < 4.0
        later = str(int(1e15)).encode()
        server.ask("HSET", key("h", stream_id), "os", later)
        assert (await state(log, stream_id)).orphaned_seconds < 1.0
        await asyncio.sleep(0.3)
        assert (await state(log, stream_id)).orphaned_seconds >= 0.25
        await log.touch_readers([stream_id])
        server.ask("PEXPIRE", key("r", stream_id), 3_600_000)
        await state(log, stream_id)
        await asyncio.sleep(1.2)
        assert not (await state(log, stream_id)).readers_seen


async def _is_orphan(log: RedisLog, stream_id: str) -> bool:
    return stream_id in await log.orphans()


@pytest.fixture
async def stale() -> AsyncIterator[tuple[StaleReplica, RedisLog]]:
    async with stale_replica() as pair:
        yield pair


async def lost_ten_of_fifty(pair: StaleReplica, log: RedisLog, end: Sequence[Event] = ()) -> str:
    """A stream of `w1`, after a failover that lost its last ten tokens, and its end."""
    await log.beat("w1")
    stream_id = await begin(log, "w1")
    await put(log, stream_id, 1, words(1, 40))
    await replicated(pair)
    pair.detach()
    for seq in range(41, 51):
        assert await put(log, stream_id, seq, words(seq, 1)) == "ok"
    if end:
        assert await put(log, stream_id, 51, end) == "ok"
    await pair.fail_over(log)
    return stream_id


async def test_an_owner_gives_a_server_again_what_that_has_lost(stale: tuple[StaleReplica, RedisLog]) -> None:
    pair, log = stale
    stream_id = await lost_ten_of_fifty(pair, log)
    now = await state(log, stream_id)
    assert (now.last, now.in_doubt) == ((0, 40), True)
    with pytest.raises(CursorGone):
        await log.read(stream_id, Cursor(0, 50), 10)
    assert await put(log, stream_id, 51, words(51, 5)) == "ok"
    assert not (await state(log, stream_id)).in_doubt
    assert await put(log, stream_id, 56, [DONE]) == "ok"
    for after in (START, Cursor(0, 30), Cursor(0, 45), Cursor(0, 50)):
        assert await read_all(log, stream_id, after) == numbered(1, [*words(1, 55), DONE])[after.seq :]


async def test_a_hole_of_its_own_costs_a_stream_no_more_where_the_server_lost_some_as_well(
    stale: tuple[StaleReplica, RedisLog],
) -> None:
    """Both at once: what the server lost is given again, what there was no room for is missing."""
    pair, log = stale
    stream_id = await lost_ten_of_fifty(pair, log)
    assert await put(log, stream_id, 61, [*words(61, 5), DONE]) == "ok"
    assert await log.read(stream_id, START, 100) == numbered(1, words(1, 50))
    with pytest.raises(CursorGone):
        await log.read(stream_id, Cursor(0, 50), 10)
    assert await read_all(log, stream_id, Cursor(0, 60)) == numbered(61, [*words(61, 5), DONE])


@contextlib.asynccontextmanager
async def restarted() -> AsyncIterator[tuple[RedisLog, str]]:
    """A stream of twenty tokens, on a server that has been away and has all of it."""
    with RedisServer(appendonly="yes", appendfsync="always") as server:
        async with opened(server.url) as log:
            stream_id = await begin(log)
            await put(log, stream_id, 1, words(1, 20))
            server.kill()
            server.start()

            async def in_doubt() -> bool:
                with contextlib.suppress(LogUnavailable):
                    return (await state(log, stream_id)).in_doubt
                return False

            await until(in_doubt)
            yield log, stream_id


@pytest.mark.parametrize("events", [words(61, 5), [*words(61, 5), DONE]], ids=["running", "ended"])
async def test_a_server_that_came_back_with_everything_is_gone_on_with_behind_a_hole(events: list[Event]) -> None:
    """It was away for longer than there was room for what was said meanwhile: that is lost, and nothing else."""
    async with restarted() as (log, stream_id):
        assert await put(log, stream_id, 61, events) == "ok"
        now = await state(log, stream_id)
        assert (now.last, now.in_doubt) == ((0, 60 + len(events)), False)
        assert await log.read(stream_id, START, 100) == numbered(1, words(1, 20))
        with pytest.raises(CursorGone):
            await log.read(stream_id, Cursor(0, 20), 10)
        assert await read_all(log, stream_id, Cursor(0, 60)) == numbered(61, events)


@pytest.mark.parametrize(("fence", "last"), [(2, 20), (1, 19)])
async def test_only_its_owner_vouches_for_a_stream_and_for_what_there_is(fence: int, last: int) -> None:
    async with restarted() as (log, stream_id):
        (link,) = log._buckets.links
        assert await link.call(CONFIRM, stream_id, fence, 0, last) == 0
        assert (await state(log, stream_id)).in_doubt


async def test_what_the_owner_does_not_remember_begins_again(stale: tuple[StaleReplica, RedisLog]) -> None:
    pair, log = stale
    stream_id = await lost_ten_of_fifty(pair, log)
    log._recent.forget(stream_id)
    assert await put(log, stream_id, 51, [*words(51, 5), DONE]) == "fenced"
    now = await state(log, stream_id)
    assert (now.last, now.state, now.owner_alive) == ((0, 40), "running", False)
    assert await log.claim(stream_id, "w1", 1) == 2
    for after in (START, Cursor(0, 30), Cursor(0, 50)):
        assert [type(event) for _, event in await read_all(log, stream_id, after)] == [Reset]


async def test_an_end_that_was_lost_is_given_again_though_nobody_writes_any_more(
    stale: tuple[StaleReplica, RedisLog],
) -> None:
    """Its owner was alive and had nothing more to say: readers that came later waited for ever."""
    pair, log = stale
    stream_id = await lost_ten_of_fifty(pair, log, [DONE])
    await log.beat("w1")
    assert (await state(log, stream_id)).state == "done"
    assert await read_all(log, stream_id) == numbered(1, [*words(1, 50), DONE])


@pytest.mark.parametrize("known", [0, 40])
async def test_whoever_takes_over_after_such_a_failover_gives_no_id_a_second_time(
    stale: tuple[StaleReplica, RedisLog], known: int
) -> None:
    pair, log = stale
    stream_id = await begin(log, "gone")
    if known:
        await put(log, stream_id, 1, words(1, known))
    await replicated(pair)
    pair.detach()
    assert await put(log, stream_id, known + 1, words(known + 1, 10)) == "ok"
    await pair.fail_over(log)
    assert await log.claim(stream_id, "w1", 1) == 2
    now = await state(log, stream_id)
    assert now.last.epoch > 0
    assert (now.last.seq, now.in_doubt) == (0, False)
    again: list[Event] = [*words(1, 60), DONE]
    assert await put(log, stream_id, 1, again, fence=2, epoch=now.last.epoch) == "ok"
    for after in {START, Cursor(0, known), Cursor(0, known + 10)}:
        (first, reset), *rest = await read_all(log, stream_id, after)
        assert first == now.last
        assert isinstance(reset, Reset)
        assert rest == numbered(1, again, epoch=now.last.epoch)


async def test_an_epoch_that_was_lost_as_well_is_not_opened_again(stale: tuple[StaleReplica, RedisLog]) -> None:
    """Counted on, the second reset would have the id of the first, and what was said behind the first be mistaken."""
    pair, log = stale
    stream_id = await begin(log, "gone")
    await put(log, stream_id, 1, words(1, 5))
    await replicated(pair)
    pair.detach()
    # As after a failover: the master's own process id is not that of the last write.
    pair.master.ask("HSET", f"sluice:{{b0}}:h:{stream_id}", "m", "another:1")
    assert await log.claim(stream_id, "w1", 1) == 2
    lost = (await state(log, stream_id)).last
    assert await put(log, stream_id, 1, words(1, 9), fence=2, epoch=lost.epoch) == "ok"
    await log.release(stream_id, 2)
    await asyncio.sleep(0.2)  # far less than a failover takes
    await pair.fail_over(log)
    assert await log.claim(stream_id, "w1", 1) == 2
    found = (await state(log, stream_id)).last
    assert found.epoch > lost.epoch
    reset = await read_all(log, stream_id, Cursor(lost.epoch, 9))
    assert [cursor for cursor, _ in reset] == [found]


async def test_without_the_servers_id_such_a_takeover_would_give_ids_twice() -> None:
    """The guard off, by a user that may not ask for it: what it is for."""
    with RedisServer() as master, RedisServer(replica_of=master) as replica:
        replica.wait_synced()
        for one in (master, replica):
            one.ask("ACL", "SETUSER", "app", "on", ">geheim", "~sluice:*", "+@all", "-info")
        async with TcpProxy(master.port) as proxy, opened(f"redis://app:geheim@127.0.0.1:{proxy.port}") as log:
            pair = StaleReplica(master, replica, proxy)
            stream_id = await begin(log, "gone")
            await put(log, stream_id, 1, words(1, 40))
            await replicated(pair)
            pair.detach()
            assert await put(log, stream_id, 41, words(41, 10)) == "ok"
            await pair.fail_over(log)
            assert await log.claim(stream_id, "w1", 1) == 2
            assert await put(log, stream_id, 41, words(901, 20), fence=2) == "ok"
            # Whoever had read up to 50 is led over ten events that it never saw.
            assert await read_all(log, stream_id, Cursor(0, 50)) == numbered(51, words(911, 10))


async def test_without_the_fence_a_former_owner_would_write(log: RedisLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guard off: what it is for."""
    check = b"if known[1] ~= ARGV[at + 1] then"
    assert check in APPEND.text
    text = APPEND.text.replace(check, b"if not known[1] then")
    unfenced = Script(text, hashlib.sha1(text, usedforsecurity=False).hexdigest().encode())
    stream_id = await begin(log, "w1")
    assert await log.claim(stream_id, "w2", 1) == 2
    assert await put(log, stream_id, 1, words(1, 1), fence=1) == "fenced"
    monkeypatch.setattr(redis_log, "APPEND", unfenced)
    assert await put(log, stream_id, 1, words(1, 1), fence=1) == "ok"


async def test_a_takeover_on_the_same_server_keeps_everything(log: RedisLog) -> None:
    stream_id = await begin(log, "gone")
    await put(log, stream_id, 1, words(1, 5))
    assert await log.claim(stream_id, "w1", 1) == 2
    assert await read_all(log, stream_id) == numbered(1, words(1, 5))


async def test_streams_go_by_themselves_and_leave_nothing(server: RedisServer) -> None:
    async with opened(server.url, ttl_seconds=0.3, lease_seconds=0.3, running_seconds=1.0) as log:
        for number in range(20):
            stream_id = (await log.create(record(idempotency=f"k{number}"), "w1")).stream_id
            await put(log, stream_id, 1, [*words(1, 3), *([DONE] if number % 2 else [])])

        async def empty() -> bool:
            await log.orphans()
            kinds = {bytes(one).split(b":")[2] for one in server.ask("KEYS", "sluice:*")}  # type: ignore[attr-defined]
            return not kinds - {b"i"}

        await until(empty, 15.0)


async def test_a_running_stream_outlives_its_ttl_while_it_is_written(server: RedisServer) -> None:
    async with opened(server.url, running_seconds=1.0) as log:
        stream_id = await begin(log)
        for seq in range(1, 31):
            assert await put(log, stream_id, seq, words(seq, 1)) == "ok"
            await asyncio.sleep(0.1)
        assert len(await read_all(log, stream_id)) == 30


async def test_a_script_cache_that_was_emptied_is_filled_again(server: RedisServer, log: RedisLog) -> None:
    stream_id = await begin(log)
    server.ask("SCRIPT", "FLUSH")
    assert await put(log, stream_id, 1, words(1, 1)) == "ok"


@pytest.mark.parametrize(
    ("path", "says"),
    [("redis://:{secret}@127.0.0.1:{closed}", "{closed}"), ("redis://:wrong-{secret}@127.0.0.1:{port}", "{port}")],
)
async def test_what_cannot_be_opened_says_which_and_no_password(path: str, says: str) -> None:
    with RedisServer(requirepass="geheim") as server, RedisServer() as other:
        other.kill()
        values = {"secret": "geheim", "port": server.port, "closed": other.port}
        began = monotonic()
        with pytest.raises(LogUnavailable, match=says.format(**values)) as refused:
            await RedisLog(path.format(**values)).open()
        assert "geheim" not in str(refused.value)
        assert monotonic() - began < 3.0


async def test_a_url_that_is_none_is_refused() -> None:
    with pytest.raises(LogUnavailable, match="scheme"):
        RedisLog("redis+nothing://:geheim@h")


async def test_a_hung_server_does_not_hold_the_start() -> None:
    with RedisServer() as server:
        server.stop()
        began = monotonic()
        with pytest.raises(LogUnavailable, match=str(server.port)):
            await RedisLog(server.url).open()
        assert monotonic() - began < 3.0


async def test_a_user_that_may_not_ask_for_info_can_still_work() -> None:
    with RedisServer() as server:
        server.ask("ACL", "SETUSER", "app", "on", ">geheim", "~sluice:*", "+@all", "-@dangerous", "-@admin")
        async with opened(f"redis://app:geheim@127.0.0.1:{server.port}") as log:
            stream_id = await begin(log)
            assert await put(log, stream_id, 1, [*words(1, random.randint(1, 9)), DONE]) == "ok"


def certify(certificate: Path, private_key: Path) -> None:
    """A certificate for the loopback address that vouches for itself."""
    request = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1"
    paths = ["-keyout", str(private_key), "-out", str(certificate), "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*request.split(), *paths], check=True, capture_output=True)


async def test_tls_is_spoken_and_certificates_are_looked_at(tmp_path: Path) -> None:
    certificate, private_key = tmp_path / "cert.pem", tmp_path / "key.pem"
    certify(certificate, private_key)
    port = free_port()
    with RedisServer(
        tls_port=port,
        tls_cert_file=certificate,
        tls_key_file=private_key,
        tls_ca_cert_file=certificate,
        tls_auth_clients="no",
    ):
        async with opened(f"rediss://127.0.0.1:{port}?ssl_ca_certs={certificate}") as log:
            stream_id = await begin(log)
            waiting = asyncio.create_task(log.wait(stream_id, START, 10.0))
            await asyncio.sleep(0.1)
            assert await put(log, stream_id, 1, [*words(1, 500), DONE]) == "ok"
            async with asyncio.timeout(3.0):
                await waiting
            assert await read_all(log, stream_id) == numbered(1, [*words(1, 500), DONE])
        with pytest.raises(LogUnavailable, match="certificate"):
            await RedisLog(f"rediss://127.0.0.1:{port}").open()
