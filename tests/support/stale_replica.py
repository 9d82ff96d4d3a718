"""A Redis failover that loses what the replica had not got yet."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.errors import LogUnavailable
from app.streams.redis.log import RedisLog
from tests.support.redis import RedisServer
from tests.support.redis_log import opened
from tests.support.tcp_proxy import TcpProxy
from tests.support.waiting import until


class StaleReplica:
    """A master with a replica that stopped to follow, and a proxy that leads to the one or the other."""

    def __init__(self, master: RedisServer, replica: RedisServer, proxy: TcpProxy) -> None:
        self.master, self.replica, self._proxy = master, replica, proxy

    def detach(self) -> None:
        """From now on acknowledged writes reach the master only."""
        self.replica.promote()

    async def fail_over(self, log: RedisLog) -> None:
        self._proxy.target_port = self.replica.port
        self._proxy.cut()
        await asyncio.sleep(0.05)

        async def back() -> bool:
            try:
                await log.beat("w1")
            except LogUnavailable:
                return False
            return True

        await until(back, 5.0)


@asynccontextmanager
async def stale_replica() -> AsyncIterator[tuple[StaleReplica, RedisLog]]:
    """The pair, and a log on whichever of them serves."""
    with RedisServer() as master, RedisServer(replica_of=master) as replica:
        replica.wait_synced()
        async with TcpProxy(master.port) as proxy, opened(f"redis://127.0.0.1:{proxy.port}") as log:
            yield StaleReplica(master, replica, proxy), log


async def replicated(pair: StaleReplica) -> None:
    """Until the replica has what the master has."""

    def offset(server: RedisServer) -> str:
        return server.info("replication").partition("master_repl_offset:")[2].partition("\n")[0]

    async def same() -> bool:
        return offset(pair.master) == offset(pair.replica)

    await until(same)
