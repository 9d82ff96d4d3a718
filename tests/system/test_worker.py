"""A worker's life under Gunicorn: it is watched, it is replaced, it stops, and its streams end well or go on."""

import json
import os
import resource
import signal
import socket
import struct
import sys
from contextlib import ExitStack
from fcntl import F_SETPIPE_SZ, fcntl
from itertools import combinations
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from app.observability.families import WorkerFigures
from tests.support.api_keys import ApiKeys
from tests.support.call import Call, ask, finish_all
from tests.support.chain import Chain
from tests.support.footprint import footprint, inside_env
from tests.support.gunicorn import Gunicorn
from tests.support.redis import RedisServer
from tests.support.scrape import Scrape
from tests.support.surfaces import NATIVE, OPENAI, SURFACES, Surface
from tests.support.workers import active_streams, pid_behind, sockets, until

# So that the watchdog bites within a test; the worker beats once a second.
WATCHDOG_SECONDS = 3
# After which the arbiter looks, aborts, and the kernel clears away.
GONE_SECONDS_MAX = WATCHDOG_SECONDS + 3
WATCHED = {"GUNICORN_CMD_ARGS": f"--timeout {WATCHDOG_SECONDS}"}
# Lasts longer than the watchdog would let a worker live that does not beat.
TOKENS, TOKENS_PER_SECOND = 50, 10
LASTING = {"tokens": TOKENS, "tokens_per_second": TOKENS_PER_SECOND, "first_token_ms": 0}
ENDLESS = {"tokens": 5000, "tokens_per_second": 10, "first_token_ms": 0}
AT_ONCE = {"tokens": 3, "tokens_per_second": 0, "first_token_ms": 0}
GAP_SECONDS_MAX = 0.5
# What a worker allocates for its first requests it keeps: a few megabytes. A connection takes 6 KB while it is there.
WARM_RESETS, RESETS, RESETS_BYTES_MAX = 300, 2500, 6_000_000
IDLE_STOP_SECONDS_MAX = 3.0

every_surface = pytest.mark.parametrize("surface", SURFACES, ids=lambda surface: surface.name)


def begin(url: str, surface: Surface, simulator: dict[str, Any]) -> Call:
    """A stream whose first tokens are there."""
    return Call(url, surface.path, surface.body("simulator", simulator=simulator)).until(3)


def alive(pid: int) -> bool:
    return bool(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)


def test_a_worker_whose_loop_is_blocked_says_where_and_is_replaced() -> None:
    with Gunicorn(WATCHED, poke="time.sleep(60)") as gunicorn:
        (pid,) = gunicorn.worker_pids()
        # The abort that says where must not fill the disk with images of the process.
        assert resource.prlimit(pid, resource.RLIMIT_CORE) == (0, 0)
        gunicorn.poke()
        until(lambda: not alive(pid), GONE_SECONDS_MAX, "the blocked worker is gone")
        gunicorn.wait_for("WORKER TIMEOUT")
        assert "Fatal Python error: Aborted" in gunicorn.log
        assert "in poked" in gunicorn.log  # the line that blocks
        until(lambda: [p for p in gunicorn.worker_pids() if p != pid], 10, "another worker is there")
        until(lambda: answers(gunicorn), 10, "it answers")


def answers(gunicorn: Gunicorn) -> bool:
    try:
        return ask(gunicorn.url, "/readyz").status == 200
    except (OSError, AssertionError):
        return False


def test_a_clock_that_goes_back_ends_no_worker() -> None:
    poke = "real = time.time\ntime.time = lambda: real() - 300"
    with Gunicorn(WATCHED, poke=poke) as gunicorn:
        workers = gunicorn.worker_pids()
        with begin(gunicorn.url, NATIVE, LASTING) as call:
            gunicorn.poke()
            assert call.finish().verdict == "complete"
        assert call.times[-1] - call.started > WATCHDOG_SECONDS
        assert gunicorn.worker_pids() == workers
        assert "WORKER TIMEOUT" not in gunicorn.log


