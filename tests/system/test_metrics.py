"""The figures that operators go by, as the exporter tells them of a whole chain, while workers live and die."""

import http.client
import json
import os
import random
import signal
import socket
import string
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from itertools import pairwise
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from app.observability.metrics import ALL, SURFACES, Surface
from tests.support.call import Call, ask
from tests.support.chain import Chain
from tests.support.scrape import Scrape, scrape, scrape_risen, scrape_until
from tests.support.socket_client import SocketClient
from tests.support.surfaces import NATIVE, OPENAI
from tests.support.turns import TURNS_MAX
from tests.support.upstream import ScriptedUpstream
from tests.support.workers import is_gone, pid_behind, sockets, until, until_replaced

QUICK = {"tokens": 3, "tokens_per_second": 0, "first_token_ms": 0}
SLOW = {"tokens": 1200, "tokens_per_second": 20, "first_token_ms": 0}
# For as many at a time as two busy cores carry: it is their number that matters.
LASTING = {"tokens": 1200, "tokens_per_second": 2, "first_token_ms": 0}
SAME = ["one ", "two ", "three ", "four "]
PRICE = {"input": 1000, "output": 4000}
CALL = [{"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": "{"}}]
ABORTS = 200
JUNK = 5000
# Those that HTTP knows, and no route of ours.
METHODS = ("PUT", "PATCH", "TRACE", "PROPFIND", "MKCOL", "LOCK", "SEARCH", "REPORT", "PURGE", "SUBSCRIBE")


@pytest.fixture(scope="module")
def chain(upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    asked = {"provider": "openai", "base_url": upstream.base_url, "retries_max": 0, "idle_seconds": 1}
    asked["first_token_seconds"] = 1
    models: dict[str, Any] = {"simulator": [{"provider": "simulator"}], **{name: [asked] for name in FAULTS}}
    models["full"] = [asked | {"concurrency_max": 1, "queue_max": 0, "idle_seconds": 30}]
    models["sold"] = [asked | {"price": PRICE}]
    for turn in range(TURNS_MAX):
        models[f"shut-out-{turn}"] = [asked | {"breaker_failures_max": 1, "breaker_open_seconds": 60}]
        upstream.script(f"shut-out-{turn}", status=500)
    models["calls"] = [asked | {"idle_seconds": 30}]
    both = [asked | {"model": name} for name in ("dies", "goes-on")]
    models["spliced"] = {"after_first_token": "splice", "upstreams": both}
    for name, (script, _) in FAULTS.items():
        upstream.script(name, **script)
    upstream.script("dies", tokens=SAME, die_after=2, how="rst", delay_seconds=0.05)
    upstream.script("goes-on", tokens=SAME)
    upstream.script("sold", tokens=5)
    upstream.script("calls", tokens=1, tool_calls=[CALL, CALL], stall_after=2)
    config = tmp_path_factory.mktemp("models") / "models.json"
    config.write_text(json.dumps({"models": models}))
    env = {"SLUICE_CONFIG": str(config), "SLUICE_STREAM_BYTES_MAX": "20000", "SLUICE_HEARTBEAT_SECONDS": "1"}
    with Chain(env) as running:
        yield running


# How an upstream behaves, and the outcome that its streams are counted under.
FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "answers": ({"tokens": 3}, "completed"),
    "fails": ({"status": 500}, "upstream_error"),
    "refuses": ({"status": 400}, "rejected"),
    "breaks-off": ({"die_after": 2, "how": "rst", "delay_seconds": 0.05}, "upstream_truncated"),
    "stalls": ({"stall_after": 2}, "stalled"),
    "is-late": ({"headers_delay_seconds": 5}, "upstream_timeout"),
    "says-too-much": ({"tokens": ["x" * 5000] * 9}, "limit_cut"),
}


@pytest.fixture
def before(chain: Chain) -> Scrape:
    return scrape(chain.metrics_url)


