"""More is asked for than fits: what runs is not disturbed, what can wait waits in turn, the rest hears 503 in time.

One worker of three places, behind NGINX. `tests/unit/admission` and `tests/unit/streams/test_admission.py` have whose
turn it is.
"""

import http.client
import json
from collections.abc import Iterator
from itertools import pairwise
from time import monotonic, sleep
from typing import Any

import pytest

from app.admission.places import RETRY_AFTER_SECONDS
from tests.support.call import SECONDS_MAX, Call, ask, finish_all
from tests.support.chain import Chain
from tests.support.surfaces import NATIVE, OPENAI, Surface

PLACES = 3
WAIT_SECONDS = 1.0
# By one that then gets a place: enough to be seen, and a part of what it may.
WAITED_SECONDS = 0.3
# What waits at a time, by `main._places`.
QUEUE = 8
# A busy machine may take longer for a turn than anybody waits.
TURNS_MAX = 4
ANTHROPIC = Surface(
    "anthropic", "/v1/messages", {"max_tokens": 4000, "messages": [{"role": "user", "content": "Hello"}]}
)
SURFACES = pytest.mark.parametrize("surface", [NATIVE, OPENAI, ANTHROPIC], ids=lambda surface: surface.name)


@pytest.fixture(scope="module")
def chain() -> Iterator[Chain]:
    env = {
        "SLUICE_STREAMS_MAX": str(PLACES),
        "SLUICE_ADMISSION_SECONDS": str(WAIT_SECONDS),
        # NGINX lets through a multiple of so few places, which is less than comes here at a time, all from one client.
        "SLUICE_EDGE_STREAMS_MAX": "200",
        "SLUICE_CLIENT_STREAMS_MAX": "200",
    }
    with Chain(env, workers=1) as running:
        yield running


def body(surface: Surface, tokens: int, rate: int = 20) -> Any:
    return surface.body("simulator") | {"simulator": {"seed": 1, "tokens": tokens, "tokens_per_second": rate}}


@pytest.fixture
def full(chain: Chain) -> Iterator[list[Call]]:
    """Streams that have all places, and go on for much longer than a test."""
    running = [Call(chain.url, NATIVE.path, body(NATIVE, 2000)) for _ in range(PLACES)]
    for call in running:
        call.until(2)
    yield running
    for call in running:
        call.leave()
        delete(chain, call)


def delete(chain: Chain, call: Call) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", chain.port, timeout=SECONDS_MAX)
    connection.request("DELETE", f"/api/v1/streams/{call.headers['x-stream-id']}")
    assert connection.getresponse().status == 204
    connection.close()


def durations_ms(chain: Chain, calls: list[Call]) -> list[float]:
    """As the app saw them: this test's process may be slow to look."""
    deadline = monotonic() + SECONDS_MAX
    while True:
        lines = [json.loads(line) for line in chain.log.splitlines() if '"duration_ms"' in line]
        took = {line.get("request_id"): line["duration_ms"] for line in lines}
        ids = [call.headers["x-request-id"] for call in calls]
        if all(name in took for name in ids):
            return [took[name] for name in ids]
        assert monotonic() < deadline, chain.log[-2000:]
        sleep(0.05)


@SURFACES
def test_overload_is_a_503_within_the_wait_in_the_surfaces_shape_with_a_time_to_come_back(
    chain: Chain, full: list[Call], surface: Surface
) -> None:
    del full
    call = ask(chain.url, surface.path, body(surface, 3))
    assert call.status == 503
    assert RETRY_AFTER_SECONDS[0] <= int(call.headers["retry-after"]) <= RETRY_AFTER_SECONDS[1]
    assert WAIT_SECONDS * 0.9 < call.head_at - call.started < WAIT_SECONDS + 5
    error = call.json["error"]
    if surface is ANTHROPIC:
        assert (error["type"], error["details"]["error_code"]) == ("overloaded_error", "overloaded")
    else:
        assert error["code"] == "overloaded"
        assert surface is not NATIVE or error["retryable"] is True
    assert "x-stream-id" not in call.headers, "nothing was begun"


def test_beyond_the_queue_nobody_waits_and_what_runs_keeps_its_pace(chain: Chain, full: list[Call]) -> None:
    calls = [Call(chain.url, NATIVE.path, body(NATIVE, 3)) for _ in range(3 * QUEUE)]
    began = monotonic()
    while monotonic() < began + WAIT_SECONDS / 2:
        for probe in ("/livez", "/readyz", "/health"):
            assert ask(chain.url, probe).status == 200, "probes are never queued"
        status = ask(chain.url, f"/api/v1/streams/{full[0].headers['x-stream-id']}/status")
        assert status.json["state"] == "running"
    finish_all(calls)
    assert {call.status for call in calls} == {503}
    at_once = [took for took in durations_ms(chain, calls) if took < WAIT_SECONDS * 800]
    assert len(at_once) == len(calls) - QUEUE
    assert len({call.headers["retry-after"] for call in calls}) > 2, "not all at the same moment again"
    for call in full:
        seen = len(call.frames)
        call.until(seen + 20)
        gaps = [later - earlier for earlier, later in pairwise(call.times[seen:])]
        assert max(gaps) < 1.0
        assert not call.terminals


