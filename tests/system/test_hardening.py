"""What browsers, scanners and other sites see of the whole chain: headers, names, and nothing that they could use."""

import http.client
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from time import monotonic, sleep
from typing import Any

import pytest

from app.middleware.security_headers import HEADERS
from tests.support.browser import Browser
from tests.support.call import SECONDS_MAX, ask
from tests.support.chain import Chain
from tests.support.surfaces import NATIVE, OPENAI

STREAM = {"prompt": "x", "stream": True, "simulator": {"seed": 1, "tokens": 3}}


class _Page(BaseHTTPRequestHandler):
    """An empty page, from wherever it is asked for."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!DOCTYPE html><title>another site</title>")

    def log_message(self, *_: object) -> None:
        """Nothing."""


def site() -> Iterator[str]:
    """The origin of a site of somebody else's."""
    with HTTPServer(("127.0.0.1", 0), _Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


known_site = pytest.fixture(scope="module")(site)
strange_site = pytest.fixture(scope="module")(site)


@pytest.fixture(scope="module")
def chain(known_site: str) -> Iterator[Chain]:
    with Chain({"SLUICE_CORS_ORIGINS": known_site}, workers=1) as running:
        yield running


def head(chain: Chain, path: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", chain.port, timeout=SECONDS_MAX)
    connection.request("HEAD", path)
    answer = connection.getresponse()
    assert answer.read() == b""
    connection.close()
    return answer


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/health"])
def test_a_probe_may_ask_for_the_headers_alone(chain: Chain, path: str) -> None:
    assert head(chain, path).status == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/v1/generate", STREAM),
        ("/api/v1/generate", {}),
        (NATIVE.path, NATIVE.body("no such model")),
        (OPENAI.path, OPENAI.body("no such model")),
        ("/v1/messages", {}),
        ("/nothing", None),
        ("/v1/models", None),
        ("/api/v1/streams/pYnkZ0gC2rT1uVwX3yZaBcDe", None),
        ("/api/v1/streams/..%2f..%2fetc%2fpasswd", None),
    ],
)
def test_every_answer_is_guarded_and_says_nothing_of_what_made_it(chain: Chain, path: str, body: object) -> None:
    call = ask(chain.url, path, body)
    for name, value in HEADERS:
        assert name == b"cache-control" or call.headers[name.decode()] == value.decode()
    assert "no-store" in call.headers["cache-control"]
    said = (str(call.headers) + call.body.decode()).lower()
    assert not re.search(r"uvicorn|gunicorn|starlette|fastapi|python|traceback|\.py|\.sock|nginx/\d", said)
    assert "/" not in call.headers.get("server", "")


SCRIPT = """
const done = arguments[arguments.length - 1];
fetch(arguments[0] + "/api/v1/generate", {
  method: "POST",
  headers: {"Content-Type": "application/json", "Authorization": "Bearer x", "Idempotency-Key": arguments[1],
            "X-Stainless-OS": "Linux"},
  body: arguments[2],
}).then(async (answer) => done({
  status: answer.status, text: await answer.text(),
  id: answer.headers.get("X-Stream-Id"), request: answer.headers.get("X-Request-ID"),
})).catch((error) => done({failed: String(error)}));
"""


def fetched(browser: Browser, chain: Chain, origin: str) -> dict[str, Any]:
    """What a script of that site gets."""
    browser.open(origin)
    answer: dict[str, Any] = browser.driver.execute_async_script(SCRIPT, chain.url, origin, json.dumps(STREAM))
    return answer


def preflights(chain: Chain, count: int) -> list[int]:
    """The statuses of the browsers' questions before they send anything, once there are so many."""
    deadline = monotonic() + SECONDS_MAX
    while True:
        lines = [json.loads(line) for line in chain.access_log.splitlines()]
        found = [int(line["status"]) for line in lines if line["method"] == "OPTIONS"]
        if len(found) >= count:
            return found
        assert monotonic() < deadline, chain.access_log[-2000:]
        sleep(0.05)


def test_scripts_of_a_named_site_read_a_stream_in_a_browser_and_those_of_another_nothing(
    browser: Browser, chain: Chain, known_site: str, strange_site: str
) -> None:
    answer = fetched(browser, chain, known_site)
    assert answer["status"] == 200, answer
    assert "event: done" in answer["text"]
    assert answer["id"]
    assert answer["request"]
    assert fetched(browser, chain, strange_site).keys() == {"failed"}
    assert preflights(chain, 2) == [200, 400]
