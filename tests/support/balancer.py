"""What a Service does before several instances: each new connection goes to one of those whose /readyz says so."""

import asyncio
import contextlib
from collections.abc import Sequence

import aiohttp

from tests.support.chain import Chain
from tests.support.forwarder import Ends, Forwarder

PROBE_SECONDS = 0.2


class Balancer(Forwarder):
    """By turns.

    Args:
        instances: may be changed while it runs.
    """

    def __init__(self, instances: Sequence[Chain]) -> None:
        super().__init__()
        self.instances = list(instances)
        self.ready: list[Chain] = []
        self._turn = 0

    async def until_ready(self, instance: Chain) -> None:
        """Until new connections go there."""
        while instance not in self.ready:  # noqa: ASYNC110 - the prober says so at intervals
            await asyncio.sleep(PROBE_SECONDS / 4)

    async def _look(self) -> None:
        timeout = aiohttp.ClientTimeout(total=1)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                self.ready = [chain for chain in self.instances if await _is_ready(session, chain)]
                await asyncio.sleep(PROBE_SECONDS)

    async def _connect(self) -> Ends | None:
        for _ in range(len(self.ready)):
            self._turn += 1
            ready = list(self.ready)
            with contextlib.suppress(OSError, ZeroDivisionError):
                return await asyncio.open_connection("127.0.0.1", ready[self._turn % len(ready)].port)
        return None


async def _is_ready(session: aiohttp.ClientSession, chain: Chain) -> bool:
    try:
        async with session.get(f"{chain.url}/readyz", headers={"Connection": "close"}) as answer:
            return answer.status == 200
    except (aiohttp.ClientError, TimeoutError, OSError):
        return False