def test_a_reader_comes_back_to_its_stream_although_all_places_are_taken(chain: Chain, full: list[Call]) -> None:
    last = full[0].frames[-1].id
    assert last is not None
    resumed = Call(chain.url, f"/api/v1/streams/{last.split('.')[0]}", headers={"Last-Event-ID": last})
    resumed.until(5)
    assert resumed.head_at - resumed.started < WAIT_SECONDS * 0.8
    resumed.leave()
    again = Call(chain.url, NATIVE.path, body(NATIVE, 3), headers={"Last-Event-ID": last})
    again.until(5)
    assert again.status == 200
    again.leave()


def test_one_that_waits_begins_when_another_ends(chain: Chain, full: list[Call]) -> None:
    call = Call(chain.url, NATIVE.path, body(NATIVE, 5, rate=100))
    delete(chain, full[0])
    assert call.finish().verdict == "complete"
    assert len(call.frames) == 6
    full[0].finish()
    full[0] = Call(chain.url, NATIVE.path, body(NATIVE, 2000)).until(2)


def test_the_wait_for_a_place_is_part_of_the_time_to_the_first_token(chain: Chain, full: list[Call]) -> None:
    question = body(NATIVE, 5, rate=100)
    question["simulator"]["first_token_ms"] = 0
    call = Call(chain.url, NATIVE.path, question)
    sleep(WAITED_SECONDS)
    delete(chain, full[0])
    mark = f'"stream":"{call.finish().headers["x-stream-id"]}"'
    chain.wait_for(mark, SECONDS_MAX)
    line = next(json.loads(line) for line in chain.log.splitlines() if mark in line)
    assert line["duration_ms"] > line["first_token_ms"] > WAITED_SECONDS * 900
    full[0].finish()
    full[0] = Call(chain.url, NATIVE.path, body(NATIVE, 2000)).until(2)


def test_a_key_joins_its_stream_although_all_places_are_taken(chain: Chain, full: list[Call]) -> None:
    key = {"Idempotency-Key": "overload-1"}
    delete(chain, full[0])
    full[0].finish()
    full[0] = Call(chain.url, NATIVE.path, body(NATIVE, 2000), headers=key).until(2)
    joined = Call(chain.url, NATIVE.path, body(NATIVE, 2000), headers=key).until(5)
    assert joined.headers["x-stream-id"] == full[0].headers["x-stream-id"]
    assert joined.head_at - joined.started < WAIT_SECONDS * 0.8
    joined.leave()


def test_event_sources_that_find_no_place_ask_again_at_a_bounded_rate_and_push_nobody_out(
    chain: Chain, full: list[Call]
) -> None:
    """Any other status ends them for good; whoever lets the newest in for the oldest has all of them come again."""
    accept = {"Accept": "text/event-stream"}
    calls = [Call(chain.url, "/api/v1/stream?prompt=x", headers=accept) for _ in range(3 * QUEUE)]
    finish_all(calls)
    waits = set()
    for call in calls:
        assert (call.status, call.headers["content-type"].partition(";")[0]) == (200, "text/event-stream")
        (frame,) = call.frames
        assert (frame.event, frame.json()["reason"]) == ("reconnect", "overloaded")
        assert frame.retry is not None
        assert 1000 <= frame.retry <= 3000
        waits.add(frame.retry)
    assert len(waits) > len(calls) / 2
    for call in full:
        assert not call.until(len(call.frames) + 5).terminals


def test_where_nobody_is_known_each_address_waits_in_a_line_of_its_own(chain: Chain, full: list[Call]) -> None:
    """All were one caller, of whom whoever asked first and most kept everybody else from beginning."""

    def turn() -> tuple[list[Call], Call]:
        greedy = [Call(chain.url, NATIVE.path, body(NATIVE, 3)) for _ in range(QUEUE)]
        sleep(WAIT_SECONDS / 4)  # all of them wait
        other = Call(chain.url, NATIVE.path, body(NATIVE, 5), address="127.0.0.2")
        sleep(WAIT_SECONDS / 10)
        for call in full[:2]:
            delete(chain, call)
        finish_all([*greedy, other, *full[:2]])
        full[:2] = [Call(chain.url, NATIVE.path, body(NATIVE, 2000)).until(2) for _ in range(2)]
        return greedy, other

    for _ in range(TURNS_MAX):
        greedy, other = turn()
        if other.status == 200:
            break
    assert other.verdict == "complete", "in no turn, however fast this machine was"
    # For one of the greedy, who was the last in the longest line.
    assert 503 in {call.status for call in greedy}
    # Whose stream it is does not depend on where he is.
    stream_id = other.headers["x-stream-id"]
    assert Call(chain.url, f"/api/v1/streams/{stream_id}").finish().text == other.text
