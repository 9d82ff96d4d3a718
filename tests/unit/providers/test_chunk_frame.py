"""What a frame says of a chunk is what its parser says."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.providers import chunk_frame
from app.providers.chunk_frame import ChunkFrame
from app.providers.openai_chunks import content

TEXTS = st.one_of(st.text(max_size=8), st.sampled_from(["a", " b", '"', "\\", "\n", "\u2028", "é", "\U0001f600", ""]))
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "content": st.sampled_from(["a", " b", "z"]),
        "nonce": st.integers(0, 3),
        "usage": st.just({"prompt_tokens": 1}),
        "error": st.just({"message": "no"}),
    },
)


@st.composite
def chunks(draw: st.DrawFn) -> bytes:
    delta = draw(st.sampled_from(["content", "reasoning_content", "other"]))
    choice = {"index": draw(st.sampled_from([0, 0, 0, 1])), "delta": {delta: draw(TEXTS)}}
    common = draw(FIELDS)
    whole = {**common, "choices": [choice]} if draw(st.booleans()) else {"choices": [choice], **common}
    return json.dumps(whole, ensure_ascii=draw(st.booleans()), separators=(",", ":")).encode("utf-8", "surrogatepass")


@given(st.lists(chunks(), max_size=12))
def test_a_frame_says_what_the_parser_would(payloads: list[bytes]) -> None:
    frame = ChunkFrame()
    assert [frame.text(payload) or None for payload in payloads] == [content(payload) or None for payload in payloads]


def test_raw_control_characters_and_broken_utf8_are_left_to_the_parser() -> None:
    frame = ChunkFrame()
    assert frame.text(chunk(b"a")) == "a"
    for broken in (b"\x00", b"a\tb", b"a\nb", b"\xff", b'"', b"\\", b"\\x"):
        assert not frame.text(chunk(broken))
    assert frame.text(chunk(b"\\n")) == "\n"
    assert frame.text(chunk(b'","x":"')) == ""


def test_only_what_follows_in_the_same_frame_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[bytes] = []

    def parse(payload: bytes) -> str | None:
        parsed.append(payload)
        return content(payload)

    monkeypatch.setattr(chunk_frame, "content", parse)
    frame = ChunkFrame()
    frame.text(chunk(b"a"))
    parsed.clear()
    assert [frame.text(chunk(text)) for text in (b"b", b" c", "é".encode())] == ["b", " c", "é"]
    assert parsed == []
    assert frame.text(chunk(b"d", nonce=1)) == "d"
    assert parsed


def test_where_every_chunk_has_another_frame_it_stops_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = ChunkFrame()
    assert [frame.text(chunk(b"e", nonce=nonce)) for nonce in range(20)] == ["e"] * 20
    looked: list[bytes] = []
    monkeypatch.setattr(ChunkFrame, "_learn", lambda *_: looked.append(b""))
    assert frame.text(chunk(b"e", nonce=21)) == "e"
    assert looked == []


def chunk(text: bytes, nonce: int = 0) -> bytes:
    return b'{"id":"a","nonce":%d,"choices":[{"index":0,"delta":{"content":"%b"}}]}' % (nonce, text)
