"""A port whose connections are passed on to one of several places."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self

# Both ends of a connection.
Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Forwarder(ABC):
    """Use as an async context manager. Connections that are open stay where they are."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    @abstractmethod
    async def _connect(self) -> Ends | None:
        """Where a new connection goes; None cuts it."""

    @abstractmethod
    async def _look(self) -> None:
        """Learn where there is to go, until cancelled."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1024)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        self._begin(self._look())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # closed connections let go of their sockets in the next turn

    async def _serve(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        ends = await self._connect()
        if ends is None:
            to_client.transport.abort()
            return
        from_server, to_server = ends
        self._begin(_pump(from_client, to_server))
        self._begin(_pump(from_server, to_client))

    def _begin(self, job: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(job)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _pump(source: asyncio.StreamReader, drain: asyncio.StreamWriter) -> None:
    """One way of a connection, until its end or its cut."""
    try:
        while data := await source.read(65_536):
            drain.write(data)
            await drain.drain()
    except OSError:
        drain.transport.abort()
    finally:
        drain.close()
