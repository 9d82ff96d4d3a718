"""Workers and instances that are told to stop: their readers are moved, their streams finish or are taken over."""

import http.client
import itertools
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.observability.families import WorkerFigures
from tests.support.call import SECONDS_MAX, Call, ask, finish_all
from tests.support.chain import Chain
from tests.support.crowd import body, check_texts, crowd, reasons
from tests.support.log_lines import wrong_lines
from tests.support.scrape import Scrape
from tests.support.surfaces import NATIVE, OPENAI, Surface
from tests.support.workers import active_streams, is_gone, pid_behind, sockets, until, until_replaced

# Long enough for streams to finish in it.
DRAIN_SECONDS = 6
# A worker that starts on a busy machine.
START_SECONDS_MAX = 30.0
WATCHDOG_SECONDS = 2
HEARTBEAT_SECONDS = 1.0
ENV = {
    "SLUICE_DRAIN_SECONDS": str(DRAIN_SECONDS),
    "SLUICE_DRAIN_SPREAD_SECONDS": "3",
    "SLUICE_HEARTBEAT_SECONDS": str(HEARTBEAT_SECONDS),
    # Shorter than the streams here, so that a drain which forgets its heartbeat does not get far.
    "GUNICORN_CMD_ARGS": f"--timeout {WATCHDOG_SECONDS}",
}


@pytest.fixture(scope="module")
def chain() -> Iterator[Chain]:
    with Chain(ENV, workers=2) as running:
        yield running
        assert list(wrong_lines(running.log)) == []


@pytest.fixture
def worker(chain: Chain) -> tuple[Path, int]:
    """One of the two: its socket, past NGINX, and its process."""
    path = sockets(chain)[0]
    return path, pid_behind(path)


@pytest.fixture(autouse=True)
def complete(chain: Chain) -> None:
    """Every test begins with two workers that answer."""
    until_replaced(chain, set(), START_SECONDS_MAX)


def question(tokens: int, pace: float, surface: Surface = NATIVE) -> dict[str, Any]:
    return surface.body("simulator", simulator={"tokens": tokens, "tokens_per_second": pace})


async def test_the_readers_of_a_worker_that_stops_leave_it_one_by_one(chain: Chain) -> None:
    """All at once they would meet the workers that are left all at once."""
    bodies = [body(number, tokens=100, tokens_per_second=12) for number in range(60)]
    # When first: whoever comes back on a connection that rested there is told once more.
    told: dict[int, float] = {}
    retries: set[float | None] = set()
    async with crowd(chain.url, bodies, heartbeat_seconds=HEARTBEAT_SECONDS) as clients:
        for client in clients:

            def left(reason: str, client=client) -> None:  # type: ignore[no-untyped-def]
                if reason == "reconnect drain":
                    told.setdefault(id(client), time.monotonic())
                    retries.add(client._retry_seconds)

            client.on_connection = left
        # The one with more of them: NGINX leaves a worker that was just replaced alone for a while.
        readers = {path: active_streams(path) for path in sockets(chain)}
        busiest = max(readers, key=readers.__getitem__)
        os.kill(pid_behind(busiest), signal.SIGTERM)
        began = time.monotonic()
    delays = sorted(at - began for at in told.values())
    # All of its readers, and no others.
    assert readers[busiest] >= 25
    assert abs(len(delays) - readers[busiest]) <= 2, reasons([client.journal for client in clients])
    # Over the whole of the 3 s, and never many at a time.
    assert delays[0] < 0.6
    assert 2.3 < delays[-1] < 4.5
    assert max(b - a for a, b in itertools.pairwise(delays)) < 0.8
    # Each is told another moment to come back.
    assert len(retries) > 0.8 * len(delays)
    assert all(retry is not None and 0.1 <= retry <= 1.0 for retry in retries)
    await check_texts(chain.url, clients)


async def test_a_worker_that_has_served_its_number_of_requests_sends_its_readers_away() -> None:
    """Uvicorn's own way out of max_requests stops its heartbeat, and tells nobody: Gunicorn aborted such a worker."""
    limit = {
        "GUNICORN_CMD_ARGS": f"--timeout {WATCHDOG_SECONDS} --max-requests 40"
    }  # more than are asked of it to be ready
    with Chain(ENV | limit, workers=2) as chain:
        async with crowd(chain.url, [body(n, tokens=60, tokens_per_second=12) for n in range(4)]) as clients:
            readers = {path: active_streams(path) for path in sockets(chain)}
            busiest = max(readers, key=readers.__getitem__)
            for _ in range(40):
                assert ask(busiest, "/health").status == 200
        # All of its readers, and no others; who comes back by POST, on a connection that rested there, is told twice:
        # that counts once.
        moved = ["reconnect drain" in client.journal.waits for client in clients].count(True)
        assert moved == readers[busiest] >= 2
        assert max(client.journal.waits["reconnect drain"] for client in clients) <= 2
        await check_texts(chain.url, clients)
        assert "Maximum request limit" in chain.log
        assert list(wrong_lines(chain.log, "SIGABRT|SIGKILL")) == []


