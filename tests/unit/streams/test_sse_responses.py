"""The Responses API's frames: their numbers, what they add up to, and how they go on behind a number."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.events import Done, Event, Failed, Reset, Token, Usage
from app.streams.sse_responses import ResponsesEncoder

OUTLINE: dict[str, Any] = {"id": "resp_abc", "object": "response", "created_at": 1, "model": "m", "usage": None}
DONE = Done("stop", Usage(3, 4))


def call(index: int, arguments: str, **more: Any) -> Token:
    delta = {"index": index, "function": {"arguments": arguments}} | more
    return Token(json.dumps([delta]), "tool_call")


def frames(events: list[Event], after: int = -1) -> list[dict[str, Any]]:
    encoder = ResponsesEncoder(OUTLINE, after)
    data = b"".join(encoder.encode(None, event) for event in events)
    found = []
    for frame in data.decode().split("\n\n")[:-1]:
        name, payload = frame.split("\n")
        found.append(json.loads(payload.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


ANSWER: list[Event] = [
    Token("Hm. ", "thought"),
    Token("Once ", index=1),
    Token("upon\u2028", index=2),
    call(0, "", id="call_1", function={"name": "f", "arguments": ""}),
    call(1, "{}", id="call_2", function={"name": "g", "arguments": "{}"}),
    call(0, '{"a":1}'),
    DONE,
]


def test_frames_are_numbered_from_zero_without_a_gap() -> None:
    assert [frame["sequence_number"] for frame in frames(ANSWER)] == list(range(len(frames(ANSWER))))


def test_the_last_frame_has_the_whole_response() -> None:
    last = frames(ANSWER)[-1]
    assert last["type"] == "response.completed"
    thought, message, first, second = last["response"]["output"]
    assert thought["content"] == [{"type": "reasoning_text", "text": "Hm. "}]
    assert message["content"][0]["text"] == "Once upon\u2028"
    assert (first["call_id"], first["name"], first["arguments"]) == ("call_1", "f", '{"a":1}')
    assert (second["call_id"], second["name"], second["arguments"]) == ("call_2", "g", "{}")
    assert {item["status"] for item in last["response"]["output"]} == {"completed"}
    assert last["response"]["usage"]["total_tokens"] == 7


def test_every_item_is_added_and_done_once_and_its_deltas_are_its_text() -> None:
    said = frames(ANSWER)
    for index, item in enumerate(said[-1]["response"]["output"]):
        of_it = [frame for frame in said if frame.get("output_index") == index]
        kinds = [frame["type"] for frame in of_it]
        assert kinds.count("response.output_item.added") == kinds.count("response.output_item.done") == 1
        deltas = "".join(frame["delta"] for frame in of_it if frame["type"].endswith(".delta"))
        assert deltas == (item["arguments"] if item["type"] == "function_call" else item["content"][0]["text"])


TOKENS = st.one_of(
    st.builds(Token, st.text(min_size=1, max_size=5)),
    st.builds(Token, st.text(min_size=1, max_size=5), st.just("thought")),
    st.builds(call, st.integers(0, 2), st.text(max_size=3)),
)
ENDS = st.sampled_from([DONE, Done("length", Usage()), Failed("upstream_truncated", "cut", 502, True), Reset("x")])


@given(st.lists(TOKENS, max_size=12), ENDS, st.integers(-1, 40))
def test_behind_any_number_come_the_same_frames(tokens: list[Event], end: Event, after: int) -> None:
    events = [*tokens, end]
    assert frames(events, after) == [frame for frame in frames(events) if frame["sequence_number"] > after]


@pytest.mark.parametrize(
    ("end", "kind", "status"),
    [
        (Done("length", Usage()), "response.incomplete", "incomplete"),
        (Done("content_filter", Usage()), "response.incomplete", "incomplete"),
        (Failed("upstream_truncated", "cut", 502, True), "response.failed", "failed"),
        (Failed("cancelled", "stopped", 499, False), "response.failed", "cancelled"),
        (Reset("takeover"), "response.failed", "failed"),
    ],
)
def test_an_answer_that_is_not_whole_says_so(end: Event, kind: str, status: str) -> None:
    last = frames([Token("Once ", index=1), end])[-1]
    assert (last["type"], last["response"]["status"]) == (kind, status)
    assert last["response"]["output"][0]["content"][0]["text"] == "Once "


def test_a_connection_that_ends_before_its_response_says_why_and_not_that_it_is_done() -> None:
    encoder = ResponsesEncoder(OUTLINE)
    encoder.encode(None, Token("Once ", index=1))
    said = encoder.farewell("drain", 500).decode()
    assert '"code":"server_shutting_down"' in said
    assert "response.completed" not in said


def test_what_was_said_so_far_can_be_looked_at() -> None:
    encoder = ResponsesEncoder(OUTLINE)
    encoder.encode(None, Token("Once ", index=1))
    encoder.encode(None, call(0, '{"a'))
    found = encoder.snapshot()
    assert found["status"] == "in_progress"
    assert found["output"][0]["content"][0]["text"] == "Once "
    assert found["output"][1]["arguments"] == '{"a'
