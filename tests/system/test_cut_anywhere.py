"""A stream that is cut by whatever can cut it, on each way to a client: no clean end, and the same text after all."""

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import pytest

from tests.support.call import ask
from tests.support.certificate import Certificate
from tests.support.chain import Chain, free_port
from tests.support.journal import check_text, check_wrongs
from tests.support.sse import SSEDecoder
from tests.support.surfaces import NATIVE
from tests.support.workers import sockets, until, until_replaced

BODY = {"prompt": "Hello", "stream": True, "simulator": {"tokens": 60, "tokens_per_second": 15, "first_token_ms": 0}}
SECONDS_MAX = 40
# curl's exit codes: a chunked answer without its end, a stream of HTTP/2 that was reset, one whose connection is gone.
CUT = {18, 56, 92}
MOVED = "reconnect"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


@pytest.fixture(scope="module")
def chain(folder: Path) -> Iterator[Chain]:
    certificate = Certificate.of(folder)
    env = {
        "SLUICE_TLS_CERTIFICATE": str(certificate.chain),
        "SLUICE_TLS_KEY": str(certificate.key),
        "SLUICE_TLS_PORT": str(free_port()),
    }
    with Chain(env, workers=2) as running:
        yield running


@pytest.fixture(scope="module")
def text(chain: Chain) -> str:
    at_once: dict[str, Any] = {**BODY, "stream": False, "simulator": {**BODY["simulator"], "tokens_per_second": 0}}  # type: ignore[dict-item]
    whole: str = ask(sockets(chain)[0], NATIVE.path, at_once).json["response"]
    return whole


class Curl:
    """A client on one of three ways: to a worker's socket, through NGINX, or through it by TLS and HTTP/2."""

    def __init__(self, way: str, chain: Chain, folder: Path, *more: str) -> None:
        self.said = folder / f"{time.monotonic_ns()}.txt"
        self.address = f"https://localhost:{chain.env['SLUICE_TLS_PORT']}"
        options = ["--cacert", str(folder / "certificate.pem"), "--http2" if way == "h2" else "--http1.1"]
        if way == "direct":
            self.address = "http://localhost"
            options = ["--unix-socket", str(sockets(chain)[0])]
        path, *arguments = more
        command = ["curl", "-sSN", *options, self.address + path, *arguments, "--output", str(self.said)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.communicate()

    def frames(self) -> list[Any]:
        """What is there, as far as it is whole."""
        return SSEDecoder().feed(self.said.read_bytes() if self.said.exists() else b"")

    def end(self) -> int:
        """curl's exit code."""
        return self.process.wait(SECONDS_MAX)


def end_workers(chain: Chain, number: signal.Signals) -> None:
    for pid in chain.worker_pids():
        os.kill(pid, number)


def end_nginx(chain: Chain, number: signal.Signals) -> None:
    """TERM ends all of it at once; -9 takes the processes that have connections, and leaves the one that has them
    started again."""
    master = psutil.Process(chain.nginx_pid())
    for process in master.children() if number is signal.SIGKILL else [master]:
        process.send_signal(number)


WORKER_ENDS = [(end_workers, signal.SIGKILL), (end_workers, signal.SIGABRT), (end_workers, signal.SIGTERM)]
NGINX_ENDS = [(end_nginx, signal.SIGKILL), (end_nginx, signal.SIGTERM)]
CASES = [("direct", *end) for end in WORKER_ENDS] + [
    (way, *end) for way in ("h1", "h2") for end in [*WORKER_ENDS, *NGINX_ENDS]
]


@pytest.mark.parametrize(("way", "end", "number"), CASES, ids=lambda part: getattr(part, "__name__", str(part)))
def test_a_cut_is_told_from_an_end_and_the_text_goes_on_behind_it(
    way: str, end: Any, number: signal.Signals, chain: Chain, folder: Path, text: str
) -> None:
    workers = set(chain.worker_pids())
    json_body = ["-H", "Content-Type: application/json", "-H", "Sluice-Resume: 1", "-d", json.dumps(BODY)]
    with Curl(way, chain, folder, NATIVE.path, *json_body) as client:
        until(lambda: len(client.frames()) >= 5, 10, "the stream has begun")
        end(chain, number)
        code = client.end()
    before = client.frames()
    assert all(frame.event in ("token", MOVED) for frame in before)
    # Either the client's HTTP says that it was cut, or the server said so.
    assert code in CUT or (code == 0 and before[-1].event == MOVED), code
    before = [frame for frame in before if frame.event == "token"]
    if end is end_workers:
        until_replaced(chain, workers)
    else:
        until(lambda: is_up(chain), 20, "NGINX is back")
    last = before[-1].id
    path = f"/api/v1/streams/{last.split('.')[0]}"
    with Curl(way, chain, folder, path, "-H", f"Last-Event-ID: {last}") as again:
        assert again.end() == 0
    after = again.frames()
    assert after[-1].event == "done"
    check_text("".join(frame.json()["token"] for frame in [*before, *after[:-1]]), text)
    numbers = [int(frame.id.rpartition(".")[2]) for frame in [*before, *after]]
    check_wrongs([] if numbers == list(range(1, 62)) else [f"not one event of each number: {numbers}"])


def is_up(chain: Chain) -> bool:
    try:
        return ask(f"http://127.0.0.1:{chain.port}", "/livez").status in (200, 308)
    except OSError:
        return False
