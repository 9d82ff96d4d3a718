"""Redis for the contract: a server alone, one behind Sentinels, and a cluster, each started once for the whole run."""

import atexit
import functools
from typing import TYPE_CHECKING

from redis import Redis

from app.streams.redis.log import RedisLog
from tests.support.redis import RedisCluster, RedisServer, SentinelGroup

if TYPE_CHECKING:
    from tests.contract.logs import Options

REDIS = {"redis": RedisServer, "sentinel": SentinelGroup, "cluster": RedisCluster}


def redis_address(name: str) -> str:
    """The deployment's address, with no key in it."""
    deployment = _started(name)
    for server in deployment.servers:
        server.ask("FLUSHALL")
    return f"redis:{','.join(str(server.port) for server in deployment.servers)}|{deployment.url}"


async def open_redis(place: str, options: "Options") -> RedisLog:
    """The bound on the whole store is the servers' own: here, what they use already and `bytes_max` more."""
    ports, _, url = place.partition("|")
    for port in ports.split(","):
        with Redis(port=int(port), protocol=2) as client:
            client.config_set("maxmemory", client.info("memory")["used_memory"] + options.bytes_max)
    # A machine that runs other tests beside this one may be slow, and this suite is not about that.
    log = RedisLog(url, options.stream_bytes_max, options.ttl_seconds, options.lease_seconds, command_seconds=5.0)
    return await log.open()


@functools.cache
def _started(name: str) -> RedisServer | SentinelGroup | RedisCluster:
    deployment: RedisServer | SentinelGroup | RedisCluster = REDIS[name]()
    atexit.register(deployment.__exit__, None, None, None)
    return deployment.__enter__()