@pytest.mark.parametrize("surface", [NATIVE, OPENAI], ids=lambda surface: surface.name)
def test_a_reload_lets_those_finish_who_cannot_come_back(chain: Chain, surface: Surface) -> None:
    """Beyond the watchdog's time too: it used to abort the workers that Gunicorn was waiting for."""
    before = set(chain.worker_pids())
    seconds = 2 * WATCHDOG_SECONDS
    call = Call(chain.url, surface.path, question(10 * seconds, 10, surface))
    call.until(3)
    os.kill(chain.gunicorn_pid(), signal.SIGHUP)
    call.finish(DRAIN_SECONDS + 5)
    assert call.verdict == "complete"
    assert call.text.count(" ") >= 10 * seconds - 10
    until_replaced(chain, before, START_SECONDS_MAX)


def test_what_no_one_can_take_over_is_counted_and_logged_as_drained(tmp_path: Path) -> None:
    """The whole instance stops, and no other reads its log."""
    quick = {"SLUICE_DRAIN_SECONDS": "1", "SLUICE_DRAIN_SPREAD_SECONDS": "0.5", "SLUICE_METRICS_DIR": str(tmp_path)}
    with Chain(ENV | quick, workers=1) as chain:
        native = Call(chain.url, NATIVE.path, question(400, 10))
        openai = Call(chain.url, OPENAI.path, question(400, 10, OPENAI))
        with native, openai:
            streams = {call.until(3).headers["x-stream-id"] for call in (native, openai)}
            assert chain.stop() == 0
            finish_all([native, openai], 10)
        said = [json.loads(line) for line in chain.log.splitlines() if line.startswith("{")]

    lines = [line for line in said if line["event"] == "generation"]
    assert {line["stream"] for line in lines} == streams
    assert [line["outcome"] for line in lines] == ["drained", "drained"]
    # What the exporter would have told, had anybody asked it in its last second.
    counted, name = Scrape(WorkerFigures(tmp_path).collect()), "sluice_streams_total"
    assert [counted.value(name, outcome="drained", surface=each) for each in ("native", "openai")] == [1, 1]
    assert counted.value(name, outcome="drained") == 2


def test_what_is_left_at_the_deadline_is_taken_over_at_once(chain: Chain, worker: tuple[Path, int]) -> None:
    path, pid = worker
    wanted = question(90, 10)
    with Call(path, NATIVE.path, wanted) as stays, Call(path, OPENAI.path, question(90, 10, OPENAI)) as sdk:
        stays.until(2)
        stream_id = stays.headers["x-stream-id"]
        other = Call(sockets(chain)[1], f"/api/v1/streams/{stream_id}").until(2)
        os.kill(pid, signal.SIGTERM)
        began = time.monotonic()
        finish_all([stays, sdk, other], 3 * DRAIN_SECONDS)
    # At the deadline, and not before.
    assert DRAIN_SECONDS - 1 < stays.times[-1] - began < DRAIN_SECONDS + 2
    # The native client is told to come back; OpenAI's has no way to, and is told that this was not all.
    assert stays.frames[-1].event == "reconnect"
    assert stays.frames[-1].json()["reason"] == "drain"
    assert stays.terminals == []
    assert sdk.terminals == ["error"]
    assert b"[DONE]" not in sdk.body
    # Nobody waited for a lease to run out.
    gaps = [b - a for a, b in itertools.pairwise(other.times)]
    assert other.verdict == "complete"
    assert len(other.frames) == 91
    assert max(gaps) < 2.5
    until(lambda: is_gone(pid), 5, "the worker has ended")


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_does_not_lose_a_stream(chain: Chain, worker: tuple[Path, int], second: signal.Signals) -> None:
    """Uvicorn skips its shutdown at the second SIGINT."""
    path, pid = worker
    other = sockets(chain)[1]
    with Call(path, NATIVE.path, question(60, 10)) as first:
        first.until(2)
        os.kill(pid, signal.SIGINT)
        time.sleep(0.3)
        os.kill(pid, second)
        with Call(other, f"/api/v1/streams/{first.headers['x-stream-id']}") as again:
            again.finish()
    assert again.verdict == "complete"
    assert len(again.frames) == 61
    until(lambda: is_gone(pid), DRAIN_SECONDS + 5, "the worker has ended")


@pytest.mark.parametrize("moment_seconds", [0.0, 0.4, 1.0])
def test_a_worker_that_is_told_to_stop_while_it_starts_stops(chain: Chain, moment_seconds: float) -> None:
    """The signal went nowhere until Uvicorn listened: the worker served on, and Gunicorn, whose turn it was to stop,
    waited the whole of its patience for it, 100 s, before it killed."""
    before = set(chain.worker_pids())
    os.kill(min(before), signal.SIGKILL)
    until(lambda: set(chain.worker_pids()) - before, 10, "a successor is forked")
    (young,) = set(chain.worker_pids()) - before
    time.sleep(moment_seconds)
    os.kill(young, signal.SIGTERM)
    until(lambda: is_gone(young), START_SECONDS_MAX, "it has ended")


