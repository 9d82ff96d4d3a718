"""Hands over what this worker has, so that it can go: readers are asked to reconnect, generations run on without them.

Readers are moved one by one, since their reconnects meet what is left of the capacity. What still runs at the deadline
is let go, for a worker that reads the same log to take over.
"""

import asyncio
import random
from collections.abc import Sequence

import structlog

from app.errors import LogUnavailable
from app.observability.figures import figures
from app.observability.metrics import RELEASED
from app.streams.connection import Connection
from app.streams.live import LiveStream
from app.streams.registry import Streams

log = structlog.get_logger(__name__)

# Closing an upstream takes milliseconds; one that hangs must not hold the exit.
STOP_SECONDS_MAX = 2.0
# Fewer than a log has connections for.
RELEASES_AT_ONCE = 8


class Drain:
    """One for each worker.

    Args:
        spread_seconds: the time over which readers are asked to reconnect.
        shared_log: whether workers of other machines read the same log.
    """

    def __init__(self, streams: Streams, spread_seconds: float, shared_log: bool) -> None:
        self._streams = streams
        self._spread_seconds = spread_seconds
        self._shared_log = shared_log
        self._movable: set[Connection] = set()
        self._staying: set[Connection] = set()
        self._resting: set[Connection] = set()
        self._let_go: set[LiveStream] = set()
        self._begun = False
        self._moving = False
        self._over = False

    def enter(self, connection: Connection, resumable: bool) -> None:
        """A connection begins to read a stream; `resumable` ones may be moved."""
        (self._movable if resumable else self._staying).add(connection)
        if self._over:
            connection.leave("drain")
        elif resumable and self._moving:
            self._move(connection)

    def rest(self, connection: Connection) -> None:
        """A connection that reads nothing just now is open: it has nothing to lose."""
        self._resting.add(connection)
        if self._over:
            connection.leave("drain")
        elif self._begun:
            self._move(connection)

    def leave(self, connection: Connection) -> None:
        """A connection has ended, or has left off what it did."""
        for kind in (self._movable, self._staying, self._resting):
            kind.discard(connection)

    @property
    def readers(self) -> int:
        """Connections that read a stream."""
        return len(self._movable) + len(self._staying)

    @property
    def connections(self) -> list[Connection]:
        """All that are open."""
        return [*self._movable, *self._staying, *self._resting]

    @property
    def idle(self) -> bool:
        """Nobody reads here and nothing is produced."""
        return not (self._movable or self._staying or self._resting or self._streams.owned)

    def begin(self) -> None:
        """Start nothing new, and move the readers where another worker can serve them."""
        self._streams.draining = True
        self._moving = self._shared_log or not self._streams.pod_draining()
        if self._moving:
            self._streams.takes_over = False
            for connection in list(self._movable):
                self._move(connection)
        if not self._begun:
            self._begun = True
            for connection in list(self._resting):
                self._move(connection)

    async def finish(self) -> None:
        """The deadline: let go of everything that is left."""
        self._streams.takes_over = False
        # The lifespan finishes again, for a server that did not: each is let go, and counted, once.
        left = [live for live in self._streams.owned if live not in self._let_go]
        self._let_go.update(left)
        if left:
            figures.add(RELEASED, len(left))
            log.warning("drain deadline reached, streams are released", streams=len(left))
        stopping = [task for live in left if (task := self._stop(live)) is not None]
        if stopping:
            # Their upstreams' connections are closed before the pools under them are.
            await asyncio.wait(stopping, timeout=STOP_SECONDS_MAX)
        await self._streams.committer.flush()
        self._streams.released = True
        # The first failure ends it: hundreds that each wait for a log that is away would take longer than there is.
        try:
            await self._give_up(left)
        except LogUnavailable as error:
            log.warning("log unavailable", detail=error.detail or error.message)
        try:
            await self._streams.backend.expire(self._streams.owner)
        except LogUnavailable as error:
            # The lease runs out by itself.
            log.warning("log unavailable", detail=error.detail or error.message)
        self._over = True
        for connection in self.connections:
            connection.leave("drain")

    async def _give_up(self, left: Sequence[LiveStream]) -> None:
        """One by one, for the log to know that they were not taken from a worker that died of them."""
        backend = self._streams.backend
        owned = [(live.stream_id, live.generation.fence) for live in left if live.generation is not None]
        for first in range(0, len(owned), RELEASES_AT_ONCE):
            some = owned[first : first + RELEASES_AT_ONCE]
            await asyncio.gather(*(backend.release(*one) for one in some))

    def _stop(self, live: LiveStream) -> asyncio.Task[None] | None:
        if live.generation is None:
            return None
        live.generation.stop()
        return live.generation.task

    def _move(self, connection: Connection) -> None:
        delay_seconds = random.uniform(0, self._spread_seconds)  # noqa: S311
        asyncio.get_running_loop().call_later(delay_seconds, connection.leave, "drain")
