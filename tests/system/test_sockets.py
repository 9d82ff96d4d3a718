"""A socket a worker, and NGINX before them: what is dead costs nothing, and no connection closes under a request."""

import http.client
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from tests.support.call import Call, ask
from tests.support.chain import Chain
from tests.support.nginx_reload import nginx_processes, reconfigure
from tests.support.surfaces import NATIVE, SURFACES
from tests.support.workers import until, until_replaced

WORKERS = 4
POSTS = 20
SIMULATED = {"tokens": 3, "tokens_per_second": 0, "first_token_ms": 20}
# Between a worker's death and the last request that was given to it.
GAP_SECONDS_MAX = 1.0
LOAD_THREADS = 6
BEFORE_SECONDS, AFTER_SECONDS = 1.0, 2.5
# NGINX is to be the first to close, by less than in earnest, so that the test is short.
NGINX_KEEPS_SECONDS, WORKER_KEEPS_SECONDS = 1, 2
MOMENT_SECONDS = 0.25
UPSTREAM_CONF = "http-upstream.conf"


@pytest.fixture(scope="module")
def chain() -> Iterator[Chain]:
    with Chain(workers=WORKERS) as running:
        yield running


def post(chain: Chain, number: int, request_id: str = "") -> Call:
    surface = SURFACES[number % 2]
    body = surface.body("simulator", stream=number % 4 < 2, simulator=SIMULATED)
    return ask(chain.url, surface.path, body, X_Request_ID=request_id or "unnamed")


@contextmanager
def no_replacement(chain: Chain) -> Iterator[None]:
    """Gunicorn's master stopped: the dead stay dead, and their sockets remain with nobody listening."""
    master = chain.gunicorn_pid()
    os.kill(master, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(master, signal.SIGCONT)


def test_with_three_of_four_workers_dead_no_post_fails(chain: Chain) -> None:
    dead = set(chain.worker_pids()[:3])
    with no_replacement(chain):
        for pid in dead:
            os.kill(pid, signal.SIGKILL)
        until(lambda: all(gone(pid) for pid in dead), 5, "they are dead")
        assert [post(chain, number).verdict for number in range(POSTS)] == ["complete"] * POSTS
    until_replaced(chain, dead)
    # NGINX did meet the dead ones, and went on to the living.
    assert any("," in line["upstream"] for line in access_lines(chain))


def test_a_killed_worker_fails_only_what_was_sent_to_it(chain: Chain) -> None:
    requests = Load(chain)
    victim = chain.worker_pids()[0]
    with requests:
        time.sleep(BEFORE_SECONDS)
        killed_at = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        time.sleep(AFTER_SECONDS)
    until_replaced(chain, {victim})
    failed = {name: call for name, call in requests.done.items() if call.verdict != "complete"}
    assert len(requests.done) > LOAD_THREADS * 5
    # One that was still silent is a status, one that had begun is cut.
    assert all(call.status == 503 or call.end == "cut" for call in failed.values())
    assert all(call.started < killed_at + GAP_SECONDS_MAX for call in failed.values())
    assert any(call.started > killed_at and call.verdict == "complete" for call in requests.done.values())
    asked_last = {
        line["upstream"].split(", ")[-1] for line in access_lines(chain) if line["client_request_id"] in failed
    }
    assert len(asked_last) <= 1, f"the failed were sent to {asked_last}"


def test_a_connection_is_never_closed_under_a_request() -> None:
    """NGINX gives up idle connections before a worker does: also if it comes to a request late, it finds one open."""
    with Chain({"GUNICORN_CMD_ARGS": f"--keep-alive {WORKER_KEEPS_SECONDS}"}, workers=1) as chain:
        reconfigure(chain, UPSTREAM_CONF, "keepalive_timeout", f"{NGINX_KEEPS_SECONDS}s")
        assert late_post(chain, NGINX_KEEPS_SECONDS) == 200
        # The other way round the request is lost: that is what the two numbers are for, and this test would see it.
        reconfigure(chain, UPSTREAM_CONF, "keepalive_timeout", f"{WORKER_KEEPS_SECONDS * 2}s")
        assert late_post(chain, WORKER_KEEPS_SECONDS) == 503


def late_post(chain: Chain, patience_seconds: float) -> int:
    """The status of a POST that comes just before that patience ends, to an NGINX that comes to it just after."""
    client = http.client.HTTPConnection("127.0.0.1", chain.port, timeout=10)
    with closing(client):

        def send() -> None:
            body = NATIVE.body("simulator", stream=False, simulator=SIMULATED)
            client.request("POST", NATIVE.path, json.dumps(body), {"Content-Type": "application/json"})

        def status() -> int:
            response = client.getresponse()
            response.read()
            return response.status

        send()
        assert status() == 200
        time.sleep(patience_seconds - MOMENT_SECONDS)
        processes = nginx_processes(chain)
        for pid in processes:
            os.kill(pid, signal.SIGSTOP)
        send()
        time.sleep(2 * MOMENT_SECONDS)
        for pid in processes:
            os.kill(pid, signal.SIGCONT)
        return status()


class Load:
    """Posts without pause from some threads, while it is entered."""

    def __init__(self, chain: Chain) -> None:
        self.done: dict[str, Call] = {}
        self._chain = chain
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(LOAD_THREADS)]

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self, thread: int) -> None:
        for number in range(1_000_000):
            if self._over.is_set():
                return
            name = f"load-{thread}-{number}"
            self.done[name] = post(self._chain, number, name)


def gone(pid: int) -> bool:
    """Dead, though nobody may have taken note of it yet."""
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] == "Z"


def access_lines(chain: Chain) -> list[dict[str, Any]]:
    return [json.loads(line) for line in chain.access_log.splitlines()]
