"""The clients under examples/, against the real chain and against servers that answer badly.

Their text must be what the same prompt yields as one batch answer: the simulator says the same to the same request.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.chain import Chain

EXAMPLES = Path(__file__).parents[2] / "examples"
EXAMPLE_SECONDS_MAX = 100
# With characters that a URL, a shell, JSON and HTML would each take for something else.
PROMPT = 'What is "niño" & <why> + 50 %?'

COMMANDS = {
    "python": [sys.executable, "python/stream.py"],
    "openai SDK": [sys.executable, "python/openai_sdk.py"],
    "anthropic SDK": [sys.executable, "python/anthropic_sdk.py"],
    "node": ["node", "javascript/stream.mjs"],
    "EventSource": ["bash", "javascript/eventsource.sh"],
    "curl native": ["bash", "curl/stream.sh", "native"],
    "curl openai": ["bash", "curl/stream.sh", "openai"],
}
PROGRAMS = {"node": ["node"], "EventSource": ["node", "chromium"], "curl native": ["curl"], "curl openai": ["curl"]}
every_example = pytest.mark.parametrize("example", COMMANDS)


def run(example: str, url: str) -> subprocess.CompletedProcess[str]:
    for program in PROGRAMS.get(example, []):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    return subprocess.run(
        [*COMMANDS[example], PROMPT],
        cwd=EXAMPLES,
        env=os.environ | {"SLUICE_URL": url, "SLUICE_MODEL": "simulator"},
        capture_output=True,
        text=True,
        timeout=EXAMPLE_SECONDS_MAX,
    )


def text_of(example: str, output: str) -> str:
    """The answer in what an example printed; curl's shows the events themselves."""
    if not example.startswith("curl"):
        return output.removesuffix("\n")
    payloads = [json.loads(data) for data in re.findall(r"^data: (\{.*)$", output, re.MULTILINE)]
    if example == "curl native":
        return "".join(payload.get("token", "") for payload in payloads)
    return "".join(choice["delta"].get("content", "") for payload in payloads for choice in payload["choices"])


@pytest.fixture(scope="module")
def chain() -> Iterator[Chain]:
    with Chain(workers=1) as running:
        yield running