def test_a_worker_that_has_served_enough_lets_its_streams_finish() -> None:
    """Also those that last longer than the watchdog's patience: a worker that drains still beats."""
    args = f"--timeout {WATCHDOG_SECONDS} --max-requests 8"
    env = {"GUNICORN_CMD_ARGS": args, "SLUICE_DRAIN_SECONDS": "20"}
    with Gunicorn(env) as gunicorn, ExitStack() as stack:
        (pid,) = gunicorn.worker_pids()
        calls = [stack.enter_context(begin(gunicorn.url, surface, LASTING)) for surface in SURFACES]
        for _ in range(8):
            ask(gunicorn.url, "/health")
        gunicorn.wait_for("Maximum request limit")
        finish_all(calls)
        assert [call.verdict for call in calls] == ["complete"] * 2
        until(lambda: not alive(pid), 10, "the old worker is gone")
        until(lambda: answers(gunicorn), 10, "another one answers")
        assert "WORKER TIMEOUT" not in gunicorn.log
        assert "Aborted" not in gunicorn.log


def test_a_worker_that_has_served_enough_is_followed_before_it_is_gone() -> None:
    """Gunicorn starts another one when it is gone: with one worker, NGINX had nobody for as long as a stream took."""
    env = {"SLUICE_DRAIN_SECONDS": "20", "GUNICORN_CMD_ARGS": f"--timeout {WATCHDOG_SECONDS} --max-requests 6"}
    with Chain(env, workers=1) as chain:
        (old,) = chain.worker_pids()
        with begin(chain.url, NATIVE, {**LASTING, "tokens": 100}) as call:
            answers = []

            def more() -> None:
                answers.append(ask(chain.url, NATIVE.path, NATIVE.body("simulator", simulator=AT_ONCE)))

            while len(chain.worker_pids()) < 2 or len(answers) < 20:
                more()
                sleep(0.05)
                assert monotonic() - call.started < 15, "no second worker"
            successor = chain.worker_pids()[-1]
            path = sockets(chain)[0]
            until(lambda: pid_behind(path) == successor, 10, "the successor has the socket")
            for _ in range(5):
                more()
            assert alive(old)  # it still has the stream
            assert {(answer.status, answer.verdict) for answer in answers} == {(200, "complete")}
            assert call.finish().verdict == "complete"
        until(lambda: not alive(old), 10, "the old worker is gone")


def test_a_reload_refuses_no_request_and_cuts_no_stream() -> None:
    with Chain(WATCHED | {"SLUICE_DRAIN_SECONDS": "20"}, workers=2) as chain, ExitStack() as stack:
        old = set(chain.worker_pids())
        calls = [stack.enter_context(begin(chain.url, surface, LASTING)) for surface in SURFACES * 2]
        os.kill(chain.gunicorn_pid(), signal.SIGHUP)
        number = 0
        while old & set(chain.worker_pids()) or number < 20:
            surface = SURFACES[number % 2]
            call = ask(chain.url, surface.path, surface.body("simulator", simulator=AT_ONCE))
            assert call.verdict == "complete", (number, call.status, bytes(call.body))
            number += 1
            sleep(0.05)
            assert monotonic() - calls[0].started < 30, "the old workers stay"
        finish_all(calls)
        assert [call.verdict for call in calls] == ["complete"] * 4
        assert [len(call.text.split()) for call in calls] == [TOKENS] * 4
        assert "WORKER TIMEOUT" not in chain.log


