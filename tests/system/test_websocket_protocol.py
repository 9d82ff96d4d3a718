"""WebSocket frames as RFC 6455 has them: what is right works in any pieces, what is wrong ends with the right code.

Through NGINX, but for what it would not let through. `test_websocket_conformance.py` has whole ranges of it.
"""

import socket
import zlib
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.support.chain import Chain
from tests.support.footprint import private_bytes
from tests.support.raw_socket import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, RawSocket, close, frame
from tests.support.workers import sockets

PATH = "/api/v1/ws/generate"
SAY_PING = b'{"type":"ping"}'
BYTES_MAX = 8192
CANARY = "canary-in-an-address"
SOCKETS = 200
# 41 KB were measured.
SOCKET_MEMORY_BYTES_MAX = 80 * 1024
# Of 64 KB, which is more than a message may have.
ZEROS = zlib.compress(bytes(65_536), wbits=-15)
# Normal; protocol error; inconsistent data; too big.
NORMAL, WRONG, INVALID, BIG = 1000, 1002, 1007, 1009


@pytest.fixture(scope="module")
def chain() -> Iterator[Chain]:
    edge = {"SLUICE_EDGE_STREAMS_MAX": "1000"}  # for all the sockets that are open at a time here
    with Chain({"SLUICE_SOCKET_BYTES_MAX": str(BYTES_MAX)} | edge, workers=1) as running:
        yield running
        # No fault of a client is a defect; lines are written a moment late, and all of them before it ends.
        running.stop()
        assert '"level":"error"' not in running.log
        assert "Traceback" not in running.log
        assert CANARY not in running.log + running.access_log


def is_alive(client: RawSocket) -> bool:
    client.say(type="ping")
    return bool(client.message() == {"type": "pong"})


PIECES = {
    "in one frame": [frame(TEXT, SAY_PING)],
    "in a frame for each byte": [
        frame(TEXT, SAY_PING[:1], final=False),
        *(frame(CONTINUATION, SAY_PING[at : at + 1], final=False) for at in range(1, len(SAY_PING))),
        frame(CONTINUATION),
    ],
    "behind an empty frame": [frame(TEXT, final=False), frame(CONTINUATION, SAY_PING)],
    "of the longest length": [frame(TEXT, SAY_PING + b" " * (BYTES_MAX - len(SAY_PING)))],
}
WRONGS = {
    "not masked": ([frame(TEXT, SAY_PING, masked=False)], WRONG),
    "text that is not UTF-8": ([frame(TEXT, b'{"prompt":"\xff"}')], INVALID),
    "text that ends in a character": ([frame(TEXT, "ä".encode()[:1])], INVALID),
    "text that breaks off in its last frame": ([frame(TEXT, b"a", final=False), frame(CONTINUATION, b"\xc3")], INVALID),
    "close of one byte": ([frame(CLOSE, b"\x03")], WRONG),
    "too long": ([frame(TEXT, b" " * (BYTES_MAX + 1))], BIG),
    "too long in pieces": (
        [frame(TEXT, b" " * BYTES_MAX, final=False), frame(CONTINUATION, b" ")],
        BIG,
    ),
    "compressed, which was not agreed upon": ([frame(TEXT, ZEROS, reserved=4)], WRONG),
    "says that it will be long": ([b"\x81\xff" + (1 << 40).to_bytes(8) + b"mask"], BIG),
}


@pytest.mark.parametrize("pieces", PIECES.values(), ids=PIECES.keys())
def test_a_message_is_the_same_in_any_pieces(chain: Chain, pieces: list[bytes]) -> None:
    with RawSocket(chain.url, PATH) as client:
        client.send(*pieces)
        assert client.message() == {"type": "pong"}
        assert is_alive(client)


def test_bytes_that_come_one_by_one_and_messages_that_come_together_are_all_heard(chain: Chain) -> None:
    with RawSocket(chain.url, PATH) as client:
        for byte in frame(TEXT, SAY_PING):
            client.send(bytes([byte]))
        client.send(frame(TEXT, SAY_PING) * 50)
        assert [client.message() for _ in range(51)] == [{"type": "pong"}] * 51


