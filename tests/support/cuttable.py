"""A way to a server that can be cut, for clients that need the test's own thread to themselves, as a browser does."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.tcp_proxy import TcpProxy

START_SECONDS_MAX = 10.0


class Cuttable:
    """`url` leads to the server."""

    def __init__(self, proxy: TcpProxy, loop: asyncio.AbstractEventLoop) -> None:
        self.url = f"http://127.0.0.1:{proxy.port}"
        self._proxy = proxy
        self._loop = loop

    def connections(self) -> int:
        """How many there were so far."""
        return len(self._proxy.connections)

    def cut(self) -> int:
        """Reset every connection that is open; how many that were."""

        async def cut() -> int:
            found = [connection for connection in self._proxy.connections if connection.open]
            self._proxy.cut()
            return len(found)

        return asyncio.run_coroutine_threadsafe(cut(), self._loop).result(START_SECONDS_MAX)


@contextmanager
def cuttable(port: int) -> Iterator[Cuttable]:
    """Leads to 127.0.0.1:`port`, on a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="cuttable", daemon=True)
    thread.start()
    proxy = TcpProxy(port)
    asyncio.run_coroutine_threadsafe(proxy.__aenter__(), loop).result(START_SECONDS_MAX)
    try:
        yield Cuttable(proxy, loop)
    finally:
        asyncio.run_coroutine_threadsafe(proxy.__aexit__(None, None, None), loop).result(START_SECONDS_MAX)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(START_SECONDS_MAX)
        loop.close()
