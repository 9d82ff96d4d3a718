"""The playground in a real Chromium, against the whole chain: its text survives what happens to its connections."""

import json
import os
import re
import signal
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.browser import Browser
from tests.support.chain import Chain
from tests.support.cuttable import cuttable
from tests.support.playground import PROMPT, batch_text, connection_lines, send, wait_for_state, wait_for_tokens
from tests.support.workers import producing_worker


@pytest.fixture(scope="module")
def chain() -> Iterator[Chain]:
    with Chain() as running:
        yield running


def generations(chain: Chain, browser: Browser) -> set[str]:
    """The streams that the page's answers named."""
    named = set()
    for event in browser.network("Network.responseReceived"):
        headers = {name.lower(): value for name, value in event["response"]["headers"].items()}
        named |= {headers["x-stream-id"]} if "x-stream-id" in headers else set()
    return named


def test_it_shows_the_text_as_it_comes_and_measures_it(browser: Browser, chain: Chain) -> None:
    send(browser, chain.url, tokens=60, pace=30)
    lengths = set()
    while browser.text("#state") != "done":
        lengths.add(len(browser.text("#text")))
        time.sleep(0.05)
    assert len(lengths) > 5  # two seconds, looked at every twentieth of one
    assert browser.text("#text") == batch_text(chain.url, tokens=60)
    assert re.fullmatch(r"\d+ ms", browser.text("#ttft"))
    assert re.fullmatch(r"\d+ ms", browser.text("#gap"))
    assert 15 < float(browser.text("#rate")) < 45
    assert (browser.text("#count"), browser.text("#connections")) == ("60", "1")
    assert {browser.text("#stream")} == generations(chain, browser)
    assert browser.run("return document.querySelectorAll('#log .token, #log .done').length") == 61
    assert browser.errors == []
    assert browser.hosts == {chain.url.removeprefix("http://")}


def test_a_cut_connection_leaves_no_seam_in_the_text(browser: Browser, chain: Chain) -> None:
    send(browser, chain.url, tokens=90, pace=30)
    for count in (10, 35, 60):
        wait_for_tokens(browser, count)
        browser.click("#cut")
    wait_for_state(browser, "done")
    assert browser.text("#text") == batch_text(chain.url, tokens=90)
    assert (browser.text("#count"), browser.text("#connections")) == ("90", "4")
    assert connection_lines(browser) == ["connect", "open", *["lost", "connect", "open"] * 3]
    assert len(generations(chain, browser)) == 1
    assert browser.errors == []


def test_a_killed_worker_leaves_no_seam_in_the_text(browser: Browser) -> None:
    with Chain(workers=2) as chain:
        send(browser, chain.url, tokens=150, pace=30)
        wait_for_tokens(browser, 20)
        os.kill(producing_worker(chain), signal.SIGKILL)
        wait_for_state(browser, "done")
        assert browser.text("#text") == batch_text(chain.url, tokens=150)
        assert browser.text("#count") == "150"
        assert "lost" in connection_lines(browser)
        assert "took a stream over" in chain.log
    assert browser.errors == []


def test_five_seconds_offline_leave_no_seam_in_the_text(browser: Browser, chain: Chain) -> None:
    with cuttable(chain.port) as way:
        send(browser, way.url, tokens=150, pace=30)
        wait_for_tokens(browser, 20)
        browser.offline(True)
        way.cut()  # what the network's end does to a connection, and Chromium's emulation of it does not
        wait_for_state(browser, "offline")
        asked = len(browser.requests)
        time.sleep(5)
        assert (browser.text("#state"), len(browser.requests)) == ("offline", asked)
        browser.offline(False)
        wait_for_state(browser, "done")
    assert browser.text("#text") == batch_text(chain.url, tokens=150)
    assert (browser.text("#count"), browser.text("#connections")) == ("150", "2")
    assert connection_lines(browser) == ["connect", "open", "offline", "connect", "open"]
    assert browser.errors == []


def test_a_post_cut_before_its_headers_joins_its_stream(browser: Browser, chain: Chain) -> None:
    simulator = {"seed": 7, "tokens": 20, "tokens_per_second": 100, "first_token_ms": 3000}
    before = len(answers(chain))
    with cuttable(chain.port) as way:
        browser.open(f"{way.url}/playground")
        browser.run(
            """
            import("/playground/sluice/sluice.js").then(async ({ generate }) => {
              const stream = generate({ prompt: arguments[0], model: "simulator", simulator: arguments[1] });
              globalThis.said = await stream.text();
            });
            """,
            PROMPT,
            simulator,
        )
        time.sleep(1)
        assert way.cut() > 0
        said = browser.wait_for("globalThis.said")
    deadline = time.monotonic() + 10
    while len(mine := answers(chain)[before:]) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [line["method"] for line in mine] == ["POST", "POST"]
    assert len({line["stream_id"] for line in mine}) == 1
    assert said == batch_text(chain.url, tokens=20)


def answers(chain: Chain) -> list[dict[str, Any]]:
    """The workers' log lines on answers that were part of a stream."""
    lines = [json.loads(line) for line in chain.log.splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == "request" and "stream_id" in line]


def test_a_page_that_is_loaded_anew_has_the_whole_text(browser: Browser, chain: Chain) -> None:
    send(browser, chain.url, tokens=90, pace=30)
    wait_for_tokens(browser, 30)
    stream_id = browser.text("#stream")
    browser.driver.refresh()
    wait_for_state(browser, "done")
    assert browser.text("#text") == batch_text(chain.url, tokens=90)
    assert browser.text("#stream") == stream_id
    assert generations(chain, browser) == {stream_id}


def test_stop_stops_the_generation(browser: Browser, chain: Chain) -> None:
    send(browser, chain.url, tokens=600, pace=30)
    wait_for_tokens(browser, 5)
    browser.click("#stop")
    wait_for_state(browser, "cancelled")
    with urllib.request.urlopen(f"{chain.url}/api/v1/streams/{browser.text('#stream')}/status", timeout=10) as answer:
        assert json.load(answer)["state"] == "cancelled"
    assert browser.errors == []
