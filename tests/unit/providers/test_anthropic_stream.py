"""From the bytes of a Messages API answer to tokens, without a network."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import UpstreamError, UpstreamInvalid, UpstreamRejected, UpstreamTruncated
from app.events import Done, Token, Usage
from app.providers.anthropic_stream import STATUSES, MessageStream
from app.providers.rejection import Rejections
from tests.support.upstream_messages import block, frame, text_block, thinking_block, tool_block

STOP = frame({"type": "message_stop"})
PING = frame({"type": "ping"})
THOUGHTS = {"type": "thinking", "thinking": "Let me see.", "signature": "c2ln"}


def start(**usage: int) -> bytes:
    message = {"id": "msg_1", "type": "message", "role": "assistant", "content": [], "usage": usage}
    return frame({"type": "message_start", "message": message})


def finish(stop_reason: str | None = "end_turn", **usage: int) -> bytes:
    return frame({"type": "message_delta", "delta": {"stop_reason": stop_reason}, "usage": usage})


def said(*blocks: list[dict[str, Any]]) -> bytes:
    return b"".join(frame(payload) for events in blocks for payload in events)


def run(*pieces: bytes, content_type: str = "text/event-stream") -> tuple[list[Token], Done]:
    """The tokens and the end of an answer that arrives in these pieces."""
    stream = MessageStream(Rejections("host:1", None), content_type)
    tokens = []
    for piece in pieces:
        tokens += stream.feed(piece)
        stream.check()
        if stream.complete:
            break
    else:
        tokens += stream.end()
    return tokens, stream.done([{"role": "user", "content": "three plain words"}])


def deltas(tokens: list[Token]) -> list[dict[str, Any]]:
    return [delta for token in tokens if token.kind == "tool_call" for delta in json.loads(token.text)]


def test_text_deltas_are_tokens() -> None:
    tokens, done = run(start(), PING, said(text_block(0, "He", "llo 水")), finish(), STOP)
    assert tokens == [Token("He"), Token("llo 水")]
    assert done.finish_reason == "stop"


def test_events_that_say_nothing_and_those_that_are_new_are_passed_over() -> None:
    tokens, _ = run(
        b": comment\n\n",
        b"event: ping\ndata:\n\n",
        PING,
        start(),
        frame({"type": "of_tomorrow", "index": 3, "delta": {"type": "text_delta", "text": "no"}}),
        said(
            block(0, {"type": "server_tool_use", "id": "s", "name": "web_search"}, {"type": "input_json_delta"}),
            block(1, {"type": "text", "text": ""}, {"type": "citations_delta", "citation": {"cited_text": "no"}}),
            text_block(2, "", "yes"),
        ),
        finish(),
        STOP,
    )
    assert tokens == [Token("yes")]


def test_a_block_may_begin_with_its_text() -> None:
    tokens, _ = run(
        said(block(0, {"type": "thinking", "thinking": "hm"}), block(1, {"type": "text", "text": "a"})), finish(), STOP
    )
    assert tokens == [Token("hm", "thought"), Token("a")]


def test_thinking_is_thought() -> None:
    tokens, _ = run(said(thinking_block(0, "Let me ", "see.", signature="s"), text_block(1, "Yes.")), finish(), STOP)
    assert tokens == [Token("Let me ", "thought"), Token("see.", "thought"), Token("Yes.")]


def test_a_tool_use_is_openais_deltas() -> None:
    tokens, done = run(
        said(tool_block(0, "toolu_1", "weather", '{"city": ', '"Köln"}'), tool_block(1, "toolu_2", "time", "{}")),
        finish("tool_use"),
        STOP,
    )
    assert deltas(tokens) == [
        {"index": 0, "id": "toolu_1", "type": "function", "function": {"name": "weather", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"city": '}},
        {"index": 0, "function": {"arguments": '"Köln"}'}},
        {"index": 1, "id": "toolu_2", "type": "function", "function": {"name": "time", "arguments": ""}},
        {"index": 1, "function": {"arguments": "{}"}},
    ]
    assert done.finish_reason == "tool_calls"


def test_a_call_without_arguments_has_an_empty_object() -> None:
    """Clients of OpenAI's protocol parse the arguments whatever the tool takes."""
    tokens, _ = run(said(tool_block(0, "toolu_1", "now")), finish("tool_use"), STOP)
    assert deltas(tokens)[1:] == [{"index": 0, "function": {"arguments": "{}"}}]


