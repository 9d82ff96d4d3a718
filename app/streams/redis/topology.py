"""Which server holds which bucket of the stream log: always that one, the Sentinels' word, or the cluster's slots.

A bucket is a group of keys with one hash tag, so that a script may touch them together. One is enough where one server
holds everything; in a cluster 16 spread the load, and are still few enough for one tail connection each.
"""

from typing import Any, Protocol

from redis.asyncio.connection import Connection, SSLConnection
from redis.asyncio.sentinel import Sentinel
from redis.crc import key_slot
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from app.streams.redis.url import Address, RedisURL

CLUSTER_BUCKETS = 16


class Topology(Protocol):
    """Where a bucket is now."""

    buckets: int

    async def locate(self, bucket: int) -> Address:
        """Look it up afresh. Callers bound the time.

        Raises:
            RedisError, OSError: nobody could say.
        """
        ...

    async def aclose(self) -> None: ...


class Connector:
    """Makes connections; what they have in common comes from the URL.

    They carry no socket timeout of their own: whoever waits on one bounds the wait, connect included.
    """

    def __init__(self, url: RedisURL, connect_seconds: float) -> None:
        self.url = url
        self._arguments: dict[str, Any] = {
            "db": url.db,
            "username": url.username,
            "password": url.password,
            "socket_timeout": None,
            "socket_connect_timeout": connect_seconds,
            # RESP2 has no push messages, which could come between a command and its reply; we use no RESP3 type.
            "protocol": 2,
            # No CLIENT SETINFO: two commands more at every reconnect, and Redis before 7.2 does not know it.
            "driver_info": None,
        }

    def connection(self, address: Address) -> Connection:
        """A connection that is not connected yet."""
        host, port = address
        if self.url.tls:
            return SSLConnection(host=host, port=port, **self._arguments, **tls_options(self.url))
        return Connection(host=host, port=port, **self._arguments)


def tls_options(url: RedisURL) -> dict[str, Any]:
    """What the URL says of certificates."""
    return {name: value for name, value in url.options.items() if name.startswith("ssl_")}


class Standalone:
    """One server, one bucket."""

    buckets = 1

    def __init__(self, address: Address) -> None:
        self._address = address

    async def locate(self, bucket: int) -> Address:  # noqa: ARG002
        return self._address

    async def aclose(self) -> None:
        return


class Sentinels:
    """The master that the Sentinels agree on, asked again after every failure."""

    buckets = 1

    def __init__(self, url: RedisURL, connect_seconds: float) -> None:
        self._service = url.service
        arguments: dict[str, Any] = {
            "socket_timeout": connect_seconds,
            "socket_connect_timeout": connect_seconds,
            "protocol": 2,
            "retry": None,  # whoever asks tries again, with a pause that grows
            "username": url.options.get("sentinel_username"),
            "password": url.options.get("sentinel_password"),
        }
        if url.tls:
            arguments |= {"ssl": True, **tls_options(url)}
        self._sentinel = Sentinel(list(url.addresses), sentinel_kwargs=arguments)  # type: ignore[no-untyped-call]

    async def locate(self, bucket: int) -> Address:  # noqa: ARG002
        host, port = await self._sentinel.discover_master(self._service)
        return str(host), int(port)

    async def aclose(self) -> None:
        for sentinel in self._sentinel.sentinels:
            await sentinel.aclose()


class Cluster:
    """The master of the bucket's slot, asked of any node that answers."""

    buckets = CLUSTER_BUCKETS

    def __init__(self, connector: Connector) -> None:
        self._connector = connector
        self._seeds = connector.url.addresses
        self._nodes: set[Address] = set()

    async def locate(self, bucket: int) -> Address:
        slot = key_slot(f"{{b{bucket}}}".encode())
        error: Exception = RedisConnectionError("no node of the cluster answers")
        for node in (*self._seeds, *self._nodes.difference(self._seeds)):
            try:
                ranges = await self._slots(node)
            except (RedisError, OSError) as failure:
                error = failure
                continue
            self._nodes = {_address(master, node) for _, _, master, *_ in ranges}
            for first, last, master, *_ in ranges:
                if first <= slot <= last:
                    return _address(master, node)
        raise error

    async def _slots(self, node: Address) -> list[Any]:
        connection = self._connector.connection(node)
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
            await connection.send_command("CLUSTER SLOTS")
            return list(await connection.read_response())
        finally:
            await connection.disconnect(nowait=True)

    async def aclose(self) -> None:
        return


def _address(master: list[Any], asked: Address) -> Address:
    """An empty host means the one that was asked."""
    return (master[0] or b"").decode() or asked[0], int(master[1])


def topology_of(connector: Connector, connect_seconds: float) -> Topology:
    """The topology that the URL names."""
    url = connector.url
    if url.kind == "sentinel":
        return Sentinels(url, connect_seconds)
    if url.kind == "cluster":
        return Cluster(connector)
    return Standalone(url.addresses[0])