def test_streams_that_outlive_the_drain_are_told_and_all_that_runs_at_an_end_runs(tmp_path: Path) -> None:
    conf = f"""
import atexit
def note(name):
    open({str(tmp_path)!r} + "/" + name, "w").close()
def post_fork(server, worker):
    atexit.register(note, "atexit")
def worker_exit(server, worker):
    note("worker_exit")
"""
    with Gunicorn({"SLUICE_DRAIN_SECONDS": "1"}, conf=conf) as gunicorn, ExitStack() as stack:
        native, other = (stack.enter_context(begin(gunicorn.url, surface, ENDLESS)) for surface in SURFACES)
        assert gunicorn.stop(signal.SIGTERM, 15) == 0
        finish_all([native, other])
        assert native.frames[-1].event == "reconnect"
        assert native.frames[-1].json()["reason"] == "drain"
        assert OPENAI.error(other)["code"] == "server_shutting_down"
        assert (native.end, other.end) == ("whole", "whole")
        assert b"[DONE]" not in other.body
        assert "Application shutdown complete." in gunicorn.log
        assert "Traceback" not in gunicorn.log
    assert sorted(path.name for path in tmp_path.iterdir()) == ["atexit", "worker_exit"]


@pytest.mark.parametrize(
    "command",
    [
        ("sh", "-c", f"cd .; exec {sys.executable} -m gunicorn -c {{conf}}"),
        ("make", "--silent", "serve"),
    ],
    ids=["a script that ends in exec", "make serve"],
)
def test_the_signal_that_stops_what_started_it_drains_it(command: tuple[str, ...]) -> None:
    with Gunicorn(command=command) as gunicorn:
        short = {**LASTING, "tokens": 15}
        with begin(gunicorn.url, NATIVE, short) as call:
            started = gunicorn.process
            started.send_signal(signal.SIGTERM)
            assert call.finish().verdict == "complete"
        started.wait(10)
        assert "Application shutdown complete." in gunicorn.log


def test_the_heartbeat_s_file_is_in_memory() -> None:
    """On a slow or full disk a worker would seem to hang that does not."""
    with Gunicorn() as gunicorn:
        (pid,) = gunicorn.worker_pids()
        files = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
        assert [file for file in files if file.startswith("/dev/shm/wgunicorn-")], files


