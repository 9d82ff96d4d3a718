"""Faults that take more than one request: joined, crowded, abandoned, and a models file that changes."""

import json
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.faults.case import WHOLE
from tests.faults.rig import Rig
from tests.support.call import Call, ask
from tests.support.surfaces import NATIVE, OPENAI
from tests.support.upstream_script import Script

# What was seen, and whether that is what has to be.
Seen = tuple[str, bool]
SLOW = Script(delay_seconds=0.2)
OPEN_SECONDS = 2

MODELS: dict[str, Any] = {
    "joined": {"upstreams": [{}]},
    "one-place": {"upstreams": [{"concurrency_max": 1, "queue_max": 0}]},
    "one-seat": {"upstreams": [{"concurrency_max": 1, "queue_max": 1, "queue_seconds": 2}]},
    "two-places": {"upstreams": [{"place": "hangs", "concurrency_max": 2, "connect_seconds": 2}, {}]},
    "ill": {"upstreams": [{"breaker_failures_max": 5, "breaker_open_seconds": OPEN_SECONDS}, {}]},
    "ill-alone": {"upstreams": [{"breaker_failures_max": 5, "breaker_open_seconds": 60}]},
    "left": {"upstreams": [{}]},
    "reloaded": {"upstreams": [{}]},
    "hedged": {"hedge_percentile": 90, "upstreams": [{"first_token_seconds": 10}, {}]},
}


def joined(rig: Rig) -> Seen:
    rig.first.script("joined", SLOW)
    body, key = NATIVE.body("joined"), {"Idempotency-Key": "k-1"}
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: ask(rig.gunicorn.url, NATIVE.path, body, **key).text, range(2)))
    later = ask(rig.gunicorn.url, NATIVE.path, body, **key).text
    other = ask(rig.gunicorn.url, NATIVE.path, {**body, "prompt": "Another"}, **key).status
    count = len(rig.first.requests("joined"))
    right = [*both, later] == [WHOLE] * 3 and other == 422 and count == 1
    return f"{count} generation for three readers; another body: {other}", right


def crowded(rig: Rig) -> Seen:
    rig.first.script("one-place", SLOW)
    with Call(rig.gunicorn.url, OPENAI.path, OPENAI.body("one-place")) as holding:
        holding.until(2)
        refused = ask(rig.gunicorn.url, OPENAI.path, OPENAI.body("one-place"))
        batch = ask(rig.gunicorn.url, OPENAI.path, OPENAI.body("one-place", stream=False))
        held = holding.finish().text
    after = ask(rig.gunicorn.url, OPENAI.path, OPENAI.body("one-place", stream=False))
    statuses = (refused.status, batch.status, after.status)
    again = refused.headers.get("retry-after")
    right = statuses == (503, 503, 200) and held == WHOLE and again == "1"
    return f"{statuses[0]} with Retry-After {again} for a stream, {statuses[1]} for a batch, then {statuses[2]}", right


def seated(rig: Rig) -> Seen:
    rig.first.script("one-seat", Script(delay_seconds=0.1))
    with ThreadPoolExecutor(2) as pool:
        calls = list(pool.map(lambda _: ask(rig.gunicorn.url, OPENAI.path, OPENAI.body("one-seat")), range(2)))
    first, second = sorted(rig.first.requests("one-seat"), key=lambda entry: entry.started)
    in_turn = first.finished is not None and second.started >= first.finished - 0.05
    return "both whole, one after the other", [call.text for call in calls] == [WHOLE] * 2 and in_turn


def abandoned(rig: Rig) -> Seen:
    for _ in range(20):
        with Call(rig.gunicorn.url, NATIVE.path, NATIVE.body("two-places")) as call:
            time.sleep(0.02)
            call.leave("rst")
    time.sleep(1.2)
    call = ask(rig.gunicorn.url, NATIVE.path, NATIVE.body("two-places"))
    seconds = time.monotonic() - call.started
    return f"the next one is whole after {seconds:.1f} s", call.text == WHOLE and seconds < 4


def ill(rig: Rig) -> Seen:
    rig.first.script("ill", status=500)
    texts = [ask(rig.gunicorn.url, NATIVE.path, NATIVE.body("ill")).text for _ in range(15)]
    asked = len(rig.first.requests("ill"))
    rig.first.script("ill")
    time.sleep(OPEN_SECONDS + 0.3)
    texts += [ask(rig.gunicorn.url, NATIVE.path, NATIVE.body("ill")).text for _ in range(3)]
    back = len(rig.first.requests("ill")) - asked
    right = texts == [WHOLE] * 18 and asked == 5 and back == 3
    return f"asked {asked} times in 15 requests; healthy again, {back} times in 3; all answers whole", right


