"""A worker that is held just when a client's pong is on its way to it, for longer than it waits for one."""

import os
import signal
import time
from collections.abc import Mapping

from tests.support.chain import Chain
from tests.support.raw_socket import CLOSE, PING, PONG, RawSocket, frame


def outlast(chain: Chain, path: str, held_seconds: float, headers: Mapping[str, str] | None = None) -> None:
    """A socket there is alive afterwards. The chain has one worker."""
    (pid,) = chain.worker_pids()
    with RawSocket(chain.url, path, **(headers or {})) as client:
        assert client.status == 101, client.head
        opcode = None
        while opcode != PING:
            opcode, payload = client.receive()
            assert opcode != CLOSE, payload
        os.kill(pid, signal.SIGSTOP)
        try:
            client.send(frame(PONG, payload))
            time.sleep(held_seconds)
        finally:
            os.kill(pid, signal.SIGCONT)
        client.say(type="ping")
        while (said := client.message()) != {"type": "pong"}:
            assert said == {"type": "ping"}
