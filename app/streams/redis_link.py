"""One bucket's commands to Redis: every one bounded in time, refused at once while Redis is away, safe to cancel.

A connection serves one command at a time, and is used again only if its reply was read to the end. Whatever else
happens to a command, a timeout or a cancelled caller, closes the connection, so that no reply reaches the next one.
Nothing is sent twice: who does not know whether a write was done is told so, and decides.
"""

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import structlog
from hiredis import pack_command
from redis.asyncio.connection import Connection
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MasterDownError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError

from app.errors import LogFull, LogUnavailable
from app.streams.redis_scripts import Script
from app.streams.redis_topology import Connector, Topology
from app.streams.redis_url import Address

log = structlog.get_logger(__name__)

Argument = str | bytes | int

RETRY_SECONDS_MIN = 0.05
# Redis counts as back at most this long, and one round trip, after it is.
RETRY_SECONDS_MAX = 1.0
# Finding the server again may mean asking several Sentinels or nodes, of which some are gone too.
LOCATE_SECONDS = 1.0
# By these a server says that it is not the one, or not now: look where the bucket is. MovedError is an AskError. While
# a cluster moves the slot itself, its keys are on two nodes and no script can run: the bucket is away until then.
_ELSEWHERE = (ReadOnlyError, AskError, TryAgainError, ClusterDownError, MasterDownError)


class OutcomeUnknown(LogUnavailable):
    """The command was sent, and no answer came: it may be carried out, also later than this."""