def ill_alone(rig: Rig) -> Seen:
    rig.first.script("ill-alone", Script(die_after=3))
    calls = [ask(rig.gunicorn.url, NATIVE.path, NATIVE.body("ill-alone")) for _ in range(8)]
    asked = len(rig.first.requests("ill-alone"))
    last = (calls[-1].status, NATIVE.error(calls[-1])["code"] if calls[-1].frames else calls[-1].json["error"]["code"])
    right = asked == 5 and last == (503, "upstream_unavailable") and "retry-after" in calls[-1].headers
    return f"asked {asked} times in 8 requests; then {last[0]} `{last[1]}` with Retry-After", right


def left(rig: Rig) -> Seen:
    rig.first.script("left", SLOW)
    with Call(rig.gunicorn.url, NATIVE.path, NATIVE.body("left")) as call:
        call.until(2)
        gone = call.leave()
    entry = rig.first.wait_closed("left")
    seconds = (entry.closed_at or 0) - gone
    counted = _counted(rig, "left")
    right = 0 <= seconds < 1 and len(counted) == 1 and 2 <= counted[0] <= entry.tokens
    return f"upstream closed after {seconds:.2f} s; {counted} tokens accounted, {entry.tokens} sent", right


def _counted(rig: Rig, model: str, seconds: float = 10) -> list[int]:
    """The tokens that the log accounts to each of the model's generations that were left, once it speaks of one."""
    deadline = time.monotonic() + seconds
    while True:
        lines = [line for line in rig.gunicorn.log.splitlines() if '"generation"' in line and f'"{model}"' in line]
        if lines or time.monotonic() > deadline:
            said = [json.loads(line) for line in lines]
            return [line["output_tokens"] for line in said if line["outcome"] == "cancelled"]
        time.sleep(0.05)


def hedged(rig: Rig) -> Seen:
    rig.first.script("hedged")
    for _ in range(20):
        ask(rig.gunicorn.url, NATIVE.path, NATIVE.body("hedged"))
    rig.first.script("hedged", stall_after=0)
    call = ask(rig.gunicorn.url, NATIVE.path, NATIVE.body("hedged"))
    seconds = time.monotonic() - call.started
    closed = rig.first.wait_closed("hedged").closed is not None
    return f"whole after {seconds:.1f} s, the slow one closed", call.text == WHOLE and seconds < 3 and closed


def reloaded(rig: Rig) -> Seen:
    rig.first.script("reloaded", Script(tokens=20, delay_seconds=0.2))
    rig.first.script("new")
    master = rig.gunicorn.master_pid
    with Call(rig.gunicorn.url, NATIVE.path, NATIVE.body("reloaded")) as running:
        running.until(2)
        rig.write({"models": {**rig.catalog["models"], "new": rig.catalog["models"]["reloaded"]}})
        os.kill(master, signal.SIGHUP)
        new = _until_served(rig, "new")
        text = running.finish().text
    rig.file.write_text("models:\n  a: [\n")
    os.kill(master, signal.SIGHUP)
    rig.gunicorn.wait_for("models file refused")
    time.sleep(1)
    still = _until_served(rig, "new")
    right = new == still == 200 and text == Script(tokens=20).text
    return f"the stream that ran is whole; the new model {new}; after a file that is wrong {still}", right


def _until_served(rig: Rig, model: str, seconds: float = 15) -> int:
    deadline = time.monotonic() + seconds
    while True:
        try:
            status = ask(rig.gunicorn.url, NATIVE.path, NATIVE.body(model)).status
        except (OSError, AssertionError):
            status = 0
        if status == 200 or time.monotonic() > deadline:
            return status
        time.sleep(0.1)


# The last one changes the workers, which have counted for the others.
SPECIALS: dict[str, Callable[[Rig], Seen]] = {
    "two requests with one Idempotency-Key at once, one later": joined,
    "one place, and no queue: a stream, then a stream and a batch": crowded,
    "one place, and a queue of one": seated,
    "20 clients leave while two places wait for a connection": abandoned,
    "an upstream that fails, while another works": ill,
    "an upstream that dies in the middle, alone": ill_alone,
    "the client leaves": left,
    "an upstream whose first token is late, where a second may be asked": hedged,
    "HUP with another models file, and with a broken one": reloaded,
}


def run_specials() -> list[tuple[str, str, bool]]:
    """What happens, what was seen, and whether that is wrong."""
    with Rig([], MODELS) as rig:
        return [(what, *_seen(special, rig)) for what, special in SPECIALS.items()]


def _seen(special: Callable[[Rig], Seen], rig: Rig) -> tuple[str, bool]:
    try:
        seen, right = special(rig)
    except AssertionError as error:
        return str(error).splitlines()[0][:200], True
    return seen, not right
