"""HTTP/2 at the edge: what RFC 9113 asks of a server, and what abuse of it costs the others."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import h2.errors
import h2.events
import pytest

from tests.support.edge import Edge, Exchange
from tests.support.http2_client import Http2, frame
from tests.support.nginx_builds import BUILDS, build_named

DATA, HEADERS, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 8, 9
END_STREAM, END_HEADERS, ACK = 1, 4, 1
# :method GET, :scheme https, :path /, by HPACK's static table; and :authority localhost.
WHOLE = b"\x82\x87\x84\x41\x09localhost"
RESETS = 1100


def answer_ok(exchange: Exchange) -> bool:
    exchange.answer(b'{"ok": true}')
    return True


@pytest.fixture(scope="module", params=BUILDS)
def edge(request: pytest.FixtureRequest) -> Iterator[Edge]:
    with Edge(answer_ok, answer_ok, nginx=build_named(request.param), options=["tls"]) as running:
        yield running


def test_settings_and_pings_are_acknowledged(edge: Edge) -> None:
    with Http2(edge) as client:
        client.until(h2.events.SettingsAcknowledged)
        settings: Any = client.until(h2.events.RemoteSettingsChanged)
        streams = {setting.setting.name: setting.new_value for setting in settings.changed_settings.values()}
        assert streams["MAX_CONCURRENT_STREAMS"] == 128
        client.h2.ping(b"12345678")
        client.flush()
        pong: Any = client.until(h2.events.PingAckReceived)
        assert pong.ping_data == b"12345678"


# What is sent, and with which error the whole connection ends (RFC 9113, in the section of each name).
VIOLATIONS = {
    "6.1 data on stream 0": (frame(DATA, 0, 0, b"x"), "PROTOCOL_ERROR"),
    "6.2 headers on stream 0": (frame(HEADERS, END_HEADERS, 0, WHOLE), "PROTOCOL_ERROR"),
    "5.1.1 an even stream": (frame(HEADERS, END_HEADERS | END_STREAM, 2, WHOLE), "PROTOCOL_ERROR"),
    "4.3 headers that cannot be unpacked": (
        frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff"),
        "COMPRESSION_ERROR",
    ),
    "6.4 a reset of an unopened stream's half a frame": (frame(RST_STREAM, 0, 1, b"\0\0"), "FRAME_SIZE_ERROR"),
    "6.5 settings of a length that is none": (frame(SETTINGS, 0, 0, b"\0\0\0"), "FRAME_SIZE_ERROR"),
    "6.5 an acknowledgement with content": (frame(SETTINGS, ACK, 0, b"\0" * 6), "FRAME_SIZE_ERROR"),
    "6.7 a ping that is too short": (frame(PING, 0, 0, b"\0\0\0\0"), "FRAME_SIZE_ERROR"),
    "6.9 no more window": (frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\0"), "PROTOCOL_ERROR"),
    "6.9.1 a window that is too large": (frame(WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff"), "FLOW_CONTROL_ERROR"),
    "6.10 a continuation of nothing": (frame(CONTINUATION, END_HEADERS, 1, WHOLE), "PROTOCOL_ERROR"),
    "6.10 another frame between headers": (
        frame(HEADERS, END_STREAM, 1, WHOLE) + frame(PING, 0, 0, b"12345678"),
        "PROTOCOL_ERROR",
    ),
}


@pytest.mark.parametrize("name", VIOLATIONS)
def test_a_connection_that_breaks_the_rules_is_ended_with_the_right_error(edge: Edge, name: str) -> None:
    sent, error = VIOLATIONS[name]
    with Http2(edge) as client:
        client.until(h2.events.SettingsAcknowledged)
        client.raw(sent)
        ended: Any = client.until(h2.events.ConnectionTerminated)
        assert h2.errors.ErrorCodes(ended.error_code).name == error
        client.until_closed()
    # And nobody else notices.
    with Http2(edge) as other:
        assert other.status(other.request("GET", "/")) == 200


# A request that is wrong in itself: its stream ends, or is answered 400; the connection goes on.
MALFORMED: dict[str, list[tuple[str, str]]] = {
    "8.2.1 a name in capitals": [("X-Upper", "1")],
    "8.3 a pseudo-header behind a header": [("x-first", "1"), (":path", "/")],
    "8.3 a pseudo-header that is none": [(":nothing", "1")],
    "8.3.1 two paths": [(":path", "/again")],
    "8.2.1 a line break in a value": [("x-break", "a\r\nx-smuggled: b")],
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_request_ends_alone(edge: Edge, name: str) -> None:
    before = len(edge.requests)
    with Http2(edge) as client:
        stream = client.request("GET", "/", headers=MALFORMED[name])
        while not (found := [event for event in client.events if getattr(event, "stream_id", None) == stream]):
            client.receive()
        refused = isinstance(found[0], h2.events.StreamReset) or client.status(stream) == 400
        assert refused
        assert client.status(client.request("GET", "/")) == 200
    assert not [request for request in edge.requests[before:] if request.header("x-smuggled")]
    assert len(edge.requests) == before + 1


def test_a_frame_of_an_unknown_kind_is_ignored(edge: Edge) -> None:
    """RFC 9113, 5.5."""
    with Http2(edge) as client:
        client.raw(frame(0xFA, 0xFF, 0, b"what is this"))
        assert client.status(client.request("GET", "/")) == 200


def test_what_does_not_begin_as_http2_is_not_taken_for_it(edge: Edge) -> None:
    with Http2(edge) as client:
        stream = client.request("POST", "/api/v1/generate", b'{"prompt": "x"}')
        assert client.status(stream) == 200
        assert client.body(stream) == b'{"ok": true}'


def test_the_129th_stream_of_a_connection_is_refused_and_the_others_go_on() -> None:
    end = threading.Event()

    def wait(exchange: Exchange) -> bool:
        exchange.begin_stream()
        exchange.chunk(b"data: 1\n\n")
        end.wait(20)
        exchange.chunk(b"")
        return False

    with Edge(wait, options=["tls"]) as edge, Http2(edge) as client:
        client.until(h2.events.SettingsAcknowledged)
        # The library would keep to what the server said; a client that does not is what this is about.
        head = WHOLE[:2] + b"\x44\x04/api" + WHOLE[3:]
        client.raw(b"".join(frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, head) for n in range(129)))
        data, refused = b"", frame(RST_STREAM, 0, 257, b"\0\0\0\x07")
        while not (refused in data and data.count(b"data: 1") == 128):
            data += client.socket.recv(65_536)
        end.set()


def test_streams_of_one_connection_do_not_wait_for_each_other() -> None:
    """Ten tabs of a browser: each token arrives when it is made, whoever else is silent."""
    turns = [threading.Semaphore(0) for _ in range(10)]

    def stream(exchange: Exchange) -> bool:
        number = int(exchange.path.rpartition("=")[2])
        exchange.begin_stream()
        for token in range(3):
            assert turns[number].acquire(timeout=20)
            exchange.chunk(b"data: %d\n\n" % token)
        exchange.chunk(b"")
        return True

    with Edge(stream, options=["tls"]) as edge, Http2(edge) as client:
        streams = [client.request("GET", f"/api/v1/stream?number={number}") for number in range(10)]
        for number in (9, 0, 5, 1, 8, 3, 2, 7, 4, 6):
            for _ in range(3):
                turns[number].release()
            assert client.body(streams[number]) == b"data: 0\n\ndata: 1\n\ndata: 2\n\n"


def test_a_flood_of_resets_ends_its_connection_and_costs_nobody_else(edge: Edge) -> None:
    head = WHOLE[:2] + b"\x44\x04/api" + WHOLE[3:]
    with Http2(edge) as flood, Http2(edge) as other:
        flood.until(h2.events.SettingsAcknowledged)
        began = time.monotonic()
        try:
            for number in range(RESETS):
                stream = 2 * number + 1
                cancel = frame(RST_STREAM, 0, stream, b"\0\0\0\x08")
                flood.raw(frame(HEADERS, END_HEADERS | END_STREAM, stream, head) + cancel)
                if number % 100 == 0:
                    assert other.status(other.request("GET", "/")) == 200
        except ConnectionError:
            pass  # it has had enough of it
        # keepalive_requests (1000) at the latest: no connection can go on like that.
        flood.socket.settimeout(20)
        try:
            while flood.socket.recv(65_536):
                pass
        except ConnectionError:
            pass
        assert other.status(other.request("GET", "/")) == 200
        assert time.monotonic() - began < 60


def test_a_reader_that_cancels_its_streams_is_not_taken_for_an_attacker() -> None:
    """Pages that are closed, answers that are stopped: a hundred in a row on one connection."""
    left = threading.Semaphore(0)

    def stream(exchange: Exchange) -> bool:
        exchange.begin_stream()
        exchange.chunk(b"data: 1\n\n")
        if exchange.closed_by_peer(20):
            left.release()
        return False

    with Edge(stream, options=["tls"]) as edge, Http2(edge) as client:
        for _ in range(100):
            number = client.request("GET", "/api/v1/stream?prompt=x")
            client.until(h2.events.DataReceived, number)
            client.h2.reset_stream(number, h2.errors.ErrorCodes.CANCEL)
            client.flush()
        assert all(left.acquire(timeout=20) for _ in range(100)), "a worker did not hear that its reader left"
        assert not client.closed
