"""What workers of one machine know of each other at once: that one died, and that one is to cancel a stream."""

import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic

import pytest

from tests.support.call import Call
from tests.support.chain import Chain
from tests.support.redis import RedisServer
from tests.support.surfaces import NATIVE
from tests.support.workers import pid_behind, sockets, until_replaced

# A lease lasts five seconds, and an owner beats every one and a half.
AT_ONCE_SECONDS = 1.0
STREAM = {"tokens": 200, "tokens_per_second": 20, "first_token_ms": 0}


@pytest.fixture(scope="module", params=["lmdb", "redis"])
def chain(request: pytest.FixtureRequest) -> Iterator[Chain]:
    if request.param == "lmdb":
        with Chain(workers=3) as running:
            yield running
    else:
        with RedisServer() as server, Chain({"SLUICE_STREAM_LOG": server.url}, workers=3) as running:
            yield running


def seq(last_id: str | None) -> int:
    assert last_id is not None
    return int(last_id.rpartition(".")[2])


def news_after(call: Call, said: int) -> float:
    """When the first event came that lies behind the `said` one."""
    return next(at for frame, at in zip(call.frames, call.times, strict=True) if seq(frame.id) > said)


def delete(path: Path, url: str) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.sendall(f"DELETE {url} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        assert client.recv(100).split()[1] == b"204"


def test_the_streams_of_a_killed_worker_go_on_at_once_for_who_reads_elsewhere_and_who_comes_back(chain: Chain) -> None:
    until_replaced(chain, set())
    owner, other, third = sockets(chain)
    pid = pid_behind(owner)
    body = NATIVE.body("simulator", simulator=STREAM, on_disconnect="grace")
    with Call(owner, NATIVE.path, body) as first:
        stream = f"/api/v1/streams/{first.until(20).headers['x-stream-id']}"
        with Call(other, stream) as reading:
            reading.until(25)
            os.kill(pid, signal.SIGKILL)
            killed = monotonic()
            with Call(third, stream) as back, ThreadPoolExecutor() as pool:
                list(pool.map(lambda call: call.until(60), (reading, back)))
                said = max(
                    seq(frame.id) for frame, at in zip(reading.frames, reading.times, strict=True) if at < killed + 0.03
                )
                assert news_after(reading, said) - killed < AT_ONCE_SECONDS
                assert news_after(back, said) - killed < AT_ONCE_SECONDS
    until_replaced(chain, {pid})


def test_a_stream_is_cancelled_at_once_whichever_worker_is_asked(chain: Chain) -> None:
    until_replaced(chain, set())
    owner, other, _ = sockets(chain)
    with Call(owner, NATIVE.path, NATIVE.body("simulator", simulator=STREAM)) as call:
        call.until(5)
        asked = monotonic()
        delete(other, f"/api/v1/streams/{call.headers['x-stream-id']}")
        call.finish()
        assert call.times[-1] - asked < AT_ONCE_SECONDS
        assert call.frames[-1].json()["code"] == "cancelled"