def test_connections_to_a_worker_that_stops_are_told_which_answer_is_their_last(worker: tuple[Path, int]) -> None:
    """Those that rested were used again and again, up to the deadline, behind which they were refused; those in the
    middle of an answer were closed behind it, when NGINX had just sent another request on some."""
    path, pid = worker
    rested, *busy = kept(path), kept(path), kept(path)
    assert asked(rested) == (200, None)
    answers = [began(connection, question(20, 20)) for connection in busy]
    assert [answer.getheader("connection") for answer in answers] == [None, None]
    os.kill(pid, signal.SIGTERM)
    time.sleep(0.5)
    assert asked(rested) == (200, "close")
    assert all(b"event: done" in answer.read() for answer in answers)
    assert began(busy[0], question(1, 0)).getheader("connection") == "close"
    # Of a GET NGINX asks the next worker: most likely a reader who was asked to leave this one.
    with pytest.raises(http.client.RemoteDisconnected):
        asked(busy[1])


def kept(path: Path) -> http.client.HTTPConnection:
    """A connection to a worker, to be used again."""
    connection = http.client.HTTPConnection("localhost", timeout=20)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(20)
    connection.sock.connect(str(path))
    connection.auto_open = 0  # once it is closed, this fails
    return connection


def began(connection: http.client.HTTPConnection, asked_for: dict[str, Any]) -> http.client.HTTPResponse:
    """A stream that has begun."""
    connection.request("POST", NATIVE.path, json.dumps(asked_for), {"Content-Type": "application/json"})
    return connection.getresponse()


def asked(connection: http.client.HTTPConnection) -> tuple[int, str | None]:
    """The status of an answer, and whether it is the connection's last."""
    connection.request("GET", "/health")
    answer = connection.getresponse()
    answer.read()
    return answer.status, answer.getheader("connection")


def test_kept_connections_notice_nothing_of_a_worker_that_stops(chain: Chain) -> None:
    """A stopping worker reset what waited to be accepted, and what had just been sent on a connection that rested."""
    stop = threading.Event()
    seen: list[tuple[str, int, str]] = []

    def ask_again_and_again(method: str, path: str, body: str | None) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", chain.port, timeout=20)
        while not stop.is_set():
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            answer = connection.getresponse()
            text = answer.read().decode()
            seen.append((method, answer.status, text if answer.status != 200 else ""))
        connection.close()

    short = json.dumps({"prompt": "x", "simulator": {"tokens": 2, "tokens_per_second": 0, "first_token_ms": 5}})
    jobs = [("GET", "/health", None), ("GET", "/v1/models", None), ("POST", "/api/v1/generate", short)] * 2
    threads = [threading.Thread(target=ask_again_and_again, args=job) for job in jobs]
    for thread in threads:
        thread.start()
    try:
        before = set(chain.worker_pids())
        os.kill(min(before), signal.SIGTERM)
        until_replaced(chain, {min(before)}, START_SECONDS_MAX)
        os.kill(chain.gunicorn_pid(), signal.SIGHUP)
        until_replaced(chain, before, START_SECONDS_MAX)
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    failed = [one for one in seen if one[1] != 200]
    assert len(seen) > 100
    # NGINX never sends a POST again: the one that meets the very moment in which a connection closes is the client's to
    # repeat.
    assert [one for one in failed if one[0] == "GET" or '"retryable":true' not in one[2]] == []
    assert len(failed) <= 1


def asked_on(connection: socket.socket, line: str) -> str:
    """The head of the answer."""
    connection.sendall(f"{line} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
    return connection.recv(65536).decode()


def test_a_stopping_instance_keeps_those_that_nobody_else_can_serve() -> None:
    """Its log is of this machine: sent away, its readers would find nobody."""
    with Chain(ENV, workers=2) as chain:
        calls = [
            Call(chain.url, NATIVE.path, question(50, 10), headers={"Idempotency-Key": f"stays-{n}"}).until(2)
            for n in range(6)
        ]
        with socket.socket(socket.AF_UNIX) as kept:
            kept.settimeout(SECONDS_MAX)
            kept.connect(str(sockets(chain)[0]))
            assert asked_on(kept, "GET /livez").startswith("HTTP/1.1 200")
            os.kill(chain.gunicorn_pid(), signal.SIGTERM)
            # NGINX keeps such connections to a worker, and is to send no more over this one.
            told, deadline = "", time.monotonic() + SECONDS_MAX
            while "503 service unavailable" not in told:  # until the signal has come to the worker
                assert time.monotonic() < deadline, told
                told = asked_on(kept, "POST /api/v1/generate").lower()
                assert told, "closed without a word"
            assert "\r\nconnection: close\r\n" in told
            assert "\r\nretry-after: " in told
        chain.wait_for("Handling signal: term")
        until(lambda: ask(chain.url, "/readyz").status == 503, 3, "it is not ready any more")
        refused = ask(chain.url, NATIVE.path, question(5, 10))
        assert refused.status == 503
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json["error"]["retryable"] is True
        for call in calls:
            call.finish()
        assert [call.verdict for call in calls] == ["complete"] * 6
