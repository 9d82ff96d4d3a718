"""Several Redis servers: a failover by Sentinels, and a cluster that loses a node or moves a bucket."""

import asyncio
import functools
import secrets
from collections.abc import Awaitable, Callable
from time import monotonic

import pytest

from app.errors import LogUnavailable, NotFound
from app.streams.log import START, Append, Cursor
from app.streams.redis.log import RedisLog
from tests.contract.streams import DONE, begin, numbered, put, read_all, record, state, words
from tests.support.redis import RedisCluster, SentinelGroup
from tests.support.redis_log import opened
from tests.support.waiting import until

# Half a second until the master counts as down, an election, and our own second between two tries.
FAILOVER_SECONDS_MAX = 15.0
BACK_SECONDS_MAX = 3.0


async def once_available(verb: Callable[[], Awaitable[object]], seconds: float) -> None:
    async def done() -> bool:
        try:
            await verb()
        except LogUnavailable:
            return False
        return True

    await until(done, seconds)


async def test_streams_go_on_at_the_replica_that_sentinels_promote() -> None:
    with SentinelGroup() as group:
        async with opened(group.url) as log, opened(group.url) as other:
            await log.beat("w1")
            stream_id = await begin(log, "w1")
            await put(log, stream_id, 1, words(1, 20))
            group.master.ask("WAIT", 1, 5000)
            waiting = asyncio.create_task(other.wait(stream_id, Cursor(0, 20), 60.0))
            await asyncio.sleep(0.2)
            group.master.kill()
            began = monotonic()
            with pytest.raises(LogUnavailable):
                await put(log, stream_id, 21, words(21, 5))
            assert monotonic() - began < 1.0
            await once_available(lambda: put(log, stream_id, 21, words(21, 5)), FAILOVER_SECONDS_MAX)
            assert group.replica.info("replication").startswith("role:master")
            async with asyncio.timeout(BACK_SECONDS_MAX):
                await waiting
            await once_available(lambda: other.describe(stream_id), BACK_SECONDS_MAX)
            assert await read_all(other, stream_id, Cursor(0, 20)) == numbered(21, words(21, 5))
            assert await put(log, stream_id, 26, [DONE]) == "ok"
            assert await read_all(other, stream_id) == numbered(1, [*words(1, 25), DONE])


async def test_a_master_that_comes_back_as_a_replica_is_left() -> None:
    with SentinelGroup() as group:
        async with opened(group.url) as log:
            stream_id = await begin(log)
            group.master.ask("WAIT", 1, 5000)
            group.sentinels[0].ask("SENTINEL", "FAILOVER", group.SERVICE)

            async def follows() -> bool:
                return group.master.info("replication").startswith("role:slave")

            await until(follows, FAILOVER_SECONDS_MAX)
            # Its connections may still be open; it refuses writes, and reads must not come from it either.
            await once_available(lambda: put(log, stream_id, 1, words(1, 3)), BACK_SECONDS_MAX)
            assert await read_all(log, stream_id) == numbered(1, words(1, 3))


async def test_a_lost_node_of_a_cluster_takes_its_streams_and_no_others() -> None:
    with RedisCluster() as cluster:
        async with opened(cluster.url) as log:
            await log.beat("w1")
            ids = [await begin(log, "w1") for _ in range(60)]
            for one in ids:
                await put(log, one, 1, words(1, 2))
            lost = cluster.nodes[1]
            gone = [one for one in ids if cluster.node_of(log._buckets.of(one).prefix) is lost]
            kept = [one for one in ids if one not in gone]
            assert gone
            assert kept
            # The others must not stop because slots are missing; that is how a log's cluster has to be configured.
            for node in cluster.nodes:
                node.ask("CONFIG", "SET", "cluster-require-full-coverage", "no")
            lost.kill()
            await asyncio.sleep(0.1)
            for one in gone[:3]:
                began = monotonic()
                with pytest.raises(LogUnavailable):
                    await put(log, one, 3, words(3, 1))
                assert monotonic() - began < 1.0
            batch = [Append(one, 1, Cursor(0, 3), words(3, 1)) for one in ids]
            assert await log.append(batch) == ["unavailable" if one in gone else "ok" for one in ids]
            for one in kept:
                assert len(await read_all(log, one)) == 3
            # Leases and reaping go on for what is left.
            await log.beat("w1")
            await log.expire("w1")
            assert sorted(await log.orphans()) == sorted(kept)
            lost.start()
            for one in gone:
                # Each bucket finds its way back by itself.
                await once_available(functools.partial(log.describe, one), BACK_SECONDS_MAX + 2.0)
                assert await put(log, one, 3, words(3, 1)) == "fenced"
                with pytest.raises(NotFound):
                    await log.read(one, START, 10)


async def test_a_bucket_that_moves_to_another_node_is_found_there() -> None:
    with RedisCluster() as cluster:
        async with opened(cluster.url) as log:
            stream_id = secrets.token_urlsafe(18)
            link = log._buckets.of(stream_id)
            slot = cluster.nodes[0].ask("CLUSTER", "KEYSLOT", link.prefix)
            old = cluster.node_of(link.prefix)
            new = next(node for node in cluster.nodes if node is not old)
            name = new.ask("CLUSTER", "MYID").decode()  # type: ignore[attr-defined]
            for node in [new, old, *cluster.nodes]:
                node.ask("CLUSTER", "SETSLOT", slot, "NODE", name)

            async def create() -> None:
                await log.create(record(stream_id), "w1")

            await once_available(create, BACK_SECONDS_MAX)
            assert await put(log, stream_id, 1, [*words(1, 3), DONE]) == "ok"
            assert await read_all(log, stream_id) == numbered(1, [*words(1, 3), DONE])
            assert new.ask("EXISTS", f"{link.prefix}h:{stream_id}") == 1


async def test_one_batch_reaches_all_buckets_of_a_cluster() -> None:
    with RedisCluster() as cluster:
        async with opened(cluster.url) as log:
            ids = [await begin(log) for _ in range(100)]
            used = {log._buckets.number(one) for one in ids}
            assert len(used) == 16
            await _keyed_creates_join(log)
            for one in ids:
                assert (await state(log, one)).last == START
            with_clients = [len(node.ask("CLIENT", "LIST").splitlines()) for node in cluster.nodes]  # type: ignore[attr-defined]
            assert sum(with_clients) < 100


async def _keyed_creates_join(log: RedisLog) -> None:
    for number in range(20):
        wanted = [record(idempotency=f"k{number}") for _ in range(10)]
        made = await asyncio.gather(*(log.create(one, "w1") for one in wanted))
        assert len({one.stream_id for one in made}) == 1