@pytest.mark.parametrize("model", FAULTS)
def test_a_stream_is_counted_once_under_the_outcome_that_it_had(chain: Chain, before: Scrape, model: str) -> None:
    outcome = FAULTS[model][1]
    ask(chain.url, NATIVE.path, NATIVE.body(model))
    found = scrape_risen(chain.metrics_url, before, "sluice_streams_total", model=model, outcome=outcome)
    assert found.risen_since(before, "sluice_streams_total") == 1


def test_an_answer_that_a_second_upstream_ends_is_spliced(chain: Chain, before: Scrape) -> None:
    call = ask(chain.url, NATIVE.path, NATIVE.body("spliced"))
    assert call.text == "".join(SAME)
    found = scrape_risen(chain.metrics_url, before, "sluice_streams_total", model="spliced", outcome="spliced")
    assert found.risen_since(before, "sluice_failovers_total", model="spliced", reason="upstream_truncated") == 1
    assert found.risen_since(before, "sluice_rescues_total", way="splice") == 1
    attempts = "sluice_upstream_attempts_total"
    assert found.risen_since(before, attempts, upstream="spliced/0", outcome="upstream_truncated") == 1
    assert found.risen_since(before, attempts, upstream="spliced/1", outcome="ok") == 1


def test_who_leaves_and_who_finds_no_place_are_counted_as_such(
    chain: Chain, before: Scrape, upstream: ScriptedUpstream
) -> None:
    upstream.script("full", tokens=3, stall_after=1)
    until_replaced(chain, set())
    with Call(sockets(chain)[0], NATIVE.path, NATIVE.body("full")) as first:
        first.until(1)
        assert ask(sockets(chain)[0], NATIVE.path, NATIVE.body("full")).status == 503
        first.leave()
    scrape_risen(chain.metrics_url, before, "sluice_streams_total", model="full", outcome="shed")
    found = scrape_risen(chain.metrics_url, before, "sluice_streams_total", model="full", outcome="client_cancelled")
    assert found.value("sluice_readers_total", outcome="client_cancelled") > 0


def test_tokens_are_counted_as_the_upstream_counts_them_and_cost_what_the_price_says(
    chain: Chain, before: Scrape
) -> None:
    ask(chain.url, NATIVE.path, NATIVE.body("sold"))
    # The scripted upstream says that it read 7 tokens and wrote as many as it did; prices are of a million.
    found = scrape_risen(chain.metrics_url, before, "sluice_cost_total", (7 * 1000 + 5 * 4000) / 1e6, model="sold")
    assert found.risen_since(before, "sluice_cost_total") == pytest.approx(0.027)
    for direction, tokens in (("input", 7), ("output", 5)):
        assert found.risen_since(before, "sluice_tokens_total", model="sold", direction=direction) == tokens
        # Nobody is named: no tenant has a series of its own.
        assert found.risen_since(before, "sluice_tenant_tokens_total", tenant="other", direction=direction) >= tokens


def test_each_reader_that_comes_back_is_counted_by_what_it_found(chain: Chain, before: Scrape) -> None:
    call = ask(chain.url, NATIVE.path, NATIVE.body("simulator", simulator=QUICK))
    path = f"/api/v1/streams/{call.headers['x-stream-id']}"
    last = call.frames[-1].id
    stream, epoch, _ = last.split(".")
    assert ask(chain.url, path, Last_Event_ID=call.frames[0].id).verdict == "complete"
    assert ask(chain.url, path, Last_Event_ID=last).status == 204
    assert ask(chain.url, path, Last_Event_ID=f"{stream}.{epoch}.999").status == 410
    for result in ("ok", "past_end", "gone"):
        found = scrape_risen(chain.metrics_url, before, "sluice_resumes_total", result=result)
        assert found.risen_since(before, "sluice_resumes_total", result=result) == 1


