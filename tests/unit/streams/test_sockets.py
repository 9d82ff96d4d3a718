"""Events as WebSocket messages: golden bytes, and lengths at which a frame's head changes."""

import json
from typing import Any

import pytest

from app.events import Done, Event, Failed, Reset, Token, Usage
from app.streams.log import Cursor
from app.streams.sockets import SocketEncoder, error_message, frame, message

ID = "z5M-X1qbZ3JkdTrp43VJWphF"


def heard(frames: bytes) -> list[Any]:
    """The messages of unmasked text frames."""
    found = []
    while frames:
        assert frames[0] == 0x81
        length, at = frames[1], 2
        if length > 125:
            at += 2 if length == 126 else 8
            length = int.from_bytes(frames[2:at])
        found.append(json.loads(frames[at : at + length]))
        frames = frames[at + length :]
    return found


def test_a_token_is_one_small_frame() -> None:
    encoder = SocketEncoder(ID, "m")
    body = b'{"type":"token","id":"%s.0.7","kind":"content","token":"Hand ","index":7}' % ID.encode()
    assert encoder.encode(Cursor(0, 7), Token("Hand ", index=7)) == b"\x81" + bytes([len(body)]) + body


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65_535, 65_536, 70_000])
def test_every_length_has_its_head(length: int) -> None:
    payload = b'"' + b"x" * length + b'"'
    assert heard(frame(payload)) == ["x" * length]
    assert heard(frame(payload) * 3) == ["x" * length] * 3


@pytest.mark.parametrize("text", ["\n", '"}', "\x00", "\u2028", "🌍", "\ud800", "</script>", "%d.%s"])
def test_no_text_breaks_out_of_its_message(text: str) -> None:
    (told,) = heard(SocketEncoder(ID, "m").encode(Cursor(0, 1), Token(text, index=1)))
    assert told["token"] == text.replace("\ud800", "\ufffd")
    assert told.keys() == {"type", "id", "kind", "token", "index"}


@pytest.mark.parametrize(
    ("event", "told"),
    [
        (Token("hm", "thought"), {"type": "token", "kind": "thought", "token": "hm", "index": 0}),
        (Reset("upstream_stalled"), {"type": "reset", "reason": "upstream_stalled"}),
        (
            Failed("busy", "Wait.", 409, True, 3),
            {
                "type": "error",
                "code": "busy",
                "message": "Wait.",
                "retryable": True,
                "retry_after_seconds": 3,
                "stream_id": ID,
            },
        ),
        (
            Done("stop", Usage(3, 5), 41, 0.5),
            {
                "type": "end",
                "finish_reason": "stop",
                "usage": {"input_tokens": 3, "output_tokens": 5},
                "total_tokens": 8,
                "duration_ms": 41,
                "cost": 0.5,
                "metadata": {"stream_id": ID, "model": "m"},
            },
        ),
    ],
)
def test_each_event_has_its_message(event: Event, told: dict[str, Any]) -> None:
    assert heard(SocketEncoder(ID, "m").encode(Cursor(2, 9), event)) == [told | {"id": f"{ID}.2.9"}]


def test_what_has_no_id_says_so_once_and_when_ids_are_back() -> None:
    encoder = SocketEncoder(ID, "m")
    cursors = [Cursor(0, 1), None, None, Cursor(0, 4)]
    frames = b"".join(encoder.encode(cursor, Token("x", index=1)) for cursor in cursors)
    assert [(told["type"], told.get("resumable"), "id" in told) for told in heard(frames)] == [
        ("token", None, True),
        ("notice", False, False),
        ("token", None, False),
        ("token", None, False),
        ("notice", True, False),
        ("token", None, True),
    ]


def test_what_is_none_is_not_said() -> None:
    assert heard(message("start", stream_id=ID, message=None)) == [{"type": "start", "stream_id": ID}]
    (refused,) = heard(error_message(Failed("busy", "Wait.", 409, True)))
    assert refused == {"type": "error", "code": "busy", "message": "Wait.", "retryable": True}
