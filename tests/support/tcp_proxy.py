"""A TCP proxy in the test's own loop, which delays, freezes, cuts and reroutes what goes through it."""

import asyncio
import contextlib
from types import TracebackType
from typing import Self


class ProxiedConnection:
    """One client's connection. `frozen`: it stays open, and nothing goes through any more, as on a half-open one."""

    def __init__(self, client: asyncio.StreamWriter, target: asyncio.StreamWriter, target_port: int) -> None:
        self.frozen = False
        self.target_port = target_port
        self.sent = bytearray()
        """What the client said so far."""
        self._ends = (client, target)

    @property
    def open(self) -> bool:
        return not any(end.is_closing() for end in self._ends)

    def cut(self) -> None:
        """RST to both ends."""
        for end in self._ends:
            end.transport.abort()


class TcpProxy:
    """Use as an async context manager.

    Args:
        target_port: where new connections go; may be changed.
        delay_seconds: how late everything arrives, either way.
    """

    def __init__(self, target_port: int, delay_seconds: float = 0.0) -> None:
        self.target_port = target_port
        self.delay_seconds = delay_seconds
        self.connections: list[ProxiedConnection] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """RST to all that are open."""
        for connection in self.connections:
            connection.cut()

    async def _serve(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        port = self.target_port
        try:
            from_target, to_target = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            to_client.transport.abort()
            return
        connection = ProxiedConnection(to_client, to_target, port)
        self.connections.append(connection)
        for source, drain, said in ((from_client, to_target, connection.sent), (from_target, to_client, None)):
            task = asyncio.create_task(self._pump(connection, source, drain, said))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(
        self,
        connection: ProxiedConnection,
        source: asyncio.StreamReader,
        drain: asyncio.StreamWriter,
        said: bytearray | None,
    ) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                if said is not None:
                    said += data
                if self.delay_seconds:
                    # Later, not slower: what follows at once arrives at once behind it.
                    loop.call_later(self.delay_seconds, self._write, connection, drain, data)
                else:
                    self._write(connection, drain, data)
            if not connection.frozen:
                drain.close()

    def _write(self, connection: ProxiedConnection, drain: asyncio.StreamWriter, data: bytes) -> None:
        if not connection.frozen and not drain.is_closing():
            drain.write(data)
