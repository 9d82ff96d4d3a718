"""The parser against the WHATWG standard, however the network cuts its bytes."""

import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import UpstreamInvalid
from app.providers.sse_parser import SSEEvent, SSEParser

TRICKY = {
    "lines that end in CRLF": (b"data: a\r\ndata: b\r\n\r\ndata: c\r\n\r\n", [b"a\nb", b"c"]),
    "lines that end in CR": (b"data: a\rdata: b\r\rdata: c\r\r", [b"a\nb", b"c"]),
    "all line ends mixed": (b"data: a\r\n\rdata: b\n\r\ndata: c\r\r\n", [b"a", b"b", b"c"]),
    "a byte order mark": (b"\xef\xbb\xbfdata: a\n\ndata: b\n\n", [b"a", b"b"]),
    "a byte order mark that is not first": (b"\n\xef\xbb\xbfdata: a\n\ndata: b\n\n", [b"b"]),
    "several data lines": (b"data: a\ndata\ndata:\ndata: \ndata: b\n\n", [b"a\n\n\n\nb"]),
    "comments between and inside": (b": one\n\n:\n\ndata: a\n: two\ndata: b\n\n:three\n\n", [b"a\nb"]),
    "a field without a colon": (b"data\n\ndata: a\n\nnonsense\n\n", [b"", b"a"]),
    "only one space is taken off": (b"data:a\n\ndata:  b\n\ndata: c \n\n", [b"a", b" b", b"c "]),
    "field names match exactly": (b"Data: a\n\n data: b\n\ndata : c\n\ndatax: d\n\ndata: e\n\n", [b"e"]),
    "colons in the value": (b"data: a: b:c\n\n", [b"a: b:c"]),
    "an event without data": (b"event: x\nid: 1\nretry: 5\n\ndata: a\n\n", [b"a"]),
    "characters of several bytes": ("data: 漢字 🙂 é\n\n".encode(), ["漢字 🙂 é".encode()]),
    "line ends of other standards": (
        "data: a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg\x1dh\x1ei\n\n".encode(),
        ["a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg\x1dh\x1ei".encode()],
    ),
    "a NUL in the data": (b"data: a\0b\n\n", [b"a\0b"]),
    "an event that the end cuts off": (b"data: a\n\ndata: b\n", [b"a"]),
    "a line that the end cuts off": (b"data: a\n\ndata: b", [b"a"]),
    "blank lines only": (b"\n\n\r\n\r\r\n\n", []),
}


def parse(*pieces: bytes, **bounds: int) -> list[SSEEvent]:
    parser = SSEParser(**bounds)
    return [event for piece in pieces for event in parser.feed(piece)]


@pytest.mark.parametrize("name", TRICKY)
def test_tricky_input_gives_the_same_events_at_every_cut(name: str) -> None:
    given_bytes, expected = TRICKY[name]
    whole = parse(given_bytes)
    assert [event.data for event in whole] == expected
    for cut in range(len(given_bytes) + 1):
        assert parse(given_bytes[:cut], given_bytes[cut:]) == whole, f"cut at {cut}"
        assert parse(given_bytes[:cut], b"", given_bytes[cut:]) == whole, f"cut at {cut}, with an empty read"
    assert parse(*(bytes([byte]) for byte in given_bytes)) == whole


def test_an_event_is_handed_out_with_its_blank_line_and_not_with_the_next_byte() -> None:
    for end in (b"\n\n", b"\r\n\r\n", b"\r\r", b"\n\r"):
        parser = SSEParser()
        assert [event.data for event in parser.feed(b"data: a" + end)] == [b"a"]


def test_the_name_belongs_to_one_event_and_the_id_to_all_that_follow() -> None:
    events = parse(b"event: x\nid: 7\nretry: 250\ndata: a\n\ndata: b\n\nid\ndata: c\n\n")
    assert events == [SSEEvent(b"a", "x", "7", 250), SSEEvent(b"b", "message", "7"), SSEEvent(b"c", "message", "")]


