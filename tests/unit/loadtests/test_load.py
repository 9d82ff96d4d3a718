"""The load generator against servers that answer well and badly, and against the origin."""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from loadtests.bench.build import build
from loadtests.bench.figures import Figures
from loadtests.bench.generator import Demand, generating
from loadtests.bench.processes import started
from loadtests.bench.surfaces import SURFACES, Surface
from loadtests.capacity.records import read_records

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
def serving(answer: Answer, seen: list[bytes] | None = None) -> Iterator[int]:
    """A server that reads each request, keeps it in `seen`, and lets `answer` speak; its port."""

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return  # the listener was closed: the test is over
            with peer, contextlib.suppress(OSError):
                request = peer.recv(65_536)
                if seen is not None:
                    seen.append(request)
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


def test_a_record_of_each_stream_says_what_the_percentiles_are_made_of(programs: Path, tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    with serving(lambda peer: peer.sendall(HEAD + chunks(token(0), token(1), b"data: [DONE]\n\n"))) as port:
        surface = SURFACES["openai"]
        with generating(programs, ANY_CORE, port, surface, ONE_STREAM._replace(seconds=1), file) as generator:
            generator.wait_for_window()
            figures = generator.figures()

    records = read_records(file)
    assert [record.outcome for record in records].count("finished") == figures.finished
    begun = [record.ttft_ms for record in records if record.scheduled_ms >= 0 and record.ttft_ms is not None]
    # The generator counts in steps of 0.01 ms, and takes the value at a rank where numpy interpolates.
    assert figures.ttft_ms.p50 == pytest.approx(np.percentile(begun, 50), abs=0.05)


def test_percentiles_of_gaps_and_first_tokens_are_numpy_s_of_the_raw_values(programs: Path, tmp_path: Path) -> None:
    """A stream of two tokens has one gap, its largest: the records hold every value that a percentile was made of."""
    file, random = tmp_path / "records.jsonl", np.random.default_rng(3)

    def answer(peer: socket.socket) -> None:
        first, gap = random.lognormal(np.log([0.001, 0.003]), [0.5, 1.0])
        time.sleep(first)
        peer.sendall(HEAD + chunks(token(0), end=False))
        time.sleep(gap)
        peer.sendall(chunks(token(1), b"data: [DONE]\n\n"))

    with serving(answer) as port:
        surface = SURFACES["openai"]
        with generating(programs, ANY_CORE, port, surface, ONE_STREAM._replace(seconds=4), file) as generator:
            generator.wait_for_window()
            figures = generator.figures()

    records = read_records(file)
    gaps = [record.largest_gap_ms for record in records if record.largest_gap_ms is not None]
    firsts = [record.ttft_ms for record in records if record.ttft_ms is not None and (record.first_token_ms or 0) >= 0]
    assert figures.errors() == {}
    for said, values in ((figures.gap_ms, gaps), (figures.ttft_ms, firsts)):
        assert said.count == len(values) >= 50
        # The generator takes the value at a rank, in steps of 0.01 ms.
        expected = np.percentile(values, [50, 99, 99.9], method="higher")
        assert (said.p50, said.p99, said.p999) == pytest.approx(tuple(expected), abs=0.015)
    within = sum(record.milliseconds_within(1000 * figures.window_seconds) for record in records) / 1000
    assert figures.in_flight_mean == pytest.approx(within / figures.window_seconds, rel=0.05)


class Pausing:
    """Answers each stream at once, but for a second in the middle of the window: then nobody is served at all."""

    def __init__(self, pause_at: float) -> None:
        self._pause_at = time.monotonic() + pause_at

    def __call__(self, peer: socket.socket) -> None:
        if 0 <= time.monotonic() - self._pause_at < 1:
            time.sleep(1 - (time.monotonic() - self._pause_at))
        peer.sendall(HEAD + chunks(token(0), b"data: [DONE]\n\n"))


@pytest.mark.parametrize(("arrivals", "shows"), [(0.0, False), (50.0, True)], ids=["closed", "open"])
def test_a_pause_of_a_second_shows_in_the_open_model_and_not_in_the_closed_one(
    programs: Path, arrivals: float, shows: bool
) -> None:
    """A closed generator waits with the server, so that the pause costs it one sample of hundreds."""
    demand = Demand(streams=100 if arrivals else 1, rate=20, tokens=2, seconds=4, arrivals_per_second=arrivals, seed=1)
    with serving(Pausing(pause_at=2.5)) as port:
        figures = run(programs, port, demand, SURFACES["openai"])

    assert figures.errors() == {}
    assert (figures.ttft_ms.p99 > 500) is shows
    assert (figures.ttft_ms.p99 < 300) is not shows
    assert figures.scheduled == pytest.approx(200, abs=60) if arrivals else figures.scheduled == 0


def test_streams_that_find_no_place_wait_and_are_counted(programs: Path) -> None:
    def slow(peer: socket.socket) -> None:
        time.sleep(0.2)
        peer.sendall(HEAD + chunks(token(0), b"data: [DONE]\n\n"))

    with serving(slow) as port:
        figures = run(programs, port, ONE_STREAM._replace(seconds=2, arrivals_per_second=20), SURFACES["openai"])

    assert figures.waiting > 5
    assert figures.start_lag_ms.p99 > 500


def gaps_between_arrivals(programs: Path, file: Path, seed: int) -> list[float]:
    demand = Demand(20, 20, 2, seconds=0.5, arrivals_per_second=100, seed=seed)
    with (
        serving(lambda peer: peer.sendall(HEAD + chunks(token(0), b"data: [DONE]\n\n"))) as port,
        generating(programs, ANY_CORE, port, SURFACES["openai"], demand, file) as generator,
    ):
        generator.wait_for_window()
        generator.figures()
    due = sorted(record.scheduled_ms for record in read_records(file))
    return [later - earlier for earlier, later in pairwise(due)]


def test_the_same_seed_makes_the_same_arrivals(programs: Path, tmp_path: Path) -> None:
    first, again, other = (gaps_between_arrivals(programs, tmp_path / "records", seed) for seed in (5, 5, 6))

    # The window opens a moment earlier or later, and so do the gaps that lie within it.
    expected = pytest.approx(first[10:20], abs=0.01)
    assert any(again[start : start + 10] == expected for start in range(len(again) - 9))
    assert not any(other[start : start + 10] == expected for start in range(len(other) - 9))


def test_a_header_goes_with_every_request(programs: Path) -> None:
    seen: list[bytes] = []
    with serving(lambda peer: peer.sendall(HEAD + chunks(token(0), b"data: [DONE]\n\n")), seen) as port:
        run(programs, port, surface=SURFACES["openai"]._replace(header="Authorization: Bearer sk-1"))

    assert seen
    assert all(b"\r\nAuthorization: Bearer sk-1\r\nContent-Length: " in request for request in seen if request)


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
