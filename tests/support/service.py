"""What kube-proxy does for a Service: each new connection goes to some endpoint, and endpoints are learnt of late."""

import asyncio
import random
from collections.abc import Callable
from time import monotonic

from tests.support.forwarder import Ends, Forwarder
from tests.support.kubelet import Pod

LOOK_SECONDS = 0.1


class Service(Forwarder):
    """`pods` may be changed while it runs.

    Args:
        late_seconds: how long a pod that is not to be asked any more is still asked.
        port: of the pods.
    """

    def __init__(self, late_seconds: float, port: int) -> None:
        super().__init__()
        self.pods: list[Pod] = []
        self.connections: dict[str, int] = {}
        # To endpoints that did not take them.
        self.refused: list[str] = []
        self._late_seconds, self._port = late_seconds, port
        # By pod, until when connections go there.
        self._endpoints: dict[Pod, float] = {}
        self._rng = random.Random(1)

    async def until(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        deadline = monotonic() + seconds
        while not condition():
            assert monotonic() < deadline, f"not within {seconds:g} s: {what}"
            await asyncio.sleep(LOOK_SECONDS)

    async def _look(self) -> None:
        while True:
            now = monotonic()
            for pod in self.pods:
                if pod.ready and pod.deleted_at is None:
                    self._endpoints[pod] = now + self._late_seconds
            self._endpoints = {pod: until for pod, until in self._endpoints.items() if now < until}
            await asyncio.sleep(LOOK_SECONDS)

    async def _connect(self) -> Ends | None:
        if not self._endpoints:
            self.refused.append("no endpoints")
            return None
        pod = self._rng.choice(list(self._endpoints))
        try:
            ends = await asyncio.open_connection(pod.address, self._port)
        except OSError as error:
            self.refused.append(f"{pod.address}: {error}")
            return None
        self.connections[pod.address] = self.connections.get(pod.address, 0) + 1
        return ends