def test_a_terminal_that_nobody_reads_stalls_no_stream_and_what_is_dropped_is_counted(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    fcntl(writer, F_SETPIPE_SZ, 4096)
    # More than the worker keeps, all in one turn of its loop.
    poke = "import structlog\nfor _ in range(12_000): structlog.get_logger().info('a line')"
    try:
        with Gunicorn({"SLUICE_METRICS_DIR": str(tmp_path)}, poke=poke, stdout=writer) as gunicorn:
            with begin(gunicorn.url, NATIVE, {**LASTING, "tokens": 20}) as call:
                for _ in range(40):  # a line each, of some hundred bytes
                    assert ask(gunicorn.url, "/health").status == 200
                assert call.finish().verdict == "complete"
            gaps = [after - before for before, after in zip(call.times, call.times[1:], strict=False)]
            assert max(gaps) < GAP_SECONDS_MAX, gaps
            assert ask(gunicorn.url, NATIVE.path, NATIVE.body("simulator", simulator=AT_ONCE)).verdict == "complete"
            assert active_streams(gunicorn.url) == 0
            assert dropped_lines(tmp_path) == 0
            gunicorn.poke()
            until(lambda: dropped_lines(tmp_path) >= 1_000, 10, "the lines that were dropped are counted")
    finally:
        os.close(reader)
        os.close(writer)


def dropped_lines(folder: Path) -> float:
    """By the workers' figures."""
    return Scrape(WorkerFigures(folder).collect()).value("sluice_log_lines_dropped_total")


def test_every_line_is_json_of_one_format_and_names_its_request() -> None:
    with Gunicorn() as gunicorn:
        given = ask(gunicorn.url, NATIVE.path, NATIVE.body("simulator", simulator=AT_ONCE), X_Request_ID="my-id.1")
        minted = ask(gunicorn.url, OPENAI.path, OPENAI.body("simulator", simulator=AT_ONCE, stream=False))
        forged = ask(gunicorn.url, "/health", X_Request_ID='"}\t{"forged":1')
        failed = ask(gunicorn.url, NATIVE.path, {"prompt": ""})
        gunicorn.stop()
        lines = [json.loads(line) for line in gunicorn.log.splitlines()]
    assert all({"timestamp", "level", "event"} <= line.keys() for line in lines)
    assert {"gunicorn.error", "uvicorn.error"} <= {line.get("logger") for line in lines}
    assert given.headers["x-request-id"] == "my-id.1"
    ids = [call.headers["x-request-id"] for call in (given, minted, forged, failed)]
    assert len(set(ids)) == 4
    assert all(identity.replace("-", "").replace(".", "").isalnum() for identity in ids)
    accesses = {line["request_id"]: line for line in lines if line["event"] == "request"}
    assert [accesses[identity]["status"] for identity in ids] == [200, 200, 200, 422]
    assert accesses["my-id.1"]["outcome"] == "completed"
    assert accesses["my-id.1"]["stream_id"] == given.headers["x-stream-id"]


@pytest.mark.parametrize("jump_seconds", [-3600, 3600])
def test_a_clock_that_jumps_by_an_hour_loses_no_stream(jump_seconds: int) -> None:
    """Leases, the time that an ended stream is kept, and a key's record follow another clock than the wall's."""
    poke = f"real = time.time\ntime.time = lambda: real() + {jump_seconds}"
    with Gunicorn(poke=poke) as gunicorn:
        key = {"Idempotency-Key": "across"}
        body = {"prompt": "x", "stream": True, "simulator": {**LASTING, "tokens": 30}}
        ended = ask(gunicorn.url, NATIVE.path, {"prompt": "x", "stream": True, "simulator": AT_ONCE})
        with Call(gunicorn.url, NATIVE.path, body, headers=key).until(3) as call:
            gunicorn.poke()
            sleep(2.5)  # a beat, and a round of the reaper
            joined = Call(gunicorn.url, NATIVE.path, body, headers=key).finish()
            assert call.finish().verdict == joined.verdict == "complete"
        assert joined.frames == call.frames
        for whole in (ended, call):
            again = ask(gunicorn.url, f"/api/v1/streams/{whole.headers['x-stream-id']}")
            assert again.frames == whole.frames
        assert "taken over" not in gunicorn.log


def test_a_clock_that_jumps_frees_no_limit_and_voids_no_ticket(tmp_path: Path) -> None:
    """There and back again: what counts by the wall clock would begin a window anew, or never end one."""
    config = tmp_path / "models.json"
    # A caller for each limit: of one who meets both, only the slot would be seen.
    tiers = {"free": {}, "one": {"concurrent_streams": 1}, "few": {"requests_per_minute": 4}}
    config.write_text(json.dumps({"models": {"simulator": [{"provider": "simulator"}]}, "tiers": tiers}))
    keys = ApiKeys(tmp_path, ana="one", ben="few")
    poke = "real = time.time\ntime.time = lambda: real() + 3600\nloop.call_later(2, setattr, time, 'time', real)"
    with Gunicorn(keys.environment | {"SLUICE_CONFIG": str(config)}, poke=poke) as gunicorn:
        shown = keys.headers("ana")

        def answer(who: str, simulator: dict[str, Any]) -> Call:
            body = {"prompt": "x", "stream": True, "simulator": simulator}
            return Call(gunicorn.url, NATIVE.path, body, headers=keys.headers(who))

        assert [answer("ben", AT_ONCE).finish().status for _ in range(4)] == [200] * 4
        with answer("ana", ENDLESS).until(2) as running:
            stream_id = running.headers["x-stream-id"]
            scope = {"scope": f"stream:{stream_id}"}
            ticket = Call(gunicorn.url, "/api/v1/tickets", scope, headers=shown).finish().json["ticket"]
            waits: list[int] = []
            gunicorn.poke()
            while not waits or running.times[-1] - running.started < 3.5:
                for who in ("ana", "ben"):
                    refused = answer(who, AT_ONCE).finish()
                    assert refused.status == 429, who
                    waits.append(int(refused.headers["retry-after"]))
                with Call(gunicorn.url, f"/api/v1/streams/{stream_id}?ticket={ticket}") as reader:
                    reader.until(1)
                running.until(len(running.frames) + 5)
        assert 1 <= min(waits) <= max(waits) <= 120


def test_connections_that_end_in_a_reset_leave_nothing_behind(tmp_path: Path) -> None:
    """A server that forgets the timer of such a connection keeps all of it in memory for the length of that timer."""
    with Gunicorn(inside_env(tmp_path)) as gunicorn:
        (pid,) = gunicorn.worker_pids()

        def reset(count: int) -> None:
            for _ in range(count):
                with socket.create_connection(("127.0.0.1", urlsplit(gunicorn.url).port)) as kept:
                    kept.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
                    assert kept.recv(4096).startswith(b"HTTP/1.1 200")
                    kept.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        reset(WARM_RESETS)
        before = footprint(pid, tmp_path)
        reset(RESETS)
        until(lambda: not footprint(pid, tmp_path).tasks - before.tasks, 10, "all tasks have ended")
        now = footprint(pid, tmp_path)
        assert now.private_bytes - before.private_bytes < RESETS_BYTES_MAX
        assert now.threads == before.threads
        assert not now.files - before.files


def test_an_idle_worker_stops_at_once_whatever_it_has_served() -> None:
    with Gunicorn() as gunicorn:
        for _ in range(200):
            assert ask(gunicorn.url, "/health").status == 200  # each closes its connection
        began = monotonic()
        assert gunicorn.stop(signal.SIGTERM, 10) == 0
        assert monotonic() - began < IDLE_STOP_SECONDS_MAX


def test_workers_share_no_connection() -> None:
    """One that was opened before the fork would give each the other's replies."""
    with RedisServer() as redis, Chain({"SLUICE_STREAM_LOG": redis.url}, workers=2) as chain:
        for _ in range(8):
            assert ask(chain.url, NATIVE.path, NATIVE.body("simulator", simulator=AT_ONCE)).verdict == "complete"
        pids = [chain.gunicorn_pid(), *chain.worker_pids()]
        connections = [{found.laddr for found in psutil.Process(pid).net_connections("tcp")} for pid in pids]
        assert all(connections[1:])
        for one, other in combinations(connections, 2):
            assert not one & other


def test_output_on_a_full_disk_costs_lines_and_no_stream() -> None:
    with open("/dev/full", "wb", buffering=0) as full, Gunicorn(stdout=full.fileno()) as gunicorn:
        with begin(gunicorn.url, NATIVE, {**LASTING, "tokens": 20}) as call:
            for _ in range(20):
                assert ask(gunicorn.url, "/health").status == 200
            assert call.finish().verdict == "complete"
        assert [p for p in gunicorn.worker_pids() if alive(p)]
        assert gunicorn.stop(signal.SIGTERM, 15) == 0


def test_a_worker_without_a_free_descriptor_keeps_its_streams_and_serves_again() -> None:
    """Who comes meanwhile waits or is sent away; the loop does not spin, and is not ended as one that hangs."""
    with Gunicorn(WATCHED) as gunicorn, ExitStack() as stack:
        (pid,) = gunicorn.worker_pids()
        with begin(gunicorn.url, NATIVE, {**LASTING, "tokens": 60}) as call:
            process = psutil.Process(pid)
            try:
                process.rlimit(psutil.RLIMIT_NOFILE, (process.num_fds() + 5, process.num_fds() + 5))
            except PermissionError:
                pytest.skip("this user may not limit another process")
            port = urlsplit(gunicorn.url).port
            waiting = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(40)]
            before = sum(process.cpu_times()[:2])
            sleep(1.5)
            assert sum(process.cpu_times()[:2]) - before < 0.75, "it spins"
            for client in waiting:
                client.close()
            until(lambda: answers(gunicorn), 5, "it answers again")
            assert call.finish().verdict == "complete"
        assert gunicorn.worker_pids() == [pid]
        assert "WORKER TIMEOUT" not in gunicorn.log
