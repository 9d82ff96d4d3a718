"""Traces as a collector gets them: few spans, which say how a stream went and whose it is, and nothing of its text."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import datetime
from statistics import median
from typing import Any

import pytest

from app.observability.otel import CLOSE_SECONDS_MAX, CONTENT
from app.version import VERSION
from tests.faults.rig import deaf_port
from tests.support.call import Call, ask
from tests.support.chain import Chain, free_port
from tests.support.collector import Collector, Span
from tests.support.gunicorn import Gunicorn
from tests.support.launched import HOME
from tests.support.models import Models
from tests.support.surfaces import NATIVE, OPENAI
from tests.support.upstream import ScriptedUpstream
from tests.support.workers import pid_behind, sockets, until, until_replaced

SECRET = "canary-in-a-prompt"
CALLS = 40


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


@pytest.fixture(scope="module")
def models(upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Models:
    made = Models(tmp_path_factory.mktemp("models"), upstream)
    made.add("two", model="first")
    made.catalog["two"].append(made.catalog["two"][0] | {"model": "second"})
    made.write()
    return made


@pytest.fixture(scope="module")
def chain(collector: Collector, models: Models) -> Iterator[Chain]:
    with Chain(collector.env | {"SLUICE_CONFIG": str(models.path)}) as running:
        yield running


def server(spans: list[Span]) -> Span:
    (found,) = [span for span in spans if span.kind == "server"]
    return found


def attempts(spans: list[Span]) -> list[Span]:
    return [span for span in spans if span.name.startswith("chat ")]


def test_a_long_stream_is_two_spans_of_its_callers_trace(chain: Chain, collector: Collector) -> None:
    trace = secrets.token_hex(16)
    simulator = {"tokens": 1000, "tokens_per_second": 0, "first_token_ms": 200}
    body = NATIVE.body("simulator", prompt=SECRET, simulator=simulator)
    with Call(chain.url, NATIVE.path, body, headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01"}) as call:
        stream_id = call.finish().headers["x-stream-id"]
    assert len(call.frames) == 1001
    collector.of_stream(stream_id, 2)
    time.sleep(0.5)  # whatever else there might be of it
    spans = [span for span in collector.spans if span.trace == trace]
    assert len(spans) == 2
    request, (attempt,) = server(spans), attempts(spans)
    assert request.name == "POST /api/v1/generate"
    assert request.parent == "b7ad6b7169203331"
    assert request.attributes["http.request.method"] == "POST"
    assert request.attributes["http.route"] == "/api/v1/generate"
    assert request.attributes["http.response.status_code"] == 200
    assert request.attributes["sluice.outcome"] == "completed"
    assert request.attributes["server.address"] == "localhost"
    assert "/tmp/" not in str(request.attributes)
    assert request.seconds > 0.19  # timers are rounded
    assert attempt.parent == request.id
    assert attempt.name == "chat simulator"
    assert attempt.attributes["gen_ai.operation.name"] == "chat"
    assert attempt.attributes["gen_ai.provider.name"] == "simulator"
    assert attempt.attributes["gen_ai.usage.input_tokens"] == call.frames[-1].json()["usage"]["input_tokens"] > 0
    assert attempt.attributes["gen_ai.usage.output_tokens"] == 1000
    assert attempt.attributes["gen_ai.response.finish_reasons"] == ["stop"]
    assert 0.19 < attempt.attributes["gen_ai.response.time_to_first_chunk"] <= attempt.seconds
    assert attempt.events == ["gen_ai.first_token"]
    assert (request.status, attempt.status) == ("unset", "unset")
    assert request.resource["service.name"] == "sluice"
    assert request.resource["service.version"] == VERSION
    assert request.resource["service.instance.id"]


def test_nothing_that_was_said_is_told(chain: Chain, collector: Collector) -> None:
    before = len(collector.spans)
    simulator = '{"tokens": 5, "tokens_per_second": 0}'
    said = ask(chain.url, f"/api/v1/stream?prompt={SECRET}&ticket={SECRET}&simulator={simulator}".replace(" ", ""))
    assert said.status in {200, 401}
    ask(chain.url, NATIVE.path, NATIVE.body("simulator", prompt=SECRET))
    # Bytes that are no text in a query are the caller's affair, and no failure of ours.
    with Call(chain.url, "/api/v1/stream?prompt=%ff") as call:
        assert call.finish().status < 500
    collector.wait(lambda spans: len(spans) >= before + 3)
    assert SECRET.encode() not in collector.bytes


def test_what_was_said_is_told_where_content_is_switched_on_and_only_there() -> None:
    """The same question to two chains, of which one was told to: `true`, and not whatever else is no `false`."""
    told: dict[str, Span] = {}
    texts: dict[str, str] = {}
    for switch in ("true", "1"):
        with Collector() as own, Chain(own.env | {CONTENT: switch}, workers=1) as chain:
            simulator = {"tokens": 5, "tokens_per_second": 0}
            call = ask(chain.url, NATIVE.path, NATIVE.body("simulator", prompt=SECRET, simulator=simulator))
            (told[switch],) = attempts(own.of_stream(call.headers["x-stream-id"], 2))
        assert (SECRET.encode() in own.bytes) is (switch == "true")
        texts[switch] = call.text
    assert SECRET in told["true"].attributes["gen_ai.input.messages"]
    (answer,) = json.loads(told["true"].attributes["gen_ai.output.messages"])
    assert answer["parts"] == [{"type": "text", "content": texts["true"]}] != [{"type": "text", "content": ""}]
    assert not any(name.endswith(".messages") for name in told["1"].attributes)


def test_the_upstream_becomes_part_of_the_attempts_span(
    chain: Chain, collector: Collector, models: Models, upstream: ScriptedUpstream
) -> None:
    model = models.unused()
    answer = ask(chain.url, OPENAI.path, OPENAI.body(model))
    spans = collector.of_stream(answer.headers["x-stream-id"], 2)
    (attempt,) = attempts(spans)
    assert attempt.kind == "client"
    assert attempt.attributes["gen_ai.provider.name"] == "openai"
    assert attempt.attributes["sluice.upstream"] == f"{model}/0"
    assert attempt.attributes["gen_ai.usage.input_tokens"] == 7  # as the scripted upstream counts
    (asked,) = upstream.requests(model)
    assert asked.headers["traceparent"].startswith(f"00-{attempt.trace}-{attempt.id}-")


def test_each_attempt_of_a_failover_is_a_span_and_the_failed_one_says_so(
    chain: Chain, collector: Collector, upstream: ScriptedUpstream
) -> None:
    upstream.script("first", status=500)
    upstream.script("second", tokens=3)
    answer = ask(chain.url, OPENAI.path, OPENAI.body("two"))
    assert answer.verdict == "complete"
    failed, good = attempts(collector.of_stream(answer.headers["x-stream-id"], 3))
    assert (failed.status, failed.attributes["error.type"]) == ("error", "upstream_error")
    assert (good.status, good.attributes["gen_ai.usage.output_tokens"]) == ("unset", 3)
    assert failed.parent == good.parent


def test_a_reader_that_leaves_is_nobodys_error(chain: Chain, collector: Collector) -> None:
    body = NATIVE.body("simulator", simulator={"tokens": 200, "tokens_per_second": 20})
    with Call(chain.url, NATIVE.path, body) as call:
        stream_id = call.until(3).headers["x-stream-id"]
        call.leave()
    spans = collector.of_stream(stream_id, 2)
    assert {span.status for span in spans} == {"unset"}
    assert attempts(spans)[0].attributes["sluice.outcome"] == "given_up"
    assert server(spans).attributes["sluice.outcome"] == "client_cancelled"
    assert "different Context" not in chain.log


def test_a_resumed_and_a_taken_over_stream_are_linked_to_its_first_trace(chain: Chain, collector: Collector) -> None:
    until_replaced(chain, set())
    owner, other = sockets(chain)
    pid, trace = pid_behind(owner), secrets.token_hex(16)
    body = NATIVE.body("simulator", simulator={"tokens": 60, "tokens_per_second": 20}, on_disconnect="finish")
    with Call(owner, NATIVE.path, body, headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01"}) as first:
        stream_id = first.until(5).headers["x-stream-id"]
        with Call(other, f"/api/v1/streams/{stream_id}") as resumed:
            resumed.until(7)
            os.kill(pid, signal.SIGKILL)
            assert resumed.finish().verdict == "complete"
    # Of the killed worker nothing came: of its first trace there are the links alone.
    spans = collector.of_stream(stream_id, 2)
    request, (attempt,) = server(spans), attempts(spans)
    assert request.attributes["http.route"] == "/api/v1/streams/{stream_id}"
    assert request.links == [trace]
    assert attempt.links == [trace]
    assert trace not in {request.trace, attempt.trace}


def test_an_application_that_gunicorn_preloads_is_traced_by_each_worker_for_itself(
    collector: Collector, models: Models
) -> None:
    """And after a reload it is that of the files as they are by then."""
    model = models.unused()
    env = collector.env | {"SLUICE_CONFIG": str(models.path), "GUNICORN_CMD_ARGS": "--preload"}
    with Chain(env) as chain:
        until_replaced(chain, set())
        for reloaded in (False, True):
            names = {}
            for path in sockets(chain):
                call = ask(path, NATIVE.path, NATIVE.body(model))
                assert call.verdict == "complete", call.body
                spans = collector.of_stream(call.headers["x-stream-id"], 2)
                (names[pid_behind(path)],) = {span.resource["service.instance.id"] for span in spans}
            assert all(name.endswith(f"-{pid}") for pid, name in names.items()), names
            assert len(names) == 2
            if not reloaded:
                models.add(model := "added-meanwhile")
                os.kill(chain.gunicorn_pid(), signal.SIGHUP)
                until_replaced(chain, set(names))


def test_a_streams_lines_in_the_log_name_its_trace(chain: Chain) -> None:
    body = NATIVE.body("simulator", simulator={"tokens": 3, "tokens_per_second": 0})
    parent = "00-11111111111111111111111111111111-b7ad6b7169203331-01"
    with Call(chain.url, NATIVE.path, body, headers={"traceparent": parent}) as call:
        stream_id = call.finish().headers["x-stream-id"]

    def lines() -> list[dict[str, Any]]:
        of_chain = (line for line in chain.log.splitlines() if stream_id in line)
        return [json.loads(line) for line in of_chain]

    until(lambda: len(lines()) == 2, 10, "a line of the request and one of the generation")
    assert {line["event"] for line in lines()} == {"request", "generation"}
    assert {line["trace_id"] for line in lines()} == {"1" * 32}


@contextmanager
def away(how: str) -> Iterator[dict[str, str]]:
    """An endpoint that takes connections and says nothing, refuses them, or does not even do that."""
    with ExitStack() as stack:
        if how == "silent":
            port = stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
        else:
            port = deaf_port(stack) if how == "deaf" else free_port()
        yield {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}", "OTEL_BSP_SCHEDULE_DELAY": "100"}


def started(env: dict[str, str], stack: ExitStack, pool: ThreadPoolExecutor) -> Future[Gunicorn]:
    """In a thread of the pool, which has to live as long: with it, what it started would end."""
    return pool.submit(stack.enter_context, Gunicorn(env))


def first_token_seconds(gunicorn: Gunicorn) -> float:
    simulator = {"tokens": 3, "tokens_per_second": 0, "first_token_ms": 0}
    call = ask(gunicorn.url, NATIVE.path, NATIVE.body("simulator", simulator=simulator))
    assert call.verdict == "complete"
    return call.times[0] - call.started


def seconds_of_its_end(gunicorn: Gunicorn) -> float:
    """How long the worker took when nothing was left to be done, by its own lines: what else runs slows the rest."""
    assert gunicorn.stop() == 0
    lines = [json.loads(line) for line in gunicorn.log.splitlines()]
    at = {line["event"]: datetime.fromisoformat(line["timestamp"]) for line in lines}
    return (at["Application shutdown complete."] - at["Waiting for application shutdown."]).total_seconds()


def test_a_collector_that_is_away_costs_nothing_and_delays_no_exit() -> None:
    """Beside a server without traces: both are asked in turns, and stopped at the same moment."""
    ways = ("none", "silent", "refused", "deaf")
    with ExitStack() as stack, ThreadPoolExecutor(len(ways)) as pool:
        envs = [{} if way == "none" else stack.enter_context(away(way)) for way in ways]
        servers = [starting.result() for starting in [started(env, stack, pool) for env in envs]]
        seconds = [[first_token_seconds(server) for server in servers] for _ in range(CALLS)]
        medians = [median(each) for each in zip(*seconds, strict=True)]
        exits = list(pool.map(seconds_of_its_end, servers))
    untraced, dead = medians[0], medians[1:]
    # Two spans are made for each, whoever takes them; to wait for one attempt to send them would take far longer.
    assert max(dead) < 2 * untraced + 0.01, dict(zip(ways, medians, strict=True))
    # Telemetry has its two seconds, which all three need in vain.
    assert max(exits[1:]) < exits[0] + CLOSE_SECONDS_MAX + 1, dict(zip(ways, exits, strict=True))


def test_without_an_endpoint_nothing_of_it_is_imported() -> None:
    check = "import sys; from app.main import create_app; from app.observability import tracing; "
    check += "tracing.configure(create_app()); "
    # redis-py takes the SDK's metrics for itself where they are installed.
    check += "ours = ('opentelemetry.exporter', 'opentelemetry.instrumentation', 'opentelemetry.sdk.trace.export'); "
    check += "print([name for name in sys.modules if name.startswith(ours)])"
    env = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "SLUICE_"))}
    command = [sys.executable, "-c", check]
    result = subprocess.run(command, cwd=HOME, env=env, capture_output=True, text=True, timeout=60)
    assert result.stdout.splitlines()[-1] == "[]", result.stderr
