"""Ends the connections that an API key opened once the key is withdrawn: a socket could go on asking for ten minutes.

What they read goes on, under the rules for streams that nobody reads: whoever has another key of that caller may come
back to it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import structlog

from app.errors import IdentityUnavailable
from app.security.principal import Principal
from app.security.watched import LOOK_SECONDS
from app.streams.connection import Connection

log = structlog.get_logger(__name__)


class Withdrawal:
    """One for each worker.

    Args:
        connections: those that are open.
        owner_of: whose key has a hash; None once it is withdrawn or has expired.
    """

    def __init__(
        self,
        connections: Callable[[], Iterable[Connection]],
        owner_of: Callable[[bytes], Awaitable[Principal | None]],
    ) -> None:
        self._connections = connections
        self._owner_of = owner_of

    async def run(self) -> None:
        """Look again and again."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Each key is asked for once, however many connections it opened."""
        gone = set()
        for key in {connection.key for connection in self._connections() if connection.key}:
            try:
                if await self._owner_of(key) is None:
                    gone.add(key)
            except IdentityUnavailable:
                break  # an outage ends nobody's connection; the other keys would wait for it too
            except Exception:
                log.exception("a key cannot be looked up")  # its record may be wrong; the other keys are looked at
        if gone:
            for connection in self._connections():
                if connection.key in gone:
                    connection.leave("reauthenticate")
