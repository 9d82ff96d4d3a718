"""The load generator against servers that answer well and badly, and against the origin."""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from loadtests.bench.build import build
from loadtests.bench.figures import Figures
from loadtests.bench.generator import Demand, generating
from loadtests.bench.processes import started
from loadtests.bench.surfaces import SURFACES, Surface

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
NATIVE = SURFACES["native"]
ANY_CORE = min(os.sched_getaffinity(0))
ONE_STREAM = Demand(streams=1, rate=20, tokens=2, seconds=0.5)
Answer = Callable[[socket.socket], None]


@pytest.fixture(scope="module")
def programs() -> Path:
    return build()


def token(index: int) -> bytes:
    return b'event: token\ndata: {"type":"content","token":"@%d:%d ","index":1}\n\n' % (index, time.monotonic_ns())


def chunks(*bodies: bytes, end: bool = True) -> bytes:
    framed = b"".join(b"%x\r\n%s\r\n" % (len(body), body) for body in bodies)
    return framed + (b"0\r\n\r\n" if end else b"")


@contextlib.contextmanager
def serving(answer: Answer) -> Iterator[int]:
    """A server that reads each request and lets `answer` speak; its port."""

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return  # the listener was closed: the test is over
            with peer, contextlib.suppress(OSError):
                peer.recv(65_536)
                answer(peer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(timeout=10)
    assert not thread.is_alive()


def run(programs: Path, port: int, demand: Demand = ONE_STREAM, surface: Surface = NATIVE) -> Figures:
    with generating(programs, ANY_CORE, port, surface, demand) as generator:
        generator.wait_for_window()
        return generator.figures()


def test_a_stream_in_single_bytes_is_read_like_any_other(programs: Path) -> None:
    def answer(peer: socket.socket) -> None:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in HEAD + chunks(token(0), token(1), b'event: done\r\ndata: {"done":true}\r\n\r\n'):
            peer.send(bytes([byte]))

    with serving(answer) as port:
        figures = run(programs, port)

    assert figures.errors() == {}
    assert figures.finished >= 1
    assert abs(figures.tokens - 2 * figures.finished) <= 2  # one stream may be cut by each end of the window


def test_events_that_lie_across_chunks_are_put_together(programs: Path) -> None:
    def answer(peer: socket.socket) -> None:
        text = token(0) + token(1) + b"data: [DONE]\n\n"
        peer.sendall(HEAD + chunks(text[:20], text[20:21], text[21:100], text[100:]))

    with serving(answer) as port:
        figures = run(programs, port, surface=SURFACES["openai"])

    assert figures.errors() == {}
    assert figures.tokens >= 2


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (HEAD + chunks(b'event: token\ndata: {"token":"@0:1 "}\n\n'), "truncated"),
        (HEAD + chunks(b'event: token\ndata: {"token":"@0:1 "}\n\n', end=False), "truncated"),
        (HEAD + chunks(b'event: error\ndata: {"code":"upstream_stalled"}\n\n'), "ended in an error"),
        (HEAD + chunks(b'data: {"error":{"message":"no"}}\n\n'), "ended in an error"),
        (
            HEAD + chunks(b'data: {"t":"@0:1 "}\n\ndata: {"t":"@2:1 "}\n\ndata: [DONE]\n\n'),
            "tokens lost or out of order",
        ),
        (HEAD + b"xyz\r\n", "malformed"),
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\n{}", "HTTP 503"),
        (b"", "refused"),
    ],
    ids=[
        "no terminal event",
        "connection cut",
        "native error",
        "OpenAI error",
        "token missing",
        "broken framing",
        "HTTP error",
        "no answer",
    ],
)
def test_a_stream_that_goes_wrong_is_counted_as_what_it_is(programs: Path, answer: bytes, kind: str) -> None:
    with serving(lambda peer: peer.sendall(answer)) as port:
        figures = run(programs, port)

    assert set(figures.errors()) == {kind}


def test_a_port_where_nobody_listens_is_a_refusal(programs: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    assert set(run(programs, port).errors()) == {"refused"}


def test_a_gap_over_twice_the_pace_makes_a_stalled_stream(programs: Path) -> None:
    def answer(peer: socket.socket) -> None:
        peer.sendall(HEAD + chunks(token(0), end=False))
        time.sleep(0.4)  # the pace is 50 ms
        peer.sendall(chunks(token(1), b"event: done\ndata: {}\n\n"))

    with serving(answer) as port:
        figures = run(programs, port, ONE_STREAM._replace(seconds=1.5))

    assert figures.streams_stalled == figures.streams_seen >= 2
    assert figures.gap_ms.p50 >= 400


def test_the_origin_keeps_its_pace_for_every_stream(programs: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    command = [str(programs / "origin"), "--port", str(port), "--tokens", "10", "--rate", "20"]
    with started(command, ANY_CORE, tmp_path / "origin.log"):
        time.sleep(0.5)
        figures = run(programs, port, Demand(streams=20, rate=20, tokens=10, seconds=2), SURFACES["openai"])

    assert figures.errors() == {}
    assert figures.tokens == pytest.approx(20 * 20 * 2, rel=0.1)
    assert figures.gap_ms.p50 == pytest.approx(50, abs=5)
    assert figures.finished >= 20
