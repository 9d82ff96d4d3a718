"""Golden bytes of Anthropic's surface, and its blocks."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import UpstreamInvalid
from app.events import Done, Event, Failed, Reset, Token, Usage
from app.streams.answer import Answer
from app.streams.log import Cursor, StreamRecord
from app.streams.sse_anthropic import AnthropicEncoder, anthropic_error, anthropic_message
from tests.support.providers import REQUEST
from tests.support.sse import decode

DONE = Done("stop", Usage(5, 2), duration_ms=41)
SIGNED = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
HIDDEN = {"type": "redacted_thinking", "data": "ZGF0YQ"}


def call(index: int, arguments: str = "", **more: Any) -> Token:
    named = {"id": f"call_{index}", "function": {"name": f"f{index}", "arguments": arguments}, **more}
    return Token(json.dumps([{"index": index, **named}]), "tool_call")


def more(index: int, arguments: str) -> Token:
    return Token(json.dumps([{"index": index, "function": {"arguments": arguments}}]), "tool_call")


def signed_call(*proofs: dict[str, str]) -> Token:
    return call(0, "{}", extra_content={"anthropic": {"thinking": list(proofs)}})


def encoded(*events: Event, signed: bool = False) -> bytes:
    encoder = AnthropicEncoder("msg_1", "m", signed)
    return b"".join(encoder.encode(Cursor(0, seq), event) for seq, event in enumerate(events, 1))


def payloads(*events: Event, signed: bool = False) -> list[dict[str, Any]]:
    frames = decode(encoded(*events, signed=signed))
    assert all(frame.event == frame.json()["type"] for frame in frames)
    return [frame.json() for frame in frames]


def steps(*events: Event, signed: bool = False) -> list[str]:
    """Each event of a content block, in short: `+0 text`, `0 text_delta`, `-0`."""
    found = []
    for payload in payloads(*events, signed=signed):
        if payload["type"] == "content_block_start":
            found.append(f"+{payload['index']} {payload['content_block']['type']}")
        elif payload["type"] == "content_block_delta":
            found.append(f"{payload['index']} {payload['delta']['type']}")
        elif payload["type"] == "content_block_stop":
            found.append(f"-{payload['index']}")
    return found


def message(*tokens: Token, done: Done = DONE) -> dict[str, Any]:
    record = StreamRecord("s1", "anybody", "anthropic", REQUEST, "cancel", 1.0, 1_790_000_000)
    return anthropic_message(Answer(record, list(tokens), done), "m")


def test_a_stream_in_golden_bytes() -> None:
    assert encoded(Token('Say "é"\n'), DONE).decode() == (
        "event: message_start\n"
        'data: {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"m",'
        '"content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":0,"output_tokens":0}}}\n\n'
        "event: content_block_start\n"
        'data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}\n\n'
        "event: content_block_delta\n"
        'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Say \\"é\\"\\n"}}\n\n'
        "event: content_block_stop\n"
        'data: {"type":"content_block_stop","index":0}\n\n'
        "event: message_delta\n"
        'data: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},'
        '"usage":{"input_tokens":5,"output_tokens":2}}\n\n'
        "event: message_stop\n"
        'data: {"type":"message_stop"}\n\n'
    )


def test_a_heartbeat_is_a_ping() -> None:
    assert AnthropicEncoder.heartbeat == b'event: ping\ndata: {"type":"ping"}\n\n'


def test_each_kind_has_blocks_of_its_own() -> None:
    events = (Token("hm", "thought"), Token("mh", "thought"), Token("a"), Token("b"), Token("hm", "thought"), DONE)
    assert steps(*events) == [
        *("+0 thinking", "0 thinking_delta", "0 thinking_delta", "-0"),
        *("+1 text", "1 text_delta", "1 text_delta", "-1"),
        *("+2 thinking", "2 thinking_delta", "-2"),
    ]


def test_a_tool_call_is_a_block_with_its_name_and_its_input_in_pieces() -> None:
    found = payloads(call(0), more(0, '{"a":'), more(0, "1}"), Done("tool_calls", Usage()))
    (begun,) = [payload["content_block"] for payload in found if payload["type"] == "content_block_start"]
    pieces = [payload["delta"]["partial_json"] for payload in found if payload["type"] == "content_block_delta"]
    assert begun == {"type": "tool_use", "id": "call_0", "name": "f0", "input": {}}
    assert pieces == ['{"a":', "1}"]
    assert found[-2]["delta"]["stop_reason"] == "tool_use"


def test_calls_follow_each_other() -> None:
    assert steps(Token("a"), call(0, "{}"), call(1, "{}"), DONE) == [
        *("+0 text", "0 text_delta", "-0"),
        *("+1 tool_use", "1 input_json_delta", "-1"),
        *("+2 tool_use", "2 input_json_delta", "-2"),
    ]


def test_calls_in_one_delta_are_blocks_too() -> None:
    both = Token(json.dumps(json.loads(call(0, "{}").text) + json.loads(call(1, "{}").text)), "tool_call")
    assert [step for step in steps(both, DONE) if step[0] == "+"] == ["+0 tool_use", "+1 tool_use"]


def test_a_late_piece_of_an_earlier_call_goes_to_its_block() -> None:
    assert "0 input_json_delta" in steps(call(0), call(1), more(0, "{}"), DONE)[3:]


def test_a_call_without_an_id_gets_one() -> None:
    (begun,) = [
        payload["content_block"]
        for payload in payloads(call(0, id=None), DONE)
        if payload["type"] == "content_block_start"
    ]
    assert begun["id"] == "msg_1_0"


def test_a_signature_ends_the_thoughts_before_the_call() -> None:
    assert steps(Token("hm", "thought"), Token("a"), signed_call(SIGNED), DONE, signed=True) == [
        *("+0 thinking", "0 thinking_delta"),
        *("+1 text", "1 text_delta", "-1"),
        *("0 signature_delta", "-0"),
        *("+2 tool_use", "2 input_json_delta", "-2"),
    ]


def test_thoughts_that_nobody_signs_end_at_the_call_or_with_the_message() -> None:
    assert steps(Token("hm", "thought"), Token("a"), call(0), DONE, signed=True)[-3:] == ["-0", "+2 tool_use", "-2"]
    assert steps(Token("hm", "thought"), Token("a"), DONE, signed=True)[-2:] == ["-1", "-0"]


def test_thoughts_that_are_secret_have_their_block_and_no_text() -> None:
    assert steps(Token("", "thought"), signed_call(SIGNED | {"thinking": ""}), DONE, signed=True)[:3] == [
        "+0 thinking",
        "0 signature_delta",
        "-0",
    ]


def test_thoughts_that_cannot_be_read_are_a_block() -> None:
    found = payloads(signed_call(HIDDEN), DONE, signed=True)
    assert found[1]["content_block"] == HIDDEN
    assert found[2]["type"] == "content_block_stop"


@pytest.mark.parametrize(
    ("finish_reason", "stop_reason"),
    [
        ("stop", "end_turn"),
        ("length", "max_tokens"),
        ("tool_calls", "tool_use"),
        ("content_filter", "refusal"),
        ("pause_turn", "pause_turn"),
    ],
)
def test_the_reason_has_anthropics_name(finish_reason: str, stop_reason: str) -> None:
    done = Done(finish_reason, Usage(1, 1))
    assert payloads(Token("a"), done)[-2]["delta"]["stop_reason"] == stop_reason
    assert message(Token("a"), done=done)["stop_reason"] == stop_reason


def test_an_answer_that_says_nothing_is_a_message() -> None:
    assert [payload["type"] for payload in payloads(DONE)] == ["message_start", "message_delta", "message_stop"]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (413, "request_too_large"),
        (422, "invalid_request_error"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (502, "api_error"),
        (503, "overloaded_error"),
        (504, "timeout_error"),
        (529, "overloaded_error"),
    ],
)
def test_an_error_has_the_type_of_its_status_and_our_code(status: int, kind: str) -> None:
    assert anthropic_error(Failed("some_code", "Why.", status, retryable=False)) == {
        "type": kind,
        "message": "Why.",
        "details": {"error_code": "some_code"},
    }


def test_a_failure_mid_stream_is_the_last_event() -> None:
    failed = Failed("upstream_stalled", "It stopped.", 504, retryable=True)
    *_, last = payloads(Token("a"), failed)
    assert (last["type"], last["error"]["message"]) == ("error", "It stopped.")


def test_neither_a_reset_nor_a_farewell_looks_complete() -> None:
    for data in (encoded(Token("a"), Reset("failover")), AnthropicEncoder("msg_1", "m").farewell("drain", 100)):
        assert b"message_stop" not in data
        assert decode(data)[-1].event == "error"


def test_a_whole_message_has_the_same_blocks() -> None:
    whole = message(
        Token("hm", "thought"), Token("a"), Token("b"), call(0, '{"a":'), more(0, "1}"), done=Done("stop", Usage(5, 2))
    )
    assert whole == {
        "id": "msg_s1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": ""},
            {"type": "text", "text": "ab"},
            {"type": "tool_use", "id": "call_0", "name": "f0", "input": {"a": 1}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {"input_tokens": 5, "output_tokens": 2},
    }


def test_a_whole_message_has_signed_thoughts() -> None:
    whole = message(Token("hm", "thought"), signed_call(SIGNED, HIDDEN))
    assert whole["content"][:2] == [SIGNED, HIDDEN]


@pytest.mark.parametrize("arguments", ["{", "[1]", "1", '"a"'])
def test_a_whole_call_that_is_no_object_is_the_upstreams_fault(arguments: str) -> None:
    with pytest.raises(UpstreamInvalid):
        message(call(0, arguments))


def test_a_whole_call_without_arguments_has_none() -> None:
    assert message(call(0))["content"][0]["input"] == {}


TOKENS = st.builds(Token, st.text(min_size=1), st.sampled_from(["content", "thought"])) | st.builds(
    lambda index: call(index, "{}"), st.integers(0, 3)
)


@settings(deadline=None)
@given(st.lists(TOKENS, max_size=12), st.booleans())
def test_every_block_begins_and_ends_once_and_the_text_is_whole(tokens: list[Token], signed: bool) -> None:
    found = payloads(*tokens, DONE, signed=signed)
    begun = [payload["index"] for payload in found if payload["type"] == "content_block_start"]
    ended = [payload["index"] for payload in found if payload["type"] == "content_block_stop"]
    assert begun == sorted(ended) == list(range(len(begun)))
    for kind, name in (("content", "text"), ("thought", "thinking")):
        deltas = [payload["delta"].get(name, "") for payload in found if payload["type"] == "content_block_delta"]
        assert "".join(deltas) == "".join(token.text for token in tokens if token.kind == kind)
    assert [payload["type"] for payload in found][-1] == "message_stop"
