"""What a Service does before several instances: each new connection goes to one of those whose /readyz says so."""

import asyncio
import contextlib
from collections.abc import Coroutine, Sequence
from types import TracebackType
from typing import Any, Self

import aiohttp

from tests.support.chain import Chain

PROBE_SECONDS = 0.2


class Balancer:
    """By turns; connections that are open stay where they are. Use as an async context manager.

    Args:
        instances: may be changed while it runs.
    """

    def __init__(self, instances: Sequence[Chain]) -> None:
        self.instances = list(instances)
        self.ready: list[Chain] = []
        self._turn = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1024)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        self._begin(self._probe())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # closed connections let go of their sockets in the next turn

    async def until_ready(self, instance: Chain) -> None:
        """Until new connections go there."""
        while instance not in self.ready:  # noqa: ASYNC110 - the prober says so at intervals
            await asyncio.sleep(PROBE_SECONDS / 4)

    def _begin(self, job: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(job)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _probe(self) -> None:
        timeout = aiohttp.ClientTimeout(total=1)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                self.ready = [chain for chain in self.instances if await _is_ready(session, chain)]
                await asyncio.sleep(PROBE_SECONDS)

    async def _serve(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        ends = await self._connect()
        if ends is None:
            to_client.transport.abort()
            return
        from_instance, to_instance = ends
        self._begin(pump(from_client, to_instance))
        self._begin(pump(from_instance, to_client))

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
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


async def pump(source: asyncio.StreamReader, drain: asyncio.StreamWriter) -> None:
    """One way of a connection, until its end or its cut."""
    try:
        while data := await source.read(65_536):
            drain.write(data)
            await drain.drain()
    except OSError:
        drain.transport.abort()
    finally:
        drain.close()
