"""Resume over HTTP, through the whole chain: every place, every cursor, around the end, and by the key of a request."""

import os
import random
import signal
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.support.call import Call, ask, finish_all
from tests.support.chain import Chain
from tests.support.footprint import footprint, inside_env
from tests.support.models import Models
from tests.support.surfaces import NATIVE, OPENAI
from tests.support.upstream import ScriptedUpstream
from tests.support.workers import all_active_streams, pid_behind, sockets, until

LEASE_SECONDS = 5.0
HEARTBEAT = b": ping\n\n"
RESUMES = 300
# A connection that NGINX or the log keeps.
MORE_FILES_MAX = 4


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("inside")


@pytest.fixture(scope="module")
def chain(models: Models, inside: Path) -> Iterator[Chain]:
    env = {"SLUICE_CONFIG": str(models.path), "SLUICE_HEARTBEAT_SECONDS": "1"}
    with Chain(env | inside_env(inside), workers=2) as running:
        yield running


def question(tokens: int, pace: float = 0, **more: Any) -> dict[str, Any]:
    return {
        "prompt": "Go on.",
        "stream": True,
        "model": "simulator",
        "simulator": {"tokens": tokens, "tokens_per_second": pace, "first_token_ms": 0},
        **more,
    }


def path_of(call: Call) -> str:
    return f"/api/v1/streams/{call.headers['x-stream-id']}"


def resume(target: str | Path, path: str, last_id: str | None = None) -> Call:
    return Call(target, path, headers={"Last-Event-ID": last_id} if last_id else {})


def test_every_place_in_a_stream_can_be_resumed(chain: Chain) -> None:
    whole = ask(chain.url, NATIVE.path, question(40))
    assert [frame.event for frame in whole.frames] == ["token"] * 40 + ["done"]
    for number, frame in enumerate(whole.frames[:-1], 1):
        rest = resume(chain.url, path_of(whole), frame.id).finish()
        assert rest.frames == whole.frames[number:]
        assert rest.verdict == "complete"


def test_past_the_end_there_is_no_content_and_nothing_begins(chain: Chain) -> None:
    """An EventSource comes back by itself when its connection closes; at 204 it stops."""
    whole = ask(chain.url, NATIVE.path, question(3))
    last = whole.frames[-1].id
    again = [
        resume(chain.url, path_of(whole), last).finish(),
        Call(chain.url, NATIVE.path, question(3), headers={"Last-Event-ID": last}).finish(),
        Call(chain.url, "/api/v1/stream?prompt=x", headers={"Last-Event-ID": last}).finish(),
    ]
    assert [(call.status, bytes(call.body)) for call in again] == [(204, b"")] * 3
    assert sum(all_active_streams(chain)) == 0


def test_whoever_comes_around_the_end_gets_the_end(chain: Chain) -> None:
    """Just before it, at it and just behind it; at the worker that produces and at the other one."""
    rng = random.Random(1)
    paths = sockets(chain)
    readers: list[Call] = []
    for _ in range(60):
        first = Call(paths[0], NATIVE.path, question(4, 200)).until(rng.randint(1, 4))
        seen = [frame.id for frame in first.frames if frame.event == "token"]
        readers += [first, resume(rng.choice(paths), path_of(first), rng.choice([None, seen[-1]]))]
    finish_all(readers)
    for first, second in zip(readers[::2], readers[1::2], strict=True):
        assert first.verdict == second.verdict == "complete"
        assert second.frames == first.frames[-len(second.frames) :]


def test_three_readers_get_identical_bytes(chain: Chain) -> None:
    """Also though two of them say nothing of the options that the first one gave."""
    with Call(chain.url, NATIVE.path, question(40, 25, max_tokens=39)) as first:
        first.until(5)
        readers = [first, *(resume(path, path_of(first)) for path in sockets(chain))]
        finish_all(readers)
    bodies = {bytes(call.body).replace(HEARTBEAT, b"") for call in readers}
    assert len(bodies) == 1
    assert first.verdict == "complete"
    assert first.frames[-1].json()["finish_reason"] == "length"


def test_a_stream_of_openai_s_surface_is_resumed_in_native_events(chain: Chain) -> None:
    first = ask(chain.url, OPENAI.path, OPENAI.body("simulator", simulator=question(10)["simulator"]))
    assert b"\nid:" not in first.body
    rest = resume(chain.url, path_of(first)).finish()
    assert rest.text == first.text
    assert [frame.event for frame in rest.frames] == ["token"] * 10 + ["done"]


def test_a_heartbeat_moves_no_cursor(chain: Chain, upstream: ScriptedUpstream, models: Models) -> None:
    model = models.unused()
    upstream.script(model, tokens=4, delay_seconds=1.3)
    with Call(chain.url, NATIVE.path, question(4) | {"model": model, "simulator": None}) as first:
        first.until(2).until_heartbeat()
        rest = resume(chain.url, path_of(first), first.frames[-1].id)
        first.leave("rst")
        rest.finish()
    assert rest.verdict == "complete"
    assert first.text + rest.text == "".join(f"tok{n} " for n in range(4))
    assert rest.heartbeat_times


