"""RFC 6455 by classes, as conformance suites have them: each opcode, bit, length, close code and kind of text.

`test_websocket_protocol.py` has single cases and what follows from them; here it is whole ranges, over one server.
There is nothing that echoes: a ping of our own protocol, with blanks behind it, is answered however long it is.
"""

from collections.abc import Iterator

import pytest

from tests.support.gunicorn import Gunicorn
from tests.support.raw_socket import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, RawSocket, close, frame

PATH = "/api/v1/ws/generate"
SAY_PING = b'{"type":"ping"}'
SAID_PONG = {"type": "pong"}
NORMAL, WRONG, INVALID = 1000, 1002, 1007
LENGTHS = [0, 1, 125, 126, 127, 128, 65_535, 65_536, 131_072]
# Valid: what RFC 6455 defines for the wire, what IANA's registry has since, what libraries and applications may use.
CODES = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999]
NO_CODES = [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535]
# The ends of each length of UTF-8, noncharacters among them.
TEXTS = ["\u0001", "\u007f", "\u0080", "\u07ff", "\u0800", "\ud7ff", "\ue000", "\uffff", "\U00010000", "\U0010ffff"]
NO_TEXTS = {
    "lone continuation": b"\x80",
    "two of them": b"\xbf\xbf",
    "lead without an end": b"\xe4\xbd",
    "lead before a letter": b"\xc3a",
    "overlong slash in two": b"\xc0\xaf",
    "overlong slash in three": b"\xe0\x80\xaf",
    "overlong slash in four": b"\xf0\x80\x80\xaf",
    "overlong NUL": b"\xc0\x80",
    "surrogate": b"\xed\xa0\x80",
    "pair of surrogates": b"\xed\xa0\xb4\xed\xb4\x9e",
    "beyond U+10FFFF": b"\xf4\x90\x80\x80",
    "five bytes": b"\xf8\x88\x80\x80\x80",
    "fe": b"\xfe",
    "ff": b"\xff",
}


@pytest.fixture(scope="module")
def server() -> Iterator[Gunicorn]:
    with Gunicorn({"SLUICE_SOCKET_BYTES_MAX": "200000"}) as running:
        yield running
        # No peer of ours was a defect; lines are written a moment late, and all of them before it ends.
        running.stop()
        assert '"level":"error"' not in running.log
        assert "Traceback" not in running.log


@pytest.fixture
def client(server: Gunicorn) -> Iterator[RawSocket]:
    with RawSocket(server.url, PATH) as opened:
        yield opened


