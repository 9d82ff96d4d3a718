"""The load tests' own decoder of server-sent events."""

import random

import pytest

from loadtests.sse import LINE_BYTES_MAX, Event, EventDecoder, LineTooLong

TEXT = (
    "\ufeff: ping\n\nid: s.0.1\nevent: token\ndata: {\"token\":\"naïve 水 🌊\"}\n\n"
    "data: two\ndata: lines\r\n\r\nretry: 250\rdata\r\rid: a\0b\ndata:  kept space\n\n: ping\ndata: cut"
)  # fmt: skip
EVENTS = [
    Event("token", '{"token":"naïve 水 🌊"}', "s.0.1", None, named=True),
    Event("message", "two\nlines", "s.0.1", None),
    Event("message", "", "s.0.1", 250),
    Event("message", " kept space", "s.0.1", 250),
]


def decoded(*pieces: bytes) -> tuple[list[Event], int]:
    decoder = EventDecoder()
    return [event for piece in pieces for event in decoder.feed(piece)], decoder.comments


def test_events_comments_and_line_ends_are_those_of_the_standard() -> None:
    assert decoded(TEXT.encode()) == (EVENTS, 2)


def test_single_bytes_say_the_same_as_the_whole() -> None:
    assert decoded(*[bytes([byte]) for byte in TEXT.encode()]) == (EVENTS, 2)


@pytest.mark.parametrize("seed", range(20))
def test_no_way_to_cut_the_bytes_changes_the_events(seed: int) -> None:
    data, source = TEXT.encode(), random.Random(seed)
    cuts = sorted(source.sample(range(1, len(data)), 12))

    pieces = [data[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]

    assert decoded(*pieces) == (EVENTS, 2)


def test_an_event_that_ends_in_a_lone_cr_is_not_held_back() -> None:
    decoder = EventDecoder()

    assert decoder.feed(b"data: now\r\r") == [Event("message", "now", "", None)]
    assert decoder.feed(b"\ndata: next\n\n") == [Event("message", "next", "", None)]


def test_an_event_without_its_blank_line_is_not_one() -> None:
    assert decoded(b"data: half\n") == ([], 0)


def test_a_name_lasts_for_one_event_and_an_id_until_the_next() -> None:
    events, _ = decoded(b"event: token\nid: 7\ndata: a\n\ndata: b\n\n")

    assert events == [Event("token", "a", "7", None, named=True), Event("message", "b", "7", None)]


def test_a_line_without_an_end_does_not_fill_the_memory() -> None:
    feed = [b"x" * 65_536] * (LINE_BYTES_MAX // 65_536 + 1)
    with pytest.raises(LineTooLong):
        decoded(*feed)