def test_cursors_that_are_none_are_refused_and_the_header_is_the_stronger(chain: Chain) -> None:
    whole, other = (ask(chain.url, NATIVE.path, question(5)) for _ in range(2))
    path, third = path_of(whole), whole.frames[2].id
    stream_id = whole.headers["x-stream-id"]
    for bad in ("x", "1", "1.2.3", f"{stream_id}.0", f"{stream_id}.0.-1", f"{stream_id}.0.1e3", other.frames[0].id):
        refused = resume(chain.url, path, bad).finish()
        assert (refused.status, refused.json["error"]["code"]) == (400, "invalid_cursor"), bad
    assert ask(chain.url, f"{path}?last_event_id={third}").frames == whole.frames[3:]
    assert ask(chain.url, f"{path}?last_event_id=nonsense", Last_Event_ID=third).frames == whole.frames[3:]
    assert ask(chain.url, f"{path}?last_event_id={third}", Last_Event_ID="nonsense").status == 400
    for beyond in (f"{stream_id}.0.99", f"{stream_id}.7.1"):
        gone = resume(chain.url, path, beyond).finish()
        assert (gone.status, gone.json["error"]["code"]) == (410, "cursor_gone"), beyond
    unknown = "A" * 24
    for missing in (f"/api/v1/streams/{unknown}", f"/api/v1/streams/{unknown}/status", "/api/v1/streams/..%2f..%2fx"):
        assert ask(chain.url, missing).status == 404, missing


def test_one_key_makes_one_generation(chain: Chain, upstream: ScriptedUpstream, models: Models) -> None:
    """Retries of a POST that was lost on the way: two at once, at different workers, and one when it is all over."""
    model = models.unused()
    upstream.script(model, tokens=8, delay_seconds=0.05, first_delay_seconds=0.3)
    body = {"prompt": "Once.", "stream": True, "model": model}
    key = {"Idempotency-Key": "only-once"}
    answers = [Call(path, NATIVE.path, body, headers=key) for path in sockets(chain)]
    finish_all(answers)
    answers.append(Call(chain.url, NATIVE.path, body, headers=key).finish())
    assert {call.verdict for call in answers} == {"complete"}
    assert len({call.headers["x-stream-id"] for call in answers}) == 1
    assert len({bytes(call.body) for call in answers}) == 1
    batch = Call(chain.url, NATIVE.path, body | {"stream": False}, headers=key).finish()
    assert (batch.status, batch.json["response"]) == (200, answers[0].text)
    refused = Call(chain.url, NATIVE.path, body | {"prompt": "Twice."}, headers=key).finish()
    assert (refused.status, refused.json["error"]["code"]) == (422, "idempotency_mismatch")
    assert len(upstream.requests(model)) == 1


def test_a_partial_answer_is_accounted_for_once(chain: Chain, upstream: ScriptedUpstream, models: Models) -> None:
    """By its log and by one line of the access log, whatever became of the connection."""
    model = models.unused()
    upstream.script(model, tokens=500, delay_seconds=0.05)
    with Call(chain.url, NATIVE.path, NATIVE.body(model)) as call:
        call.until(6).leave("rst")
    entry = upstream.wait_closed(model)
    path = path_of(call)
    until(lambda: ask(chain.url, f"{path}/status").json["state"] == "cancelled", 5, "it is known to be cancelled")
    log = ask(chain.url, path)
    assert [frame.event for frame in log.frames] == ["token"] * (len(log.frames) - 1) + ["error"]
    assert log.frames[-1].json()["code"] == "cancelled"
    assert 6 <= len(log.frames) - 1 <= entry.tokens

    def lines_of_it() -> list[str]:
        return [line for line in chain.log.splitlines() if call.headers["x-request-id"] in line]

    until(lines_of_it, 5, "the line is written")
    lines = lines_of_it()
    assert len(lines) == 1
    assert '"outcome":"client_cancelled"' in lines[0]
    assert f'"stream_id":"{call.headers["x-stream-id"]}"' in lines[0]


def test_reading_what_has_ended_leaves_nothing_behind(chain: Chain, inside: Path) -> None:
    whole = ask(chain.url, NATIVE.path, question(20))
    pids = chain.worker_pids()
    for path in sockets(chain):
        resume(path, path_of(whole)).finish()
    before = {pid: footprint(pid, inside) for pid in pids}
    for number in range(RESUMES):
        last = None if number % 3 else whole.frames[number % 20].id
        with resume(chain.url, path_of(whole), last) as call:
            if number % 5:
                call.finish()
            else:
                call.leave("rst")

    def nothing_left() -> bool:
        now = {pid: footprint(pid, inside) for pid in pids}
        return all(
            not now[pid].tasks - before[pid].tasks
            and now[pid].threads == before[pid].threads
            and (now[pid].files - before[pid].files).total() <= MORE_FILES_MAX
            for pid in pids
        )

    until(nothing_left, 10, "nothing is left behind")
    assert chain.worker_pids() == pids


def test_readers_of_a_killed_worker_go_on_within_its_lease(chain: Chain) -> None:
    paths = sockets(chain)
    calls = [Call(paths[0], NATIVE.path, question(120, 20)).until(2) for _ in range(10)]
    readers = [resume(paths[1], path_of(call)).until(2) for call in calls]
    killer = threading.Timer(1.0, os.kill, (pid_behind(paths[0]), signal.SIGKILL))
    killer.start()
    finish_all(readers, 30)
    killer.join()
    for call in calls:
        call.finish()
    for reader in readers:
        assert reader.verdict == "complete"
        assert [frame.json()["index"] for frame in reader.frames[:-1]] == list(range(1, 121))
        assert max(b - a for a, b in pairwise(reader.times)) < LEASE_SECONDS + 2
    assert {call.verdict for call in calls} == {"incomplete"}