def said(text: str) -> bytes:
    """A message that is answered by an error, and by that only if its text was read."""
    return b'{"type":"' + text.encode() + b'"}' if text >= " " else b'{"type":"\\u0001"}'


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("pieces", [1, 2, 7])
def test_a_message_of_any_length_is_heard(client: RawSocket, length: int, pieces: int) -> None:
    payload = SAY_PING + b" " * length
    step = -(-len(payload) // pieces)
    parts = [payload[at : at + step] for at in range(0, len(payload), step)]
    for at, part in enumerate(parts):
        client.send(frame(CONTINUATION if at else TEXT, part, final=at == len(parts) - 1))
    assert client.message() == SAID_PONG


@pytest.mark.parametrize("length", [0, 1, 124, 125])
def test_a_ping_is_answered_with_its_payload(client: RawSocket, length: int) -> None:
    client.send(*(frame(PING, bytes([number]) * length) for number in range(10)))
    assert [client.receive() for _ in range(10)] == [(PONG, bytes([number]) * length) for number in range(10)]
    assert client.send(frame(PONG, b"nobody asked"), frame(TEXT, SAY_PING)).message() == SAID_PONG


def test_control_frames_between_all_pieces_disturb_no_message(client: RawSocket) -> None:
    for at in range(len(SAY_PING)):
        client.send(
            frame(CONTINUATION if at else TEXT, SAY_PING[at : at + 1], final=False),
            frame(PING, bytes([at])),
            frame(PONG),
        )
        assert client.receive() == (PONG, bytes([at]))
    assert client.send(frame(CONTINUATION)).message() == SAID_PONG


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
@pytest.mark.parametrize("behind", [[], [frame(TEXT, SAY_PING[:4], final=False)]], ids=["alone", "amid a message"])
def test_a_reserved_opcode_ends_it(client: RawSocket, opcode: int, behind: list[bytes]) -> None:
    assert client.send(*behind, frame(opcode, b"x")).close_code() == WRONG


@pytest.mark.parametrize("bits", range(1, 8))
@pytest.mark.parametrize("opcode", [TEXT, BINARY, PING, PONG, CLOSE])
def test_a_reserved_bit_ends_it(client: RawSocket, bits: int, opcode: int) -> None:
    payload = close(NORMAL) if opcode == CLOSE else SAY_PING
    assert client.send(frame(opcode, payload, reserved=bits)).close_code() == WRONG


@pytest.mark.parametrize("opcode", [PING, PONG, CLOSE])
def test_a_control_frame_is_whole_short_and_masked(server: Gunicorn, opcode: int) -> None:
    payload = close(NORMAL) if opcode == CLOSE else b"x"
    for wrong in (
        frame(opcode, payload, final=False),
        frame(opcode, payload + b"x" * 125),
        frame(opcode, payload, masked=False),
    ):
        with RawSocket(server.url, PATH) as client:
            assert client.send(wrong).close_code() == WRONG


FRAGMENTS = {
    "continuation first": [frame(CONTINUATION, b"x")],
    "continuation first, not the last": [frame(CONTINUATION, b"x", final=False)],
    "continuation behind a whole message": [frame(TEXT, SAY_PING), frame(CONTINUATION, b"x")],
    "text amid text": [frame(TEXT, b"x", final=False), frame(TEXT, b"x")],
    "binary amid text": [frame(TEXT, b"x", final=False), frame(BINARY, b"x", final=False)],
    "text amid binary": [frame(BINARY, b"x", final=False), frame(TEXT, b"x")],
    "unmasked in the middle": [frame(TEXT, b"x", final=False), frame(CONTINUATION, b"x", masked=False)],
}


@pytest.mark.parametrize("frames", FRAGMENTS.values(), ids=FRAGMENTS.keys())
def test_pieces_out_of_order_end_it(client: RawSocket, frames: list[bytes]) -> None:
    assert client.send(*frames).close_code() == WRONG


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
@pytest.mark.parametrize("cut", [False, True], ids=["whole", "byte by byte"])
def test_text_may_be_cut_within_a_character(client: RawSocket, text: str, cut: bool) -> None:
    payload = said(text)
    pieces = [payload[at : at + 1] for at in range(len(payload))] if cut else [payload]
    for at, piece in enumerate(pieces):
        client.send(frame(CONTINUATION if at else TEXT, piece, final=at == len(pieces) - 1))
    assert client.message()["code"] == "invalid_request"
    assert client.send(frame(TEXT, SAY_PING)).message() == SAID_PONG


@pytest.mark.parametrize("text", NO_TEXTS.values(), ids=NO_TEXTS.keys())
@pytest.mark.parametrize("cut", [False, True], ids=["whole", "byte by byte"])
def test_what_is_not_utf8_ends_it(client: RawSocket, text: bytes, cut: bool) -> None:
    payload = b'{"type":"' + text + b'"}'
    pieces = [payload[at : at + 1] for at in range(len(payload))] if cut else [payload]
    for at, piece in enumerate(pieces):
        client.send(frame(CONTINUATION if at else TEXT, piece, final=at == len(pieces) - 1))
    assert client.close_code() == INVALID


@pytest.mark.parametrize("text", NO_TEXTS.values(), ids=NO_TEXTS.keys())
def test_a_reason_that_is_not_utf8_ends_it(client: RawSocket, text: bytes) -> None:
    assert client.send(frame(CLOSE, close(NORMAL, text))).close_code() == INVALID


@pytest.mark.parametrize("code", CODES)
def test_a_valid_close_is_echoed(client: RawSocket, code: int) -> None:
    reason = "ü".encode() * 61 + b"x"  # as long as it may be
    assert client.send(frame(CLOSE, close(code, reason))).receive() == (CLOSE, close(code, reason))
    assert client.receive() == (CLOSE, b""), "and then nothing more"


@pytest.mark.parametrize("code", NO_CODES)
def test_a_code_that_nobody_may_send_is_an_error(client: RawSocket, code: int) -> None:
    assert client.send(frame(CLOSE, close(code))).close_code() == WRONG


def test_a_close_without_a_code_is_answered_without_one(client: RawSocket) -> None:
    assert client.send(frame(CLOSE)).receive() == (CLOSE, b"")


BEHIND = {
    "text": frame(TEXT, SAY_PING),
    "ping": frame(PING, b"x"),
    "another close": frame(CLOSE, close(1001)),
    "noise": b"\xff" * 64,
}


@pytest.mark.parametrize("more", BEHIND.values(), ids=BEHIND.keys())
def test_what_comes_behind_a_close_is_not_heard(client: RawSocket, more: bytes) -> None:
    assert client.send(frame(CLOSE, close(NORMAL)), more).receive() == (CLOSE, close(NORMAL))
    assert client.receive() == (CLOSE, b"")