def test_a_call_that_comes_whole_keeps_its_input() -> None:
    tool = {"type": "tool_use", "id": "toolu_1", "name": "time", "input": {"zone": "CET"}}
    tokens, _ = run(said(block(0, tool)), finish("tool_use"), STOP)
    assert json.loads(deltas(tokens)[1]["function"]["arguments"]) == {"zone": "CET"}


def test_signed_thoughts_travel_with_the_call_that_follows_them() -> None:
    hidden = {"type": "redacted_thinking", "data": "ZGF0YQ"}
    tokens, _ = run(
        said(
            thinking_block(0, "Let me ", "see.", signature="c2ln"),
            block(1, hidden),
            text_block(2, "I look."),
            tool_block(3, "toolu_1", "weather"),
            tool_block(4, "toolu_2", "weather"),
        ),
        finish("tool_use"),
        STOP,
    )
    begun = [delta for delta in deltas(tokens) if "id" in delta]
    assert begun[0]["extra_content"] == {"anthropic": {"thinking": [THOUGHTS, hidden]}}
    assert "extra_content" not in begun[1]


def test_thoughts_that_are_kept_secret_still_say_where_they_were() -> None:
    tokens, _ = run(said(thinking_block(0, signature="c2ln"), text_block(1, "Yes.")), finish(), STOP)
    assert tokens == [Token("", "thought"), Token("Yes.")]


@pytest.mark.parametrize(
    ("stop_reason", "finish_reason"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
        ("pause_turn", "pause_turn"),
        (None, "stop"),
    ],
)
def test_the_reason_has_its_name_in_openais_protocol(stop_reason: str | None, finish_reason: str) -> None:
    _, done = run(start(), said(text_block(0, "a")), finish(stop_reason), STOP)
    assert done.finish_reason == finish_reason


def test_input_is_what_was_read_and_what_went_into_the_cache_and_out_of_it() -> None:
    _, done = run(
        start(input_tokens=3, cache_creation_input_tokens=20, cache_read_input_tokens=100, output_tokens=1),
        said(text_block(0, "a")),
        finish(output_tokens=9),
        STOP,
    )
    assert done.usage == Usage(123, 9)


def test_the_last_count_is_the_one() -> None:
    """Counts are totals so far; what has not changed is left out."""
    _, done = run(start(input_tokens=3, output_tokens=1), finish(None, output_tokens=4), finish(input_tokens=5), STOP)
    assert done.usage == Usage(5, 4)


def test_without_a_count_the_tokens_are_counted_here() -> None:
    _, done = run(said(text_block(0, "a", "b")), finish(), STOP)
    assert done.usage == Usage(3, 2)


def test_nothing_is_read_behind_the_last_event() -> None:
    tokens, _ = run(said(text_block(0, "a")) + finish() + STOP + said(text_block(1, "b")))
    assert tokens == [Token("a")]


def test_a_stop_reason_is_an_end_without_the_last_event() -> None:
    tokens, done = run(said(text_block(0, "a")), finish("max_tokens"))
    assert (tokens, done.finish_reason) == ([Token("a")], "length")


@pytest.mark.parametrize("ends_after", range(4))
def test_an_end_before_the_stop_reason_is_a_truncation(ends_after: int) -> None:
    with pytest.raises(UpstreamTruncated):
        run(start(), PING, *[frame(payload) for payload in text_block(0, "a", "b")[:ends_after]])


