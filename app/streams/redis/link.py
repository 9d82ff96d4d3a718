"""One bucket's commands to Redis: every one bounded in time, refused at once while Redis is away, safe to cancel.

A connection is used again only if its reply was read to the end. Whatever else happens to a command, a timeout or a
cancelled caller, closes the connection, so that no reply reaches the next one. Nothing is sent twice: who does not know
whether a write was done is told so, and decides.
"""

import asyncio
import random
from time import monotonic
from typing import Any, NoReturn

import structlog
from redis.exceptions import RedisError

from app.errors import LogFull, LogUnavailable
from app.streams.redis.script import Script
from app.streams.redis.topology import Connector, Topology
from app.streams.redis.url import Address
from app.streams.redis.wire import Argument, ReplyError, Wire

log = structlog.get_logger(__name__)

RETRY_SECONDS_MIN = 0.05
# Redis counts as back at most this long, and one round trip, after it is.
RETRY_SECONDS_MAX = 1.0
# For a free connection. Only while commands come back, since the first that does not lets all who wait go.
QUEUE_SECONDS = 2.0
# Finding the server again may mean asking several Sentinels or nodes, of which some are gone too.
LOCATE_SECONDS = 1.0
# By these a server says that it is not the one, or not now: look where the bucket is. While a cluster moves the slot
# itself, its keys are on two nodes and no script can run: the bucket is away until then.
_ELSEWHERE = {
    *("READONLY", "MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN", "LOADING"),
    *("NOREPLICAS", "MISCONF"),
}


class OutcomeUnknown(LogUnavailable):
    """The command was sent, and no answer came: it may be carried out, also later than this."""