def test_a_ping_within_a_message_is_answered_at_once_with_its_payload(chain: Chain) -> None:
    with RawSocket(chain.url, PATH) as client:
        client.send(
            frame(TEXT, SAY_PING[:5], final=False), frame(PING, b"\x00payload" * 15), frame(PONG, b"nobody asked")
        )
        assert client.receive() == (PONG, b"\x00payload" * 15)
        client.send(frame(CONTINUATION, SAY_PING[5:]))
        assert client.message() == {"type": "pong"}


@pytest.mark.parametrize(("frames", "code"), WRONGS.values(), ids=WRONGS.keys())
def test_what_is_wrong_ends_with_its_code(chain: Chain, frames: list[bytes], code: int) -> None:
    with RawSocket(chain.url, PATH) as client:
        client.send(*frames)
        assert client.close_code() == code


def test_a_binary_message_is_refused_and_ends_nothing(chain: Chain) -> None:
    with RawSocket(chain.url, PATH) as client:
        client.send(frame(BINARY, SAY_PING))
        assert client.message()["code"] == "invalid_request"
        assert is_alive(client)


def test_who_is_wrong_all_the_time_is_shown_the_door(chain: Chain) -> None:
    with RawSocket(chain.url, PATH) as client:
        client.send(frame(TEXT, b"[" * 5000 + b"]" * 3000) * 10)
        assert client.close_code() == 1008


def test_nothing_is_compressed_and_no_address_is_logged(chain: Chain) -> None:
    offered = {"Sec_WebSocket_Extensions": "permessage-deflate; client_max_window_bits"}
    with RawSocket(chain.url, f"{PATH}?a={CANARY}", **offered) as client:
        assert (client.status, "sec-websocket-extensions" in client.head) == (101, False)
        assert "x-request-id" in client.head


NO_HANDSHAKES = {
    "of another method": ("POST", ["Content-Length: 2"]),
    "with a body": ("GET", ["Content-Length: 2"]),
    "with a long header": ("GET", ["X-Long: " + 9000 * "x"]),
}


@pytest.mark.parametrize(("method", "more"), NO_HANDSHAKES.values(), ids=NO_HANDSHAKES.keys())
def test_a_handshake_that_cannot_be_read_is_refused_at_once(chain: Chain, method: str, more: list[str]) -> None:
    """It got no answer, and its connection was held for as long as the client liked."""
    lines = [f"{method} {PATH} HTTP/1.1", "Host: x", "Upgrade: websocket", "Connection: Upgrade", *more, "", ""]
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(sockets(chain)[0]))
        client.sendall("\r\n".join(lines).encode() + b"{}" * ("Content-Length: 2" in more))
        assert client.recv(100).startswith(b"HTTP/1.1 400 ")
        while client.recv(1000):
            pass


def test_a_close_right_behind_text_that_is_not_utf_8_is_answered(chain: Chain) -> None:
    """An error of ours was logged, with a traceback, and the close was not answered."""
    with RawSocket(chain.url, PATH) as client:
        client.send(frame(TEXT, b"\xff") + frame(CLOSE, close(NORMAL)))
        assert client.close_code() == NORMAL


def test_what_is_no_handshake_is_refused_and_no_fault_of_a_client_fills_the_log(chain: Chain) -> None:
    with RawSocket(chain.url, "/api/v1/ws/none") as client:
        assert client.status in (403, 404)
    with RawSocket(chain.url, "/api/v1/ws/chat/a%20b") as client:
        assert client.status == 400


def test_an_idle_socket_takes_little_memory(chain: Chain) -> None:
    """With compression each would have its window, and a worker would hold hundreds of kilobytes for somebody idle."""
    (pid,) = chain.worker_pids()
    with ExitStack() as stack:
        for _ in range(20):
            assert is_alive(stack.enter_context(RawSocket(chain.url, PATH)))
        before = private_bytes(pid)
        for _ in range(SOCKETS):
            assert is_alive(stack.enter_context(RawSocket(chain.url, PATH)))
        assert (private_bytes(pid) - before) / SOCKETS < SOCKET_MEMORY_BYTES_MAX