@pytest.mark.parametrize(("kind", "status"), STATUSES.items())
def test_an_error_event_has_the_status_of_its_type(kind: str, status: int) -> None:
    error = {"type": "error", "error": {"type": kind, "message": "Because."}}
    with pytest.raises(UpstreamRejected) as caught:
        run(start(), frame(error))
    assert caught.value.status == status
    # Of keys and accounts, which are the operator's, a caller learns nothing.
    assert ("Because." in caught.value.message) is (status not in (401, 403))


def test_an_error_is_known_by_its_name_or_by_its_data() -> None:
    for data in (b'event: error\ndata: {"error":{"message":"No."}}\n\n', b'data: {"type":"error","error":"No."}\n\n'):
        with pytest.raises(UpstreamRejected) as caught:
            run(data)
        assert (caught.value.status, caught.value.message) == (502, "No.")
    with pytest.raises(UpstreamRejected):
        run(b"event: error\ndata: what?\n\n")


def test_tokens_before_an_error_are_delivered_first() -> None:
    stream = MessageStream(Rejections("host:1", None), "text/event-stream")
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    assert stream.feed(said(text_block(0, "a")) + frame(error)) == [Token("a")]
    with pytest.raises(UpstreamRejected):
        stream.check()


def test_a_whole_message_is_tokens_too() -> None:
    message = {
        "type": "message",
        "content": [
            THOUGHTS,
            {"type": "text", "text": "I look."},
            {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}},
        ],
        "stop_reason": "tool_use",
        "usage": {"input_tokens": 2, "output_tokens": 5},
    }
    tokens, done = run(json.dumps(message).encode(), content_type="application/json")
    assert tokens[:2] == [Token("Let me see.", "thought"), Token("I look.")]
    assert [delta["function"]["arguments"].replace(" ", "") for delta in deltas(tokens)] == ["", '{"a":1}']
    assert deltas(tokens)[0]["extra_content"] == {"anthropic": {"thinking": [THOUGHTS]}}
    assert (done.finish_reason, done.usage) == ("tool_calls", Usage(2, 5))


def test_a_whole_error_under_a_status_of_success_is_an_error() -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    with pytest.raises(UpstreamRejected) as caught:
        run(json.dumps(error).encode())
    assert caught.value.status == 529


@pytest.mark.parametrize(
    "data",
    [
        b"<!doctype html>",
        b'{"id":"msg_1"}',
        b"{",
        b"data: [1]\n\n",
        b"data: {\n\n",
        b'data: {"type":3}\n\n',
        frame({"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "a"}}),
        b"data: \xff\n\n",
    ],
)
def test_what_is_not_the_protocol_is_told_so(data: bytes) -> None:
    with pytest.raises(UpstreamInvalid):
        run(data)


WHOLE = (
    start(input_tokens=1)
    + PING
    + said(
        thinking_block(0, "漢", signature="s"),
        text_block(1, "a\u2028é🌊"),
        tool_block(2, "toolu_1", "f", '{"k":', "1}"),
    )
    + finish("tool_use", output_tokens=3)
    + STOP
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, len(WHOLE) - 1), max_size=8), st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_splits_and_line_ends_change_nothing(cuts: list[int], newline: bytes) -> None:
    data = WHOLE.replace(b"\n", newline)
    places = [0, *sorted(set(cuts)), len(data)]
    pieces = [data[begin:end] for begin, end in pairwise(places)]
    assert run(*pieces) == run(WHOLE)


def test_every_byte_may_come_alone() -> None:
    assert run(*[WHOLE[at : at + 1] for at in range(len(WHOLE))]) == run(WHOLE)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from([json.loads(line[6:]) for line in WHOLE.split(b"\n") if line.startswith(b"data: ")]),
        max_size=12,
    )
)
def test_events_in_any_order_are_tokens_or_an_error_of_the_upstream(events: list[dict[str, Any]]) -> None:
    try:
        tokens, done = run(*[frame(event) for event in events])
    except UpstreamError:
        return
    assert done.finish_reason
    assert all(json.loads(token.text) for token in tokens if token.kind == "tool_call")