def test_an_event_without_data_leaves_its_id_and_not_its_name() -> None:
    assert parse(b"id: 9\nevent: x\n\ndata: a\n\n") == [SSEEvent(b"a", "message", "9")]


def test_an_id_with_a_nul_is_ignored() -> None:
    assert parse(b"id: 1\n\nid: a\0b\ndata: a\n\n")[0].id == "1"


@pytest.mark.parametrize("value", [b"12a", b"-1", b"", b"1.5", "\u0661".encode(), b"9" * 5000])
def test_a_retry_that_is_no_number_of_milliseconds_is_ignored(value: bytes) -> None:
    assert parse(b"retry: " + value + b"\ndata: a\n\n")[0].retry is None


def test_text_that_is_not_utf8_is_refused_where_it_is_read() -> None:
    event = parse(b"data: a\xff\n\n")[0]
    with pytest.raises(UpstreamInvalid):
        event.text()
    for field in (b"event", b"id"):
        with pytest.raises(UpstreamInvalid):
            parse(field + b": \xc3(\ndata: a\n\n")


@pytest.mark.parametrize("ends", [b"", b"\n\n", b"\r"])
@pytest.mark.parametrize("piece_bytes", [1, 7, 200])
def test_a_line_over_its_bound_is_refused(ends: bytes, piece_bytes: int) -> None:
    line = b"data: " + b"x" * 95 + ends
    with pytest.raises(UpstreamInvalid):
        parse(*(line[at : at + piece_bytes] for at in range(0, len(line), piece_bytes)), line_bytes_max=100)
    assert parse(b"data: " + b"x" * 94 + b"\n\n", line_bytes_max=100)[0].data == b"x" * 94


def test_an_event_of_many_lines_over_its_bound_is_refused() -> None:
    with pytest.raises(UpstreamInvalid):
        parse(b"data: 12345678\n" * 11 + b"\n", event_bytes_max=90)
    with pytest.raises(UpstreamInvalid):
        parse(*[b"data\n"] * 100, event_bytes_max=90)


def test_a_giant_line_takes_no_more_memory_than_its_bound() -> None:
    piece = b"x" * 65_536
    tracemalloc.start()
    try:
        with pytest.raises(UpstreamInvalid):
            parse(*[piece] * 1024)
        assert tracemalloc.get_traced_memory()[1] < 4 * 1024 * 1024
    finally:
        tracemalloc.stop()


def test_a_line_that_comes_byte_by_byte_costs_no_more_for_being_long() -> None:
    """Half a million one-byte reads of one line take seconds at most; by copying all that came they took minutes."""
    parser = SSEParser()
    parser.feed(b"data: ")
    for _ in range(500_000):
        parser.feed(b"x")
    assert len(parser.feed(b"\n\n")[0].data) == 500_000


def encode(text: str, newline: str) -> bytes:
    """Any text as one event: a data line for each of its lines."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return ("".join(f"data: {line}{newline}" for line in lines) + newline).encode()


@given(
    texts=st.lists(st.text(), max_size=5),
    newline=st.sampled_from(["\n", "\r\n", "\r"]),
    between=st.sampled_from([b"", b": ping\n\n", b"id: 3\n\n", b"\r\n"]),
    data=st.data(),
)
def test_any_text_comes_back_however_it_is_cut(texts: list[str], newline: str, between: bytes, data: Any) -> None:
    whole = b"".join(encode(text, newline) + between for text in texts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    expected = [text.replace("\r\n", "\n").replace("\r", "\n") for text in texts]
    assert [event.text() for event in parse(*pieces)] == expected


@given(pieces=st.lists(st.binary(max_size=40), max_size=10))
def test_any_bytes_give_the_same_whether_cut_or_whole(pieces: list[bytes]) -> None:
    def outcome(*parts: bytes) -> list[SSEEvent] | str:
        try:
            return parse(*parts)
        except UpstreamInvalid:
            return "refused"

    assert outcome(*pieces) == outcome(b"".join(pieces))