@pytest.fixture(scope="module")
def answer(chain: Chain) -> str:
    """What the simulator says to PROMPT, as one batch answer."""
    body = json.dumps({"prompt": PROMPT, "simulator": {"tokens_per_second": 0, "first_token_ms": 0}}).encode()
    request = urllib.request.Request(
        f"{chain.url}/api/v1/generate", body, {"Content-Type": "application/json", "Accept": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        text: str = json.load(response)["response"]
    assert len(text.split()) >= 40
    return text


@every_example
def test_an_example_prints_the_text_of_the_batch_answer(example: str, chain: Chain, answer: str) -> None:
    done = run(example, chain.url)

    assert (done.returncode, done.stderr) == (0, "")
    assert text_of(example, done.stdout) == answer


@pytest.mark.slow
def test_the_script_runs_every_example_and_says_so(chain: Chain) -> None:
    done = subprocess.run(
        ["bash", "run.sh"],
        cwd=EXAMPLES,
        env=os.environ | {"SLUICE_URL": chain.url, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=EXAMPLE_SECONDS_MAX,
    )

    assert done.stdout.splitlines() == [
        "python/stream.py ok",
        "python/openai_sdk.py ok",
        "python/anthropic_sdk.py ok",
        "javascript/stream.mjs ok",
        "javascript/eventsource.html ok",
        "curl/stream.sh native ok",
        "curl/stream.sh openai ok",
    ]
    assert done.returncode == 0


def test_the_script_fails_when_an_example_does() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    done = subprocess.run(
        ["bash", "run.sh"],
        cwd=EXAMPLES,
        env=os.environ | {"SLUICE_URL": f"http://127.0.0.1:{port}", "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=EXAMPLE_SECONDS_MAX,
    )

    assert sum(line.endswith(" failed") for line in done.stdout.splitlines()) == 7
    assert done.returncode == 1


# A server that says what a test wants

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
REFUSAL_BODY = b'{"error":{"message":"not now","code":"draining"}}'
REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
    b"x-should-retry: false\r\n\r\n%s" % (len(REFUSAL_BODY), REFUSAL_BODY)
)


def native(*events: tuple[str, object]) -> bytes:
    return b"".join(
        f"event: {name}\r\ndata: {json.dumps(data, ensure_ascii=False)}\r\n\r\n".encode() for name, data in events
    )


def openai(*chunks: dict[str, object] | str) -> bytes:
    return b"".join(
        f"data: {chunk if isinstance(chunk, str) else json.dumps(chunk, ensure_ascii=False)}\r\n\r\n".encode()
        for chunk in chunks
    )


def native_token(text: str) -> bytes:
    payload = json.dumps({"type": "content", "token": text, "index": 1}, ensure_ascii=False)
    return f"event: token\r\ndata: {payload}\r\n\r\n".encode()


def openai_chunk(text: str, finish_reason: str | None = None) -> dict[str, object]:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish_reason}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


def anthropic(*texts: str) -> bytes:
    """As far as the text."""
    usage = {"input_tokens": 1, "output_tokens": 0}
    message = {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": usage}
    return native(
        ("message_start", {"type": "message_start", "message": message}),
        ("content_block_start", {"type": "content_block_start", "index": 0, "content_block": EMPTY}),
        *(("content_block_delta", {"type": "content_block_delta", "index": 0, "delta": said(text)}) for text in texts),
    )


EMPTY = {"type": "text", "text": ""}
ANTHROPIC_END = native(
    ("content_block_stop", {"type": "content_block_stop", "index": 0}),
    ("message_delta", {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}}),
    ("message_stop", {"type": "message_stop"}),
)


def said(text: str) -> dict[str, str]:
    return {"type": "text_delta", "text": text}


class Server:
    """Answers each request with the bytes for its surface, then closes the connection.

    Args:
        native, openai, anthropic: the body of the one stream, or a whole response where it starts with HTTP.
        ended: whether the body's end is said, as by a server that closes tidily.
        piece_bytes: how much is sent at once.
    """

    def __init__(
        self, native: bytes, openai: bytes, anthropic: bytes, ended: bool = True, piece_bytes: int = 65_536
    ) -> None:
        self._bodies = native, openai, anthropic
        self._ended = ended
        self._piece_bytes = piece_bytes
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> "Server":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(timeout=10)
        assert not self._thread.is_alive()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            with peer:
                peer.settimeout(10)
                try:
                    self._answer(peer)
                except OSError:
                    continue  # the client had enough

    def _answer(self, peer: socket.socket) -> None:
        request = b""
        while b"\r\n\r\n" not in request or (request.startswith(b"POST") and not request.endswith(b"}")):
            if not (received := peer.recv(65_536)):
                return
            request += received
        body = self._bodies[(b" /v1/" in request) + (b" /v1/messages" in request)]
        if body.startswith(b"HTTP"):
            peer.sendall(body)
            return
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer.sendall(HEAD)
        for start in range(0, len(body), self._piece_bytes):
            piece = body[start : start + self._piece_bytes]
            peer.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
        if self._ended:
            peer.sendall(b"0\r\n\r\n")


@every_example
def test_an_example_puts_single_bytes_together(example: str) -> None:
    """Lines in CRLF, characters of four bytes, a comment and an unknown event between the tokens."""
    separator = "half\u2028line "
    noise = b": ping\r\n\r\nevent: notice\r\ndata: {}\r\n\r\n"
    native_body = native_token("🌊 ") + noise + native_token(separator) + native(("done", {"finish_reason": "stop"}))
    openai_body = b": ping\r\n" + openai(
        openai_chunk("🌊 "), openai_chunk(separator), openai_chunk("", "stop"), "[DONE]"
    )

    anthropic_body = b"event: ping\r\ndata: {}\r\n\r\n" + anthropic("🌊 ", separator) + ANTHROPIC_END

    with Server(native_body, openai_body, anthropic_body, piece_bytes=1) as server:
        done = run(example, server.url)

    assert text_of(example, done.stdout.replace("\r", "")) == f"🌊 {separator}"
    assert done.returncode == 0


@every_example
@pytest.mark.parametrize("ended", [True, False], ids=["closed tidily", "cut"])
def test_an_example_reports_a_stream_that_just_stops(example: str, ended: bool) -> None:
    with Server(native_token("half "), openai(openai_chunk("half ")), anthropic("half "), ended=ended) as server:
        done = run(example, server.url)

    assert done.returncode == 1
    assert "error:" in done.stderr
    assert text_of(example, done.stdout.replace("\r", "")).startswith("half ")


@every_example
def test_an_example_reports_an_error_in_the_stream(example: str) -> None:
    failed = native(("error", {"code": "upstream_stalled", "message": "no more tokens", "retryable": True}))
    error: dict[str, object] = {
        "error": {"message": "no more tokens", "type": "server_error", "code": "upstream_stalled"}
    }

    told = native(("error", {"type": "error", "error": {"type": "timeout_error", "message": "no more tokens"}}))

    with Server(
        native_token("half ") + failed, openai(openai_chunk("half "), error), anthropic("half ") + told
    ) as server:
        done = run(example, server.url)

    assert done.returncode == 1
    assert "no more tokens" in done.stderr + done.stdout


@every_example
def test_an_example_reports_a_refusal(example: str) -> None:
    with Server(REFUSAL, REFUSAL, REFUSAL) as server:
        done = run(example, server.url)

    assert done.returncode == 1
    assert "error:" in done.stderr
    if example != "EventSource":  # which keeps the body from the page
        assert "not now" in done.stderr + done.stdout


def test_every_example_is_in_the_readme() -> None:
    readme = (EXAMPLES / "README.md").read_text()
    files = [
        path.relative_to(EXAMPLES)
        for path in EXAMPLES.rglob("*")
        # The agent's own files are one example.
        if path.suffix in {".py", ".mjs", ".html", ".sh"} and path.stat().st_size and path.parent.name != "agent"
    ]

    assert len(files) >= 8
    assert [str(path) for path in files if f"| `{path}` |" not in readme] == []