class _Wire:
    """A connection and the id of the server's process at its other end."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.server = b""

    async def connect(self) -> None:
        await self.connection.connect()  # type: ignore[no-untyped-call]
        try:
            info: bytes = await self.ask(b"INFO", b"server")
            self.server = next(line[7:23] for line in info.splitlines() if line.startswith(b"run_id:"))
        except (ResponseError, StopIteration):
            self.server = b""  # a user that may not ask; then a failover is not noticed at a takeover

    async def ask(self, *command: Argument) -> Any:
        # Its stub asks for a tuple of one element.
        packed = pack_command(command)  # type: ignore[arg-type]
        await self.connection.send_packed_command(packed, check_health=False)
        return await self.connection.read_response()

    async def close(self) -> None:
        await self.connection.disconnect(nowait=True)


class Link:
    """To the server that holds `bucket`.

    Args:
        command_seconds: a command that takes longer counts as failed, connecting included.
        connections_max: commands at one time; more wait, for `command_seconds` at most.
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
        self._free: list[_Wire] = []
        self._address: Address | None = None
        self._recovering: asyncio.Task[None] | None = None
        self._reason = ""

    async def call(self, script: Script, *arguments: Argument) -> Any:
        """Run a script on the bucket.

        Raises:
            LogFull: Redis has no memory for it.
            OutcomeUnknown: it may have run, or may yet.
            LogUnavailable: it has not run.
        """
        try:
            return await self._bounded(b"EVALSHA", script.sha, arguments)
        except NoScriptError:
            return await self._bounded(b"EVAL", script.text, arguments)

    async def info(self) -> dict[str, str]:
        """What the server says of itself."""
        text: bytes = await self._bounded(b"INFO", b"", ())
        pairs = (line.split(":", 1) for line in text.decode().splitlines() if ":" in line)
        return {name: value for name, value in pairs}  # noqa: C416 - a list of two is no tuple for dict()

    async def connect(self) -> None:
        """Find the server and see that it takes writes.

        Raises:
            RedisError, OSError, TimeoutError: it does not.
        """
        async with asyncio.timeout(LOCATE_SECONDS):
            self._address = await self._topology.locate(self.bucket)
        async with asyncio.timeout(self._command_seconds):
            wire = _Wire(self._connector.connection(self._address))
            try:
                await wire.connect()
                # A write that takes no memory: replicas and servers that cannot persist refuse it.
                await wire.ask(b"DEL", f"{self.prefix}none")
            except BaseException:
                await wire.close()
                raise
        self._free.append(wire)

    async def open_tail(self) -> Connection:
        """A connection of the caller's own, to the same server. Callers bound the time."""
        if self._recovering is not None or self._address is None:
            raise self._unavailable()
        connection = self._connector.connection(self._address)
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return connection

    async def aclose(self) -> None:
        if self._recovering is not None:
            self._recovering.cancel()
            await asyncio.gather(self._recovering, return_exceptions=True)
        await self._drop_free()

    async def _bounded(self, verb: bytes, what: bytes, arguments: Sequence[Argument]) -> Any:
        if self._recovering is not None:
            raise self._unavailable()
        wire: _Wire | None = None
        sent = False
        try:
            async with asyncio.timeout(self._command_seconds), self._slots:
                if self._recovering is not None:
                    raise self._unavailable()
                wire = await self._take()
                sent = True
                if what:
                    reply = await wire.ask(verb, what, 1, self.prefix, wire.server, *arguments)
                else:
                    reply = await wire.ask(verb)
        except ResponseError as error:
            self._refused(wire, error)
            raise
        except (RedisError, OSError, TimeoutError) as error:
            await self._discard(wire)
            if wire is None and isinstance(error, TimeoutError) and self._slots.locked():
                raise LogUnavailable("The stream log is too busy.", retry_after_seconds=1) from error
            self._lost(error)
            raise self._unavailable(OutcomeUnknown if sent else LogUnavailable) from error
        except BaseException:
            await self._discard(wire)
            raise
        self._free.append(wire)
        return reply

    async def _take(self) -> _Wire:
        while self._free:
            wire = self._free.pop()
            # Something to read before a command means that the server has closed: it was restarted, or timed us out.
            if wire.connection.is_connected and not await wire.connection.can_read():
                return wire
            await wire.close()
        if self._address is None:
            raise RedisConnectionError("not connected yet")
        wire = _Wire(self._connector.connection(self._address))
        try:
            await wire.connect()
        except BaseException:
            await wire.close()
            raise
        return wire

    def _refused(self, wire: _Wire | None, error: ResponseError) -> None:
        """An error reply: the connection is as good as before; what the error means depends."""
        if wire is not None:
            self._free.append(wire)
        if isinstance(error, NoScriptError):
            return
        text = f"{type(error).__name__}: {error}"
        # By text where a script fails: before Redis 7 the code is inside the message.
        if "OutOfMemory" in text or "OOM" in text:
            raise LogFull("The server's stream log is full.", detail=text, retry_after_seconds=5) from error
        if isinstance(error, _ELSEWHERE) or "READONLY" in text:
            self._lost(error)
        raise LogUnavailable("The stream log refuses.", detail=text, retry_after_seconds=1) from error

    def _lost(self, error: BaseException) -> None:
        """Refuse commands from now on until the server is found again."""
        if self._recovering is None:
            self._reason = f"{type(error).__name__}: {error}".removesuffix(": ")
            log.warning("redis lost", server=self._connector.url.safe, bucket=self.bucket, reason=self._reason)
            self._recovering = asyncio.create_task(self._recover(), name=f"redis-recover-{self.bucket}")

    async def _recover(self) -> None:
        await self._drop_free()
        pause = RETRY_SECONDS_MIN
        while True:
            try:
                await self.connect()
                break
            except (RedisError, OSError, TimeoutError) as error:
                self._reason = f"{type(error).__name__}: {error}".removesuffix(": ")
            # Jitter, so that all workers do not come back in the same moment.
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
            pause = min(2 * pause, RETRY_SECONDS_MAX)
        log.info("redis back", server=self._connector.url.safe, bucket=self.bucket)
        self._recovering = None

    def _unavailable(self, kind: type[LogUnavailable] = LogUnavailable) -> LogUnavailable:
        detail = f"{self._connector.url.safe}: {self._reason}"
        return kind("The stream log does not answer.", detail=detail, retry_after_seconds=1)

    async def _discard(self, wire: _Wire | None) -> None:
        if wire is not None:
            await wire.close()

    async def _drop_free(self) -> None:
        while self._free:
            await self._free.pop().close()
