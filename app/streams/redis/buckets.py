"""The buckets that the streams are spread over, each with its link; and what is done to all of them."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any
from zlib import crc32

import structlog
from redis.exceptions import RedisError

from app.errors import LogUnavailable
from app.streams.redis.link import RETRY_SECONDS_MAX, Link
from app.streams.redis.script import Script
from app.streams.redis.topology import Connector, Topology
from app.streams.redis.wire import Argument

log = structlog.get_logger(__name__)


class Buckets:
    """All links of one handle.

    Args:
        command_seconds, connections_max: see `Link`.
    """

    def __init__(self, connector: Connector, topology: Topology, command_seconds: float, connections_max: int) -> None:
        self._topology = topology
        self._safe_url = connector.url.safe
        self.links = [
            Link(connector, topology, bucket, command_seconds, connections_max) for bucket in range(topology.buckets)
        ]
        self._undoing: set[asyncio.Task[None]] = set()

    def number(self, name: str) -> int:
        """The bucket of a stream, or of an idempotency key. The same in every process, unlike Python's hash."""
        return crc32(name.encode()) % len(self.links)

    def of(self, name: str) -> Link:
        return self.links[self.number(name)]

    def undo(self, link: Link, script: Script, *arguments: Argument) -> None:
        """Take back, as soon as Redis answers, what may have been done without our knowing."""

        async def run() -> None:
            while True:
                try:
                    await link.call(script, *arguments)
                    return
                except LogUnavailable:
                    await asyncio.sleep(RETRY_SECONDS_MAX * random.uniform(0.2, 0.5))  # noqa: S311

        task = asyncio.create_task(run(), name="redis-undo")
        self._undoing.add(task)
        task.add_done_callback(self._undoing.discard)

    async def everywhere(
        self, script: Script, *arguments: Argument, only: Callable[[Link], bool] = lambda _: True
    ) -> list[Any]:
        """Run a script on every bucket, or on some of them; the replies of those that answered.

        Raises:
            LogUnavailable: none did. Where some did, the streams of the others are none of their business.
        """
        links = [link for link in self.links if only(link)]
        if len(links) == 1:
            return [await links[0].call(script, *arguments)]
        replies = await _all(link.call(script, *arguments) for link in links)
        answers = [reply for reply in replies if not isinstance(reply, BaseException)]
        for reply in replies:
            if isinstance(reply, BaseException) and (not answers or not isinstance(reply, LogUnavailable)):
                raise reply
        return answers

    async def connect(self) -> None:
        """Reach the servers; after a failure, `aclose` is still to be called.

        Raises:
            LogUnavailable: one does not answer; the message says which, without the password.
        """
        try:
            await gather(*(link.connect() for link in self.links))
        except (RedisError, OSError, TimeoutError) as error:
            raise LogUnavailable(f"{self._safe_url}: {str(error) or 'no answer in time'}") from error

    async def aclose(self) -> None:
        for task in self._undoing:
            task.cancel()
        await asyncio.gather(*self._undoing, return_exceptions=True)
        for link in self.links:
            await link.aclose()
        await self._topology.aclose()


async def _all(calls: Any) -> list[Any]:
    found: list[Any] = await asyncio.gather(*calls, return_exceptions=True)
    return found


async def gather(*calls: Coroutine[Any, Any, Any]) -> list[Any]:
    """All of them to the end; then the first error, if there was one, is raised."""
    found = await _all(calls)
    for one in found:
        if isinstance(one, BaseException):
            raise one
    return found
