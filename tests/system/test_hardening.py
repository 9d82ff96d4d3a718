"""What browsers, scanners and other sites see of the whole chain: headers, names, and nothing that they could use."""

import http.client
import json
import re
import secrets
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from time import monotonic, sleep
from typing import Any

import pytest

from app.middleware.security_headers import HEADERS
from tests.support.browser import Browser
from tests.support.call import SECONDS_MAX, ask
from tests.support.chain import Chain
from tests.support.hostile import BOMBS, FORGED_NAMES
from tests.support.log_lines import wrong_lines
from tests.support.surfaces import NATIVE, OPENAI
from tests.support.workers import until

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


# What NGINX takes of a body, and what is on its way in buffers when it says so.
BODY_BYTES_MAX, ON_ITS_WAY_BYTES_MAX = 10 * 1024 * 1024, 8 * 1024 * 1024
# For NGINX to pass on what it has of a body, if it did.
HALF_SECONDS = 0.5
SURFACES = pytest.mark.parametrize("path", [NATIVE.path, OPENAI.path, "/v1/messages"])


def code(answer: http.client.HTTPResponse, path: str) -> str:
    """Of an error, which must be in the surface's own shape."""
    said = json.loads(answer.read())
    error = said["error"]
    if path == "/v1/messages":
        assert said["type"] == "error"
        return str(error["details"]["error_code"])
    assert ("type" in error) == (path == OPENAI.path)
    return str(error["code"])


@contextmanager
def raw(chain: Chain) -> Iterator[socket.socket]:
    """A connection for requests that no library would send."""
    with socket.create_connection(("127.0.0.1", chain.port), SECONDS_MAX) as connection:
        yield connection


def answered(connection: socket.socket) -> http.client.HTTPResponse:
    response = http.client.HTTPResponse(connection)
    response.begin()
    return response


def read_to_end(connection: socket.socket) -> bytes:
    """Until it is closed, in whatever way."""
    found = b""
    with suppress(ConnectionError):
        while piece := connection.recv(65_536):
            found += piece
    return found


def head_of(path: str, *fields: bytes) -> bytes:
    lines = [b"POST %b HTTP/1.1" % path.encode(), b"Host: x", b"Content-Type: application/json", *fields]
    return b"\r\n".join([*lines, b"", b""])


def named(chain: Chain, name: str) -> list[dict[str, Any]]:
    """What NGINX's log has of a request that its client named so."""
    whole = chain.access_log.rpartition("\n")[0]
    return [line for line in map(json.loads, whole.splitlines()) if line["client_request_id"] == name]


@SURFACES
def test_a_body_that_never_says_how_long_it_is_is_counted_and_refused(chain: Chain, path: str) -> None:
    chunk = b"%x\r\n%b\r\n" % (65_536, b"x" * 65_536)
    sent = 0
    with raw(chain) as connection:
        connection.sendall(head_of(path, b"Transfer-Encoding: chunked"))
        while sent < 1024 * BODY_BYTES_MAX and not select.select([connection], [], [], 0)[0]:
            connection.sendall(chunk)
            sent += 65_536
        answer = answered(connection)
        assert (answer.status, code(answer, path)) == (413, "body_too_large")
    assert BODY_BYTES_MAX <= sent < BODY_BYTES_MAX + ON_ITS_WAY_BYTES_MAX


@SURFACES
def test_a_body_is_as_long_as_it_says_and_what_follows_it_is_no_part_of_it(chain: Chain, path: str) -> None:
    with raw(chain) as connection:
        connection.sendall(head_of(path, b"Content-Length: 10") + b'{"prompt":' + b'"x"}\r\n' * 1000)
        statuses = re.findall(rb"HTTP/1\.1 (\d+) ", read_to_end(connection))
    assert statuses[0] in (b"400", b"422")
    assert set(statuses[1:]) <= {b"400"}, "what follows is no request either"
    name = f"half-{secrets.token_hex(8)}"
    with raw(chain) as connection:
        fields = (b"Content-Length: 1000", b"X-Request-ID: %b" % name.encode())
        connection.sendall(head_of(path, *fields) + b'{"prompt":"x"}')
        sleep(HALF_SECONDS)  # an end that came with the half would be seen before a worker is asked
        connection.shutdown(socket.SHUT_WR)
        assert set(re.findall(rb"HTTP/1\.1 (\d+) ", read_to_end(connection))) <= {b"400"}
    # By its name: what NGINX makes of the bytes before is logged only when it has lingered, behind this one or before.
    until(lambda: named(chain, name), SECONDS_MAX, "it is logged")
    assert [line["upstream"] for line in named(chain, name)] == [""], "half a body reached no worker"


@SURFACES
def test_a_body_that_only_its_reader_pays_for_is_its_senders_error(chain: Chain, path: str) -> None:
    for name, bomb in BOMBS.items():
        with raw(chain) as connection:
            connection.sendall(head_of(path, b"Content-Length: %d" % len(bomb)) + bomb)
            answer = answered(connection)
            assert answer.status in (400, 422), name
            assert code(answer, path) == "invalid_request", name
    assert ask(chain.url, "/livez").status == 200


def test_whatever_a_client_calls_its_request_no_log_has_a_line_of_its_making(chain: Chain) -> None:
    names = []
    for forged in FORGED_NAMES:
        with raw(chain) as connection:
            connection.sendall(b"GET /v1/models HTTP/1.1\r\nHost: x\r\nX-Request-ID: %b\r\n\r\n" % forged)
            answer = answered(connection)
            names.append(str(answer.headers["X-Request-ID"]))
            assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", names[-1]), forged
            assert answer.status in (200, 400), forged
    last = names[-1]

    def logged() -> bool:
        return all(last in log for log in (chain.log, chain.access_log))

    until(logged, SECONDS_MAX, "the last request is in both logs")
    lines = [json.loads(line) for line in chain.access_log.splitlines()]
    assert set(names) <= {line["request_id"] for line in lines}
    assert list(wrong_lines(chain.log)) == []
    told = [json.loads(line) for line in chain.log.splitlines() if line.startswith("{")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]{1,64}", line.get("request_id", "x")) for line in told)
    assert not any(line.get("event") == "forged" or "tenant" in line for line in [*lines, *told])


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