def test_an_upstream_that_is_shut_out_shows_as_an_open_breaker(chain: Chain, before: Scrape, turn: int) -> None:
    name, model = "sluice_breaker_state", f"shut-out-{turn}"
    assert before.value(name, upstream=f"{model}/0") == 0
    assert ask(chain.url, NATIVE.path, NATIVE.body(model)).status == 500
    found = scrape_until(chain.metrics_url, lambda found: found.value(name, upstream=f"{model}/0") == 2)
    assert found.value(name, upstream="sold/0") == 0


def test_a_heartbeat_is_no_first_token(chain: Chain, before: Scrape) -> None:
    simulator = QUICK | {"first_token_ms": 2500}
    with Call(chain.url, NATIVE.path, NATIVE.body("simulator", simulator=simulator)) as call:
        call.until_heartbeat().finish()
    name = "sluice_time_to_first_token_seconds"
    found = scrape_risen(chain.metrics_url, before, f"{name}_count", model="simulator")
    assert 2.5 <= found.risen_since(before, f"{name}_sum", model="simulator") < 20
    assert found.risen_since(before, "sluice_heartbeats_total") > 0


def test_streams_are_no_requests_whose_latency_counts(chain: Chain, before: Scrape) -> None:
    ask(chain.url, NATIVE.path, NATIVE.body("simulator", simulator=QUICK))
    ask(chain.url, "/v1/models")
    found = scrape_risen(
        chain.metrics_url, before, "sluice_requests_total", route="/v1/models", method="GET", code="200"
    )
    assert found.value("sluice_requests_total", route="/api/v1/generate", code="200") > 0
    routes = {
        dict(labels)["route"] for name, labels in found.samples if name == "sluice_request_duration_seconds_count"
    }
    assert "/v1/models" in routes
    assert "/api/v1/generate" not in routes


def test_every_surface_has_its_series_before_its_first_stream(chain: Chain, before: Scrape) -> None:
    """A rate sees nothing of the event with which a series appears."""
    told = {dict(labels)["surface"] for name, labels in before.samples if name == "sluice_streams_total"}
    assert told == set(SURFACES)
    message = [{"role": "user", "content": "Hello"}]
    asked: dict[Surface, tuple[str, dict[str, Any]]] = {
        "native": (NATIVE.path, {"prompt": "Hello"}),
        "openai": (OPENAI.path, {"messages": message}),
        "anthropic": ("/v1/messages", {"messages": message, "max_tokens": 9}),
        "responses": ("/v1/responses", {"input": "Hello"}),
        "responses.background": ("/v1/responses", {"input": "Hello", "background": True}),
        "tasks": ("/api/v1/tasks", {"prompts": ["Hello"]}),
    }
    for surface in SURFACES:
        path, body = asked[surface]
        assert ask(chain.url, path, body | {"model": "simulator", "simulator": QUICK}).status < 300, surface
    with SocketClient(chain.url, "/api/v1/ws/generate") as client:
        client.say(prompt="Hello", model="simulator", simulator=QUICK).until("end")

    def rises(found: Scrape) -> dict[str, float]:
        name, completed = "sluice_streams_total", {"model": "simulator", "outcome": "completed"}
        return {
            surface: found.value(name, surface=surface, **completed) - before.value(name, surface=surface, **completed)
            for surface in SURFACES
        }

    expected = dict.fromkeys(SURFACES, 1.0) | {"native": 2.0}  # a WebSocket's too
    found = scrape_until(chain.metrics_url, lambda found: rises(found) == expected)
    now = {dict(labels)["surface"] for name, labels in found.samples if name == "sluice_streams_total"}
    assert now == told


def test_what_is_refused_is_counted_by_its_code_whoever_refuses_it(chain: Chain, before: Scrape) -> None:
    """What failed validation was not counted, and the panel of refused requests did not show it."""
    assert ask(chain.url, NATIVE.path, {"prompt": ""}).status == 422
    assert ask(chain.url, OPENAI.path, {}).status == 400
    assert ask(chain.url, NATIVE.path, NATIVE.body("nobody's")).status == 404
    assert ask(chain.url, "/api/v1/nothing").status == 404
    refused = "sluice_refused_total"
    found = scrape_risen(chain.metrics_url, before, refused, rise=4)
    for reason, rise in {"invalid_request": 2, "model_not_found": 1, "not_found": 1}.items():
        assert found.risen_since(before, refused, reason=reason) == rise, reason


