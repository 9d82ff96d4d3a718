"""What operators see of WebSockets: streams that are read there count as on any connection, and no flood of lines."""

import json
import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from app.observability.log_fields import FIELDS, SOCKET
from app.observability.noise import BURST
from tests.support.call import Call
from tests.support.chain import Chain
from tests.support.collector import Collector
from tests.support.raw_socket import RawSocket
from tests.support.scrape import Scrape, scrape, scrape_until
from tests.support.socket_client import SocketClient
from tests.support.surfaces import NATIVE
from tests.support.workers import sockets, until, until_replaced

GENERATE = "/api/v1/ws/generate"
FAST = {"tokens": 5, "tokens_per_second": 0, "first_token_ms": 0}
LATE = FAST | {"first_token_ms": 1500}
LONG = FAST | {"tokens": 3000, "tokens_per_second": 30}
TIMES = 200
# Two a second on a slow machine.
LINES_MAX = BURST + 60
READERS, RESUMES = "sluice_readers_total", "sluice_resumes_total"
REFUSED, HEARTBEATS = "sluice_refused_total", "sluice_heartbeats_total"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


@pytest.fixture(scope="module")
def chain(collector: Collector) -> Iterator[Chain]:
    with Chain(collector.env | {"SLUICE_HEARTBEAT_SECONDS": "1"}, workers=1) as running:
        yield running


@pytest.fixture
def before(chain: Chain) -> Scrape:
    until_replaced(chain, set())
    return scrape(chain.metrics_url)


def lines(chain: Chain, **fields: Any) -> list[dict[str, Any]]:
    """The log's lines of sockets that have these fields."""
    whole = chain.log.rpartition("\n")[0]
    found = [json.loads(line) for line in whole.splitlines() if '"event":"socket"' in line]
    return [line for line in found if fields.items() <= line.items()]


def test_each_stream_that_a_socket_reads_is_counted_as_one_and_the_socket_as_none(chain: Chain, before: Scrape) -> None:
    with SocketClient(chain.url, GENERATE) as client:
        client.say(prompt="one", simulator=FAST).until("end")
        stream_id, last = client.messages[0]["stream_id"], client.last_id
        client.say(type="resume", stream_id=stream_id).until("end")
        client.say(type="resume", last_event_id=last).until("end")
        client.say(type="resume", last_event_id=f"{stream_id}.0.99").until("error")
        assert client.messages[-1]["code"] == "cursor_gone"
        client.say(prompt="").until("error")
        client.say(prompt="two", simulator=LATE).until("end")
        client.say(prompt="three", simulator=LONG).until("token", 3)
        client.drop()
    found = scrape_until(
        chain.metrics_url, lambda found: found.risen_since(before, READERS, outcome="client_cancelled") == 1
    )
    assert found.risen_since(before, READERS, outcome="completed") == 3
    assert found.risen_since(before, READERS) == 4
    assert {result: found.risen_since(before, RESUMES, result=result) for result in ("ok", "past_end", "gone")} == {
        "ok": 1,
        "past_end": 1,
        "gone": 1,
    }
    assert found.risen_since(before, HEARTBEATS) >= 1
    assert found.risen_since(before, REFUSED, reason="invalid_request") == 1
    assert found.risen_since(before, REFUSED, reason="cursor_gone") == 1


def test_a_refused_handshake_is_a_refused_request_and_no_reader(chain: Chain, before: Scrape) -> None:
    with RawSocket(chain.url, GENERATE, Origin="http://evil.example") as client:
        assert client.status == 403
    found = scrape_until(chain.metrics_url, lambda found: found.risen_since(before, REFUSED, reason="forbidden") == 1)
    assert found.risen_since(before, READERS) == 0


def test_sockets_that_come_and_go_in_a_circle_are_a_bounded_number_of_lines(chain: Chain) -> None:
    until_replaced(chain, set())
    (worker,) = sockets(chain)  # past NGINX, which would turn some of them away
    for _ in range(TIMES):
        with RawSocket(worker, GENERATE, Origin="http://evil.example") as client:
            assert client.status == 403
        with RawSocket(worker, GENERATE) as client:
            assert client.status == 101
    with SocketClient(chain.url, GENERATE) as client:
        client.say(prompt="one", simulator=FAST).until("end")
    until(lambda: lines(chain, streams=1, tokens=5), 20, "the line of a socket on which a stream began")
    for outcome in ("forbidden", "client_cancelled"):
        found = lines(chain, outcome=outcome, streams=0)
        assert BURST // 2 <= len(found) <= LINES_MAX, outcome
    for line in lines(chain):
        assert SOCKET.keys() - {"unlogged"} <= line.keys() <= FIELDS.keys()


def test_a_resume_on_a_socket_is_linked_to_the_streams_first_trace(chain: Chain, collector: Collector) -> None:
    first, own, resumed = (secrets.token_hex(16) for _ in range(3))

    def parent(trace: str) -> dict[str, str]:
        return {"traceparent": f"00-{trace}-b7ad6b7169203331-01"}

    body = NATIVE.body("simulator", simulator=FAST, on_disconnect="finish")
    with Call(chain.url, NATIVE.path, body, headers=parent(first)) as call:
        stream_id = call.finish().headers["x-stream-id"]
    with SocketClient(chain.url, GENERATE, parent(own)) as client:
        client.say(prompt="one", simulator=FAST).until("end")
    with SocketClient(chain.url, GENERATE, parent(resumed)) as client:
        client.say(type="resume", stream_id=stream_id).until("end")

    def links(trace: str) -> list[list[str]]:
        return [span.links for span in collector.spans if span.trace == trace and span.kind == "server"]

    until(lambda: links(own) and links(resumed), 20, "the spans of both sockets")
    assert links(resumed) == [[first]]
    assert links(own) == [[]], "it began its stream itself"
