"""What kube-proxy does for a Service: each new connection goes to some endpoint, and endpoints are learnt of late."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from time import monotonic
from types import TracebackType
from typing import Any, Self

from tests.support.balancer import pump
from tests.support.kubelet import Pod

LOOK_SECONDS = 0.1


class Service:
    """Use as an async context manager; `pods` may be changed while it runs.

    Args:
        late_seconds: how long a pod that is not to be asked any more is still asked.
        port: of the pods.
    """

    def __init__(self, late_seconds: float, port: int) -> None:
        self.pods: list[Pod] = []
        self.connections: dict[str, int] = {}
        # To endpoints that did not take them.
        self.refused: list[str] = []
        self._late_seconds, self._port = late_seconds, port
        # By pod, until when connections go there.
        self._endpoints: dict[Pod, float] = {}
        self._rng = random.Random(1)
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1024)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        self._begin(self._learn())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)

    async def until(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        deadline = monotonic() + seconds
        while not condition():
            assert monotonic() < deadline, f"not within {seconds:g} s: {what}"
            await asyncio.sleep(LOOK_SECONDS)

    def _begin(self, job: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(job)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _learn(self) -> None:
        while True:
            now = monotonic()
            for pod in self.pods:
                if pod.ready and pod.deleted_at is None:
                    self._endpoints[pod] = now + self._late_seconds
            self._endpoints = {pod: until for pod, until in self._endpoints.items() if now < until}
            await asyncio.sleep(LOOK_SECONDS)

    async def _serve(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        if not self._endpoints:
            self.refused.append("no endpoints")
            to_client.transport.abort()
            return
        pod = self._rng.choice(list(self._endpoints))
        try:
            from_pod, to_pod = await asyncio.open_connection(pod.address, self._port)
        except OSError as error:
            self.refused.append(f"{pod.address}: {error}")
            to_client.transport.abort()
            return
        self.connections[pod.address] = self.connections.get(pod.address, 0) + 1
        self._begin(pump(from_client, to_pod))
        self._begin(pump(from_pod, to_client))