class Worker(http.client.HTTPConnection):
    """A worker's own socket, past NGINX, which answers some junk itself."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=20)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)

    def ask(self, method: str, path: str, body: Any = None) -> None:
        """Whatever it answers, on the connection that there is if it was left open."""
        data = None if body is None else json.dumps(body)
        self.request(method, path, data, {"Content-Type": "application/json"} if data else {})
        self.getresponse().read()


def test_junk_makes_no_series(chain: Chain) -> None:
    """Models, paths and methods that nobody has heard of, in all five thousand of them."""
    dice = random.Random(1)

    def junk() -> str:
        return "".join(dice.choices(string.ascii_letters, k=200))

    def throw(count: int) -> None:
        """Half of it at each worker."""
        for path in sockets(chain):
            with closing(Worker(path)) as worker:
                for number in range(count // 2):
                    match number % 5:
                        case 0:
                            worker.ask("POST", NATIVE.path, NATIVE.body(junk()))
                        case 1:
                            worker.ask("GET", f"/{junk()}")
                        case 2:
                            worker.ask("GET", f"/api/v1/streams/{junk()[:24]}")
                        case 3:
                            worker.ask(dice.choice(METHODS), f"/{junk()}")
                        case 4:
                            worker.ask(junk().upper(), "/")  # which no parser lets through

    throw(100)
    time.sleep(2.5)  # all of it is in the files
    known = scrape(chain.metrics_url)
    throw(JUNK)
    found = scrape_risen(chain.metrics_url, known, "sluice_requests_total", JUNK * 4 / 5)
    assert set(found.samples) == set(known.samples)
    assert found.value("sluice_requests_total", method="other") >= JUNK / 5


def test_aborts_of_all_kinds_leave_the_gauges_at_nothing(chain: Chain) -> None:
    dice = random.Random(3)
    with ExitStack() as stack:
        calls = [
            stack.enter_context(Call(chain.url, NATIVE.path, NATIVE.body("simulator", simulator=LASTING)))
            for _ in range(ABORTS)
        ]
        for call in calls:
            call.until(1)
        scrape_until(chain.metrics_url, lambda found: found.value("sluice_active_streams") == ABORTS)
        scrape_until(chain.metrics_url, lambda found: found.value("sluice_active_readers") == ABORTS)
        for call in calls:
            call.leave(dice.choice(["fin", "rst"]))
    scrape_until(chain.metrics_url, lambda found: found.value("sluice_active_streams") == 0)
    scrape_until(chain.metrics_url, lambda found: found.value("sluice_active_readers") == 0)


@contextmanager
def scraped_all_the_time(chain: Chain) -> Iterator[list[Scrape]]:
    """Every scrape that there was meanwhile, one after the other without a pause."""
    scrapes, stop = [scrape(chain.metrics_url)], Event()

    def go_on() -> None:
        while not stop.is_set():
            scrapes.append(scrape(chain.metrics_url))

    thread = Thread(target=go_on)
    thread.start()
    try:
        yield scrapes
    finally:
        stop.set()
        thread.join()


def test_a_killed_worker_leaves_gauges_right_and_takes_no_counter_along(chain: Chain, before: Scrape) -> None:
    """Its streams are the other's: as many as before, and nothing of the dead one's is added to them."""
    until_replaced(chain, set())
    owner, other = sockets(chain)
    pid = pid_behind(owner)
    body = NATIVE.body("simulator", simulator=SLOW, on_disconnect="grace")
    half = NATIVE.body("calls", on_disconnect="grace")
    with ExitStack() as stack:
        ids = [
            stack.enter_context(Call(owner, NATIVE.path, each)).until(2).headers["x-stream-id"]
            for each in [body] * 5 + [half]
        ]
        readers = [stack.enter_context(Call(other, f"/api/v1/streams/{each}")).until(2) for each in ids]
        full = scrape_until(chain.metrics_url, lambda found: found.value("sluice_active_streams") == 6)
        with scraped_all_the_time(chain) as scrapes:
            os.kill(pid, signal.SIGKILL)
            until(lambda: is_gone(pid), 10, "the worker's end")
            scrape_risen(chain.metrics_url, before, "sluice_takeovers_total", 5, result="continued")
            until_replaced(chain, {pid})
            moved = scrape_risen(chain.metrics_url, full, "sluice_worker_starts_total")
        assert len(scrapes) > 2
        assert [fallen for one, another in pairwise(scrapes) if (fallen := another.fallen_since(one))] == []
        assert {found.value("sluice_metric_files_skipped_total") for found in scrapes} == {0}
        assert moved.value("sluice_active_streams") == 5
        assert moved.value("sluice_metric_files") <= 3 * 5
        # Half a call of a tool cannot be gone on with.
        scrape_risen(chain.metrics_url, before, "sluice_takeovers_total", result="ended")
        scrape_risen(chain.metrics_url, before, "sluice_streams_total", model="calls", outcome="producer_lost")
        for reader in readers:
            reader.leave()
        for each in ids[:5]:
            delete(chain, each)
    scrape_until(chain.metrics_url, lambda found: found.value("sluice_active_streams") == 0)


def delete(chain: Chain, stream_id: str) -> None:
    request = urllib.request.Request(f"{chain.url}/api/v1/streams/{stream_id}", method="DELETE")
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 204


def test_a_worker_that_drains_says_so_of_its_streams_and_counts_those_that_move(chain: Chain, before: Scrape) -> None:
    until_replaced(chain, set())
    owner, other = sockets(chain)
    pid = pid_behind(owner)
    body = OPENAI.body("simulator", simulator=SLOW | {"tokens": 80})
    lasting = NATIVE.body("simulator", simulator=SLOW, on_disconnect="grace")
    with Call(owner, OPENAI.path, body) as call, Call(owner, NATIVE.path, lasting) as moves:
        for each in (call, moves):
            each.until(2)
        stream_id = moves.headers["x-stream-id"]
        with Call(other, f"/api/v1/streams/{stream_id}") as reader:
            reader.until(2)
            os.kill(pid, signal.SIGTERM)
            found = scrape_until(chain.metrics_url, lambda found: found.value("sluice_draining_workers") == 1)
            assert found.value("sluice_active_streams", draining="true") == 2
            assert call.finish().verdict == "complete"
            found = scrape_risen(chain.metrics_url, before, "sluice_streams_total", model="simulator", outcome="moved")
            assert found.risen_since(before, "sluice_streams_total", outcome="moved") == 1
            scrape_until(chain.metrics_url, lambda found: found.value("sluice_draining_workers") == 0)
            reader.leave()
        delete(chain, stream_id)
    scrape_until(chain.metrics_url, lambda found: found.value("sluice_active_streams") == 0)


def test_nginx_tells_its_connections(chain: Chain) -> None:
    with Call(chain.url, NATIVE.path, NATIVE.body("simulator", simulator=SLOW)) as call:
        call.until(1)
        found = scrape(chain.metrics_url)
        assert found.value("sluice_nginx_up") == 1
        assert found.value("sluice_nginx_connections", state="writing") >= 1
        assert found.value("sluice_nginx_requests_total") > 0
        call.leave()


def test_every_metric_that_is_declared_is_told_and_nothing_else(chain: Chain) -> None:
    found = scrape(chain.metrics_url)
    told = {family + ("_total" if kind == "counter" else "") for family, kind in found.types.items()}
    # Those that only appear where there is something to say: a certificate, a tenant's first stream, a first reset.
    seldom = {"sluice_certificate_expiry_timestamp_seconds", "sluice_resets_total", "sluice_retries_total"}
    assert told - ALL.keys() == set()
    assert ALL.keys() - told <= seldom
