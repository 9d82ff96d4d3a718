"""Clients that hold connections for their own sake: a head that never ends, silence, a body that does not come.

Two hundred of them at NGINX, and as many at a worker that has no NGINX before it: others are served meanwhile, and each
is closed when its time is over. Readers that take nothing are in `test_slow_readers.py`.
"""

import itertools
import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from time import monotonic, sleep
from urllib.parse import urlsplit

import pytest

from app.protocol import HEAD_SECONDS_MAX
from app.timeouts import ledger
from tests.support.call import ask
from tests.support.chain import Chain
from tests.support.gunicorn import Gunicorn
from tests.support.nginx_reload import reconfigure
from tests.support.surfaces import NATIVE

CLIENTS = 200
BODY_SECONDS = 3
# A machine that is busy with other tests closes late.
LATE_SECONDS_MAX = 20.0
ANSWER_SECONDS_MAX = 5.0
DRIP_SECONDS = 0.5
HEAD = b"GET /api/v1/stream?prompt=x HTTP/1.1\r\nHost: x\r\nX-Slow: "
BODY = b"POST /api/v1/generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99999\r\n\r\n{"
# What each says at first, and what it goes on with for ever.
HEADS = [(HEAD, b"a"), (b"", b""), (b"G", b"")]
STALLED_BODY = (BODY, b"")
FAST = {"tokens": 3, "tokens_per_second": 0, "first_token_ms": 0}


class SlowClient:
    """One. `closed_after` is how long it was let be, once it is closed."""

    def __init__(self, url: str, first: bytes, drip: bytes) -> None:
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname, parts.port), 10)
        self._socket.sendall(first)
        self._socket.setblocking(False)
        self._drip = drip
        self._opened = monotonic()
        self.closed_after: float | None = None

    def go_on(self) -> None:
        """Say the next byte, and see whether anybody still listens."""
        try:
            if self._drip:
                self._socket.send(self._drip)
            while self._socket.recv(4096):
                pass  # 408
        except BlockingIOError:
            return
        except OSError:
            pass
        self.close()

    def close(self) -> None:
        if self.closed_after is None:
            self.closed_after = monotonic() - self._opened
            self._socket.close()


@pytest.fixture(scope="module")
def chain() -> Iterator[Chain]:
    with Chain(workers=1) as running:
        reconfigure(running, "timeouts.conf", "client_body_timeout", f"{BODY_SECONDS}s", folder="snippets")
        yield running


@pytest.fixture(scope="module")
def worker() -> Iterator[Gunicorn]:
    with Gunicorn() as running:
        yield running


def test_two_hundred_slow_clients_are_closed_in_time_and_keep_nobody_waiting(chain: Chain, worker: Gunicorn) -> None:
    header_seconds = ledger()["nginx_client_header_seconds"]
    assert header_seconds == HEAD_SECONDS_MAX
    with ExitStack() as stack:

        def crowd(url: str, *kinds: tuple[bytes, bytes]) -> list[SlowClient]:
            some = itertools.islice(itertools.cycle(kinds), CLIENTS)
            made = [SlowClient(url, first, drip) for first, drip in some]
            for client in made:
                stack.callback(client.close)
            return made

        at_nginx = crowd(chain.url, *HEADS, STALLED_BODY)
        at_worker = crowd(worker.url, *HEADS)
        answers = list(served_while(at_nginx + at_worker, header_seconds + LATE_SECONDS_MAX, chain, worker))
    assert len(answers) >= 4
    assert max(answers) < ANSWER_SECONDS_MAX
    for at, client in enumerate(at_nginx):
        bound = BODY_SECONDS if at % 4 == len(HEADS) else header_seconds
        assert client.closed_after is not None
        assert bound * 0.9 < client.closed_after < bound + LATE_SECONDS_MAX
    assert all(each.closed_after is not None and each.closed_after > HEAD_SECONDS_MAX * 0.9 for each in at_worker)
    # No worker heard of those whom NGINX held: no request of theirs was whole.
    requests = [line for line in map(json.loads, logged(chain)) if line["event"] == "request"]
    statuses = {line["status"] for line in requests if line["path"].startswith("/api/v1/")}
    assert statuses == {200}
    assert "Traceback" not in chain.log + worker.log


def logged(chain: Chain) -> list[str]:
    """The lines so far that a worker wrote, or Gunicorn."""
    return [line for line in chain.log.splitlines() if line.startswith("{")]


def served_while(slow: list[SlowClient], seconds: float, *servers: Chain | Gunicorn) -> Iterator[float]:
    """Ask beside the slow ones until they are all closed; how long each answer took."""
    deadline = monotonic() + seconds
    while any(client.closed_after is None for client in slow):
        assert monotonic() < deadline, f"{sum(client.closed_after is None for client in slow)} are still open"
        for server in servers:
            began = monotonic()
            assert ask(server.url, NATIVE.path, NATIVE.body("simulator", simulator=FAST)).status == 200
            yield monotonic() - began
        for client in slow:
            if client.closed_after is None:
                client.go_on()
        sleep(DRIP_SECONDS)
