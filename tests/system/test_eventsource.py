"""A browser's own EventSource on /api/v1/stream: it gets every token, comes back by itself, and stops at the end."""

import json
import os
import signal
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.support.browser import LISTEN, Browser
from tests.support.chain import Chain
from tests.support.cuttable import cuttable
from tests.support.playground import PROMPT, batch_text

CLOSED = 2
# What EventSource waits before it comes back, where nobody says `retry:`, is about three seconds.
AGAIN_SECONDS_MAX = 30.0


@pytest.fixture(scope="module")
def chain() -> Iterator[Chain]:
    with Chain() as running:
        yield running


def listen(browser: Browser, url: str, *, tokens: int, pace: float) -> None:
    """Read a stream with EventSource, and do nothing about its end."""
    simulator = json.dumps({"seed": 7, "tokens": tokens, "tokens_per_second": pace})
    query = urlencode({"prompt": PROMPT, "model": "simulator", "simulator": simulator})
    browser.open(f"{url}/playground")  # a page of the origin's that may connect to it
    browser.run(LISTEN, f"/api/v1/stream?{query}")


def received(browser: Browser) -> list[dict[str, Any]]:
    return list(browser.run("return tokens"))


def wait_for_tokens(browser: Browser, count: int) -> None:
    browser.wait_for(f"tokens.length >= {count}", f"{count} tokens")


def answers(chain: Chain) -> list[dict[str, Any]]:
    """The workers' log lines on requests for the route."""
    lines = [json.loads(line) for line in chain.log.splitlines() if line.startswith("{")]
    return [line for line in lines if line.get("path") == "/api/v1/stream"]


def statuses(browser: Browser) -> list[int]:
    """Of the answers on the route."""
    found = [event["response"] for event in browser.network("Network.responseReceived")]
    return [answer["status"] for answer in found if "/api/v1/stream?" in answer["url"]]


def assert_whole(browser: Browser, url: str, *, tokens: int) -> None:
    """Every token once, in order, and the text that they make."""
    found = received(browser)
    assert [token["index"] for token in found] == list(range(1, tokens + 1))
    assert "".join(token["token"] for token in found) == batch_text(url, tokens=tokens)
    assert browser.run("return done.finish_reason") == "stop"


def assert_it_stops(browser: Browser, chain: Chain, before: int) -> None:
    """It comes back once more, is told that there is nothing more, and leaves; all was one generation."""
    browser.wait_for(f"source.readyState === {CLOSED}", "EventSource has stopped", AGAIN_SECONDS_MAX)
    asked = statuses(browser)
    assert asked[-1] == 204
    assert set(asked[:-1]) == {200}
    time.sleep(5)  # longer than its own wait: it does not come back again
    assert statuses(browser) == asked
    mine = answers(chain)[before:]
    assert mine[-1]["status"] == 204
    assert len({line["stream_id"] for line in mine if "stream_id" in line}) == 1


def test_it_gets_every_token_and_stops_at_the_end(browser: Browser, chain: Chain) -> None:
    before = len(answers(chain))
    listen(browser, chain.url, tokens=40, pace=40)
    browser.wait_for("globalThis.done")
    assert_whole(browser, chain.url, tokens=40)
    assert_it_stops(browser, chain, before)
    assert statuses(browser) == [200, 204]


def test_cut_in_the_middle_it_loses_and_repeats_nothing(browser: Browser, chain: Chain) -> None:
    before = len(answers(chain))
    with cuttable(chain.port) as way:
        listen(browser, way.url, tokens=120, pace=30)
        wait_for_tokens(browser, 20)
        assert way.cut() > 0
        seen = len(received(browser))
        wait_for_tokens(browser, seen + 10)
        assert way.cut() > 0
        browser.wait_for("globalThis.done")
        assert_whole(browser, chain.url, tokens=120)
        assert browser.run("return opened") == 3
        sent = browser.network("Network.requestWillBeSentExtraInfo")
        cursors = [event["headers"]["Last-Event-ID"] for event in sent if "Last-Event-ID" in event["headers"]]
        assert len(cursors) == 2
        assert cursors[0] in [token["lastEventId"] for token in received(browser)]
        assert_it_stops(browser, chain, before)


def test_cut_before_its_first_token_it_joins_by_its_key(browser: Browser, chain: Chain) -> None:
    """Without a key there is no id yet to come back with, and it would begin another generation."""
    before = len(answers(chain))
    simulator = json.dumps({"seed": 7, "tokens": 20, "tokens_per_second": 100, "first_token_ms": 2000})
    query = urlencode({"prompt": PROMPT, "simulator": simulator, "idempotency_key": f"eventsource-{os.getpid()}"})
    with cuttable(chain.port) as way:
        browser.open(f"{way.url}/playground")
        browser.run(LISTEN, f"/api/v1/stream?{query}")
        time.sleep(1)
        assert way.cut() > 0
        browser.wait_for("globalThis.done")
        assert_whole(browser, chain.url, tokens=20)
        assert_it_stops(browser, chain, before)


def test_killed_workers_cost_it_no_token(browser: Browser) -> None:
    with Chain(workers=2) as chain:
        listen(browser, chain.url, tokens=150, pace=30)
        wait_for_tokens(browser, 20)
        for pid in chain.worker_pids():
            os.kill(pid, signal.SIGKILL)
        browser.wait_for("globalThis.done", seconds=60)
        assert_whole(browser, chain.url, tokens=150)
        assert_it_stops(browser, chain, 0)
