"""A page that may set no headers: Chromium's EventSource and WebSocket, let in by a ticket in their address."""

import json
from collections.abc import Iterator
from urllib.parse import urlencode

import pytest

from tests.support.api_keys import ApiKeys, key_of
from tests.support.browser import LISTEN, Browser
from tests.support.chain import Chain
from tests.support.cuttable import cuttable

CLOSED = 2
AGAIN_SECONDS_MAX = 30.0
TOKENS, PACE = 100, 25
GET_TICKET = """
    const done = arguments[arguments.length - 1];
    fetch("/api/v1/tickets", {
        method: "POST",
        headers: { "Content-Type": "application/json", Authorization: `Bearer ${arguments[0]}` },
        body: JSON.stringify({ scope: arguments[1] }),
    }).then((answer) => answer.json()).then(({ ticket }) => done(ticket), (error) => done(String(error)));
"""
TALK = """
    const [path, first] = arguments;
    globalThis.messages ??= [];
    globalThis.ended = null;
    globalThis.socket = new WebSocket(`ws://${location.host}${path}`);
    socket.onopen = () => socket.send(JSON.stringify(first));
    socket.onmessage = ({ data }) => messages.push(JSON.parse(data));
    socket.onclose = ({ code }) => (globalThis.ended = code);
"""
INDICES = "messages.filter(({ type }) => type === 'token').map(({ index }) => index)"


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    with Chain(ApiKeys(tmp_path_factory.mktemp("tickets"), alice="enterprise").environment) as running:
        yield running


def ticket(browser: Browser, scope: str) -> str:
    """As a page gets one, with a key that it has from its own server."""
    found = str(browser.driver.execute_async_script(GET_TICKET, key_of("alice"), scope))
    assert len(found) == 43, found
    return found


def listen(browser: Browser, **query: str) -> None:
    simulator = json.dumps({"seed": 7, "tokens": TOKENS, "tokens_per_second": PACE})
    query |= {"prompt": "x", "simulator": simulator}
    browser.run(LISTEN, f"/api/v1/stream?{urlencode(query)}")


def stream_ids(browser: Browser) -> set[str]:
    return {each["lastEventId"].partition(".")[0] for each in browser.run("return tokens")}


def logs(chain: Chain) -> str:
    """Everything that NGINX, the workers and whoever starts them wrote."""
    written = [path.read_text(errors="replace") for path in (chain.state_dir / "nginx").glob("*.log")]
    assert len(written) >= 2, "NGINX's access log and its error log"
    return chain.log + "".join(written)


def test_an_event_source_comes_back_to_its_tickets_stream_after_a_cut(browser: Browser, chain: Chain) -> None:
    with cuttable(chain.port) as way:
        browser.open(f"{way.url}/playground")
        opens = ticket(browser, "create")
        listen(browser, ticket=opens)
        browser.wait_for("tokens.length >= 15")
        assert way.cut() > 0
        seen = len(browser.run("return tokens"))
        browser.wait_for(f"tokens.length >= {seen + 10}", seconds=AGAIN_SECONDS_MAX)
        assert way.cut() > 0
        browser.wait_for("globalThis.done", seconds=AGAIN_SECONDS_MAX)
        assert [each["index"] for each in browser.run("return tokens")] == list(range(1, TOKENS + 1))
        assert len(stream_ids(browser)) == 1
        assert browser.run("return opened") == 3
        # The ticket is good for its stream's end too: 204, and the browser stays away.
        browser.wait_for(f"source.readyState === {CLOSED}", "EventSource has stopped", AGAIN_SECONDS_MAX)
    sent = browser.network("Network.requestWillBeSentExtraInfo")
    assert len([event for event in sent if "Last-Event-ID" in event["headers"]]) >= 2
    assert not [url for url in browser.requests if "/api/v1/stream?" in url and opens not in url]
    assert opens not in logs(chain)
    assert f'"stream_id":"{stream_ids(browser).pop()}"' in logs(chain), "these are the logs of it"


def test_an_event_source_is_let_in_by_nothing_but_a_ticket_and_by_that_once(browser: Browser, chain: Chain) -> None:
    browser.open(f"{chain.url}/playground")
    listen(browser)
    browser.wait_for(f"source.readyState === {CLOSED}")
    # One that had been let in is closed too, in the end.
    assert browser.run("return [opened, tokens.length]") == [0, 0]
    opens = ticket(browser, "create")
    listen(browser, ticket=opens)
    browser.wait_for("tokens.length >= 2")
    first = stream_ids(browser)
    browser.run("source.close()")
    # Another EventSource with the same ticket joins what it began, and begins nothing.
    listen(browser, ticket=opens)
    browser.wait_for("globalThis.done", seconds=AGAIN_SECONDS_MAX)
    assert stream_ids(browser) == first
    assert browser.run("return tokens.length") == TOKENS
    browser.run("source.close()")


def test_a_web_socket_talks_by_a_ticket_and_comes_back_by_it_after_a_cut(browser: Browser, chain: Chain) -> None:
    with cuttable(chain.port) as way:
        browser.open(f"{way.url}/playground")
        opens = ticket(browser, "conversation:c1")
        path = f"/api/v1/ws/chat/c1?ticket={opens}"
        simulator = {"seed": 7, "tokens": TOKENS, "tokens_per_second": PACE, "first_token_ms": 0}
        browser.run(TALK, path, {"type": "message", "message": "Hello", "simulator": simulator})
        browser.wait_for(f"{INDICES}.length >= 15")
        assert way.cut() > 0
        browser.wait_for("ended !== null")
        last = browser.run("return messages.filter(({ type }) => type === 'token').at(-1).id")
        browser.run(TALK, path, {"type": "resume", "last_event_id": last})
        browser.wait_for("messages.some(({ type }) => type === 'end')", seconds=AGAIN_SECONDS_MAX)
        assert browser.run(f"return {INDICES}") == list(range(1, TOKENS + 1))
        # What it is not for, it does not open.
        browser.run("socket.close()")
        for other in (f"/api/v1/ws/chat/c2?ticket={opens}", "/api/v1/ws/chat/c1"):
            browser.run(TALK, other, {"type": "ping"})
            assert browser.wait_for("ended") == 1006, "refused before it was accepted"
    assert opens not in logs(chain)