class Link:
    """To the server that holds `bucket`.

    Args:
        command_seconds: a command that takes longer counts as failed. Connecting may take as long once more.
        connections_max: commands at one time.
    """

    def __init__(
        self, connector: Connector, topology: Topology, bucket: int, command_seconds: float, connections_max: int
    ) -> None:
        self.bucket = bucket
        self.prefix = f"sluice:{{b{bucket}}}:"
        self._connector = connector
        self._topology = topology
        self._command_seconds = command_seconds
        self._slots = asyncio.Semaphore(connections_max)
        self._free: list[Wire] = []
        self._address: Address | None = None
        self._recovering: asyncio.Task[None] | None = None
        self._reason = ""
        # Which process it is, as `Wire` knows it.
        self.server = b""
        # When the server was found again, and how long it had been away, by this process's clock.
        self.back_at = self._lost_at = float("-inf")
        self.away_seconds = 0.0

    async def call(self, script: Script, *arguments: Argument) -> Any:
        """Run a script on the bucket.

        Raises:
            LogFull: Redis has no memory for it.
            OutcomeUnknown: it may have run, or may yet.
            LogUnavailable: it has not run.
        """
        reply = await self._bounded(b"EVALSHA", script.sha, *arguments)
        if isinstance(reply, ReplyError):
            if _code(reply) != "NOSCRIPT":
                self._refused(reply)
            reply = await self._bounded(b"EVAL", script.text, *arguments)
            if isinstance(reply, ReplyError):
                self._refused(reply)
        return reply

    async def info(self) -> dict[str, str]:
        """What the server says of itself; nothing where the user may not ask."""
        text = await self._bounded(b"INFO", b"")
        if isinstance(text, ReplyError):
            return {}
        pairs = (line.partition(":") for line in text.decode().splitlines())
        return {name: value for name, colon, value in pairs if colon}

    async def connect(self) -> None:
        """Find the server and see that it takes writes.

        Raises:
            RedisError, OSError, TimeoutError: it does not.
        """
        async with asyncio.timeout(LOCATE_SECONDS):
            self._address = await self._topology.locate(self.bucket)
        wire = await self.open_wire()
        # A write that takes no memory: replicas refuse it, and servers that cannot persist.
        try:
            reply = await wire.ask(self._command_seconds, b"DEL", f"{self.prefix}none")
            if isinstance(reply, ReplyError):
                raise ConnectionError(str(reply))
        except BaseException:
            await wire.close()
            raise
        self._free.append(wire)

    async def open_wire(self) -> Wire:
        """A connection of the caller's own.

        Raises:
            RedisError, OSError, TimeoutError: none to be had.
        """
        if self._address is None:
            raise ConnectionError("not connected yet")
        wire = Wire(self._connector.connection(self._address))
        try:
            await wire.connect(self._command_seconds)
        except BaseException:
            await wire.close()
            raise
        self.server = wire.server
        return wire

    @property
    def away(self) -> bool:
        """Whether commands are refused at once."""
        return self._recovering is not None

    async def aclose(self) -> None:
        if self._recovering is not None:
            self._recovering.cancel()
            await asyncio.gather(self._recovering, return_exceptions=True)
        await self._drop_free()

    async def _bounded(self, verb: bytes, what: bytes, *arguments: Argument) -> Any:
        if self._slots.locked():
            try:
                async with asyncio.timeout(QUEUE_SECONDS):
                    await self._slots.acquire()
            except TimeoutError:
                raise LogUnavailable("The stream log is too busy.", retry_after_seconds=1) from None
        else:
            await self._slots.acquire()
        try:
            return await self._exchange(verb, what, arguments)
        finally:
            self._slots.release()

    async def _exchange(self, verb: bytes, what: bytes, arguments: tuple[Argument, ...]) -> Any:
        if self._recovering is not None:
            raise self._unavailable()
        wire: Wire | None = None
        sent = False
        try:
            wire = await self._take()
            sent = True
            if what:
                reply = await wire.ask(self._command_seconds, verb, what, 1, self.prefix, wire.server, *arguments)
            else:
                reply = await wire.ask(self._command_seconds, verb)
        except (RedisError, OSError, TimeoutError) as error:
            if wire is not None:
                await wire.close()
            self._lost(error)
            raise self._unavailable(OutcomeUnknown if sent else LogUnavailable) from error
        except BaseException:
            if wire is not None:
                await wire.close()
            raise
        self._free.append(wire)
        return reply

    async def _take(self) -> Wire:
        while self._free:
            wire = self._free.pop()
            if not wire.lost:
                return wire
            await wire.close()
        return await self.open_wire()

    def _refused(self, error: ReplyError) -> NoReturn:
        text = str(error)
        # In the whole text, for where a script fails the code may be inside the message.
        words = set(text.replace("-", " ").split())
        if "OOM" in words:
            raise LogFull("The server's stream log is full.", detail=text, retry_after_seconds=5) from error
        if words & _ELSEWHERE:
            self._lost(error)
        raise LogUnavailable("The stream log refuses.", detail=text, retry_after_seconds=1) from error

    def _lost(self, error: BaseException) -> None:
        """Refuse commands from now on until the server is found again."""
        if self._recovering is None:
            self._reason = f"{type(error).__name__}: {error}"
            log.warning("redis lost", server=self._connector.url.safe, bucket=self.bucket, reason=self._reason)
            self._lost_at = monotonic()
            self._recovering = asyncio.create_task(self._recover(), name=f"redis-recover-{self.bucket}")

    async def _recover(self) -> None:
        await self._drop_free()
        pause = RETRY_SECONDS_MIN
        while True:
            try:
                await self.connect()
                break
            except (RedisError, OSError, TimeoutError) as error:
                self._reason = f"{type(error).__name__}: {error}"
            # Jitter, so that all workers do not come back in the same moment.
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
            pause = min(2 * pause, RETRY_SECONDS_MAX)
        log.info("redis back", server=self._connector.url.safe, bucket=self.bucket)
        self.back_at = monotonic()
        self.away_seconds = self.back_at - self._lost_at
        self._recovering = None

    def _unavailable(self, kind: type[LogUnavailable] = LogUnavailable) -> LogUnavailable:
        detail = f"{self._connector.url.safe}: {self._reason}"
        return kind("The stream log does not answer.", detail=detail, retry_after_seconds=1)

    async def _drop_free(self) -> None:
        while self._free:
            await self._free.pop().close()


def _code(error: ReplyError) -> str:
    return str(error).partition(" ")[0]
