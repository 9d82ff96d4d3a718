"""Golden bytes of each surface, and what no text of a model can do to a frame."""

import json
import re
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.events import Done, Event, Failed, Reset, Token, Usage
from app.streams.log import START, STREAM_ID, Cursor, format_id, parse_id
from app.streams.sse import SHUTTING_DOWN, Encoder, NativeEncoder, OpenAIEncoder, json_bytes, openai_error, sse
from tests.support.sse import Frame, SSEDecoder, decode

DONE = Done("stop", Usage(5, 2), duration_ms=41)
FAILED = Failed("upstream_stalled", "The upstream stopped.", 504, retryable=True)
CALL = Token('[{"index":0,"id":"c1","function":{"name":"f","arguments":"{"}}]', kind="tool_call")

# The line ends of the standard, those of other people's `splitlines`, what JSON escapes, and characters of 1-4 bytes.
HOSTILE = '\r\n\0\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029\ufeff"\\:{} data\x7fé水🌊'
# Without lone surrogates, which no UTF-8 can carry: they have tests of their own.
TEXT = st.text() | st.text(alphabet=HOSTILE)


STREAM = "pYnkZ0gC2rT1uVwX3yZaBcDe"
AT = Cursor(0, 7)


def native() -> NativeEncoder:
    return NativeEncoder(STREAM, "m")


def openai(include_usage: bool = False) -> OpenAIEncoder:
    return OpenAIEncoder("chatcmpl-s1", "m", 1_790_000_000, include_usage)


def encoded(encoder: Encoder, *events: Event) -> bytes:
    """The events of a stream from its beginning."""
    return b"".join(encoder.encode(Cursor(0, seq), event) for seq, event in enumerate(events, 1))


def deltas(data: bytes) -> list[dict[str, object]]:
    """The first choice's delta of every chunk that has one."""
    chunks = [frame.json() for frame in decode(data) if frame.data != "[DONE]"]
    return [chunk["choices"][0]["delta"] for chunk in chunks if chunk.get("choices")]


def test_a_frame_has_its_name_and_its_data_on_a_line_each() -> None:
    assert sse("notice", {"a": 1}) == b'event: notice\ndata: {"a":1}\n\n'


def test_a_frame_without_a_name_is_data_alone() -> None:
    assert sse(None, {"a": 1}) == b'data: {"a":1}\n\n'


def test_line_ends_of_no_standard_are_escaped() -> None:
    assert json_bytes("a\u2028b\u2029c\x85d") == b'"a\\u2028b\\u2029c\\u0085d"'


def test_the_rest_of_unicode_is_sent_as_it_is() -> None:
    assert json_bytes("é水🌊\x86") == '"é水🌊\x86"'.encode()


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("a\ud800b", "a\ufffdb"),
        ("\udfff", "\ufffd"),
        ("\ud83c\udf0a", "🌊"),
        ("\udc00\ud800\u2028", "\ufffd\ufffd\u2028"),
    ],
)
def test_half_a_surrogate_pair_becomes_a_replacement_character(text: str, read: str) -> None:
    """No UTF-8 can carry it: it would end the stream without a terminal event."""
    assert json.loads(json_bytes(text)) == read


def test_half_a_surrogate_pair_is_replaced_anywhere_in_a_payload() -> None:
    payload = {"usage": Usage(1, 2), "of": ["\ud800", {"\udc00": None}]}
    assert json.loads(json_bytes(payload)) == {
        "usage": {"input_tokens": 1, "output_tokens": 2},
        "of": ["\ufffd", {"\ufffd": None}],
    }


def test_a_token_says_type_text_and_index() -> None:
    frame = native().encode(AT, Token('Say "é"\n', index=7))
    assert frame.decode() == (
        f'id: {STREAM}.0.7\nevent: token\ndata: {{"type":"content","token":"Say \\"é\\"\\n","index":7}}\n\n'
    )


def test_a_thought_has_no_index() -> None:
    (frame,) = decode(native().encode(AT, Token("Hm", kind="thought")))
    assert frame.json() == {"type": "thought", "token": "Hm", "index": 0}


def test_a_tool_call_is_carried_as_text() -> None:
    (frame,) = decode(native().encode(AT, CALL))
    assert frame.json()["type"] == "tool_call"
    assert json.loads(frame.json()["token"])[0]["function"]["name"] == "f"


def test_done_says_how_much_it_took() -> None:
    assert native().encode(AT, DONE).decode() == (
        f"id: {STREAM}.0.7\n"
        'event: done\ndata: {"done":true,"finish_reason":"stop","usage":{"input_tokens":5,"output_tokens":2},'
        f'"total_tokens":7,"duration_ms":41,"metadata":{{"stream_id":"{STREAM}","model":"m"}}}}\n\n'
    )


def test_an_error_says_code_message_and_whether_to_try_again() -> None:
    assert native().encode(AT, FAILED).decode() == (
        f"id: {STREAM}.0.7\n"
        'event: error\ndata: {"code":"upstream_stalled","message":"The upstream stopped.","retryable":true,'
        '"status":504}\n\n'
    )


def test_an_error_says_the_status_and_the_wait_that_it_would_have_had_in_time() -> None:
    limited = Failed("upstream_rejected", "Too many.", 429, retryable=True, retry_after_seconds=7)
    said = decode(native().encode(AT, limited))[0].json()
    assert (said["status"], said["retry_after_seconds"]) == (429, 7)


def test_every_logged_event_has_the_id_of_its_place() -> None:
    frames = decode(encoded(native(), Token("a"), Reset("failover"), DONE))
    assert [frame.id for frame in frames] == [f"{STREAM}.0.1", f"{STREAM}.0.2", f"{STREAM}.0.3"]
    assert [frame.event for frame in frames] == ["token", "reset", "done"]
    assert parse_id(frames[0].id) == (STREAM, Cursor(0, 1))


@pytest.mark.parametrize("name", ["A" * 24, "-_" * 12])
def test_no_id_makes_a_browser_ask_first_whether_it_may_send_it_back(name: str) -> None:
    """Longer than 128 bytes, or with other characters, `Last-Event-ID` costs a preflight at each reconnect."""
    assert STREAM_ID.fullmatch(name)
    most = Cursor(10**9 - 1, 10**9 - 1)
    assert re.fullmatch(r"[0-9A-Za-z._-]{1,64}", format_id(name, most))
    (frame,) = decode(NativeEncoder(name, "m").encode(most, Token("a")))
    assert frame.id == format_id(name, most)


@given(epoch=st.integers(0, 10**9 - 1), seq=st.integers(0, 10**9 - 1))
def test_any_id_that_is_sent_is_understood_when_it_comes_back(epoch: int, seq: int) -> None:
    (frame,) = decode(native().encode(Cursor(epoch, seq), Token("a")))
    assert frame.id == format_id(STREAM, Cursor(epoch, seq))
    assert parse_id(frame.id) == (STREAM, Cursor(epoch, seq))


def test_a_reset_says_why() -> None:
    (frame,) = decode(native().encode(Cursor(1, 0), Reset("failover")))
    assert (frame.event, frame.json(), frame.id) == ("reset", {"reason": "failover"}, f"{STREAM}.1.0")


def test_events_that_are_not_in_the_log_have_no_id_and_a_notice_before_them() -> None:
    encoder = native()
    data = encoder.encode(Cursor(0, 1), Token("a")) + encoder.encode(None, Token("b")) + encoder.encode(None, DONE)
    logged, notice, live, done = decode(data)
    assert (notice.event, notice.json()) == ("notice", {"resumable": False})
    # The browser keeps the last id, behind which the log is searched if it comes back.
    assert {frame.id for frame in (logged, notice, live, done)} == {f"{STREAM}.0.1"}
    assert data.count(b"\nid:") + data.startswith(b"id:") == 1


def test_a_log_that_is_back_is_noticed_too() -> None:
    encoder = native()
    data = b"".join(encoder.encode(cursor, Token("a")) for cursor in (None, None, Cursor(0, 3), Cursor(0, 4)))
    notices = [frame.json() for frame in decode(data) if frame.event == "notice"]
    assert notices == [{"resumable": False}, {"resumable": True}]


def test_a_farewell_says_why_and_when_to_come_back() -> None:
    assert native().farewell("drain", 250) == (
        b'retry: 250\nevent: reconnect\ndata: {"reason":"drain","retry_ms":250}\n\n'
    )
    (frame,) = decode(native().farewell("max_age", 999))
    assert (frame.retry, frame.id) == (999, "")


def test_a_heartbeat_is_a_comment() -> None:
    decoder = SSEDecoder()
    assert decoder.feed(native().heartbeat) == []
    assert decoder.comments == [" ping"]
    assert decoder.pending == ""


def test_a_stream_is_chunks_and_the_done_mark() -> None:
    chunk = '{"id":"chatcmpl-s1","object":"chat.completion.chunk","created":1790000000,"model":"m","choices":'
    assert encoded(openai(), Token("Hé", index=1), DONE).decode() == (
        f'data: {chunk}[{{"index":0,"delta":{{"role":"assistant","content":""}},"finish_reason":null}}]}}\n\n'
        f'data: {chunk}[{{"index":0,"delta":{{"content":"Hé"}},"finish_reason":null}}]}}\n\n'
        f'data: {chunk}[{{"index":0,"delta":{{}},"finish_reason":"stop"}}]}}\n\n'
        "data: [DONE]\n\n"
    )


def test_the_role_comes_in_the_first_chunk_only() -> None:
    said = deltas(encoded(openai(), Token("a"), Token("b"), DONE))
    assert said == [{"role": "assistant", "content": ""}, {"content": "a"}, {"content": "b"}, {}]


def test_an_empty_answer_still_has_a_role() -> None:
    assert deltas(encoded(openai(), DONE)) == [{"role": "assistant", "content": ""}, {}]


def test_usage_is_not_told_unless_asked_for() -> None:
    assert b"usage" not in encoded(openai(), Token("a"), DONE)


def test_usage_comes_in_a_chunk_of_its_own_before_the_done_mark() -> None:
    *chunks, usage, mark = decode(encoded(openai(include_usage=True), Token("a"), DONE))
    assert mark.data == "[DONE]"
    assert usage.json()["choices"] == []
    assert usage.json()["usage"] == {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    assert [chunk.json()["usage"] for chunk in chunks] == [None, None, None]


def test_thoughts_come_as_reasoning_content() -> None:
    assert deltas(encoded(openai(), Token("Hm", kind="thought")))[1:] == [{"reasoning_content": "Hm"}]


def test_tool_calls_come_as_the_deltas_they_are() -> None:
    call = {"index": 0, "id": "c1", "function": {"name": "f", "arguments": "{"}}
    assert deltas(encoded(openai(), CALL))[1:] == [{"tool_calls": [call]}]


def test_the_done_mark_does_not_follow_an_error() -> None:
    data = encoded(openai(include_usage=True), Token("a"), FAILED)
    assert b"[DONE]" not in data
    assert decode(data)[-1].json() == {
        "error": {
            "message": "The upstream stopped.",
            "type": "server_error",
            "param": None,
            "code": "upstream_stalled",
        }
    }


def test_an_error_at_once_comes_without_an_opening_chunk() -> None:
    (frame,) = decode(openai().encode(AT, FAILED))
    assert list(frame.json()) == ["error"]


def test_a_reset_is_an_error_where_tokens_cannot_be_taken_back() -> None:
    data = encoded(openai(), Token("a"), Reset("failover"))
    assert b"[DONE]" not in data
    assert decode(data)[-1].json()["error"]["code"] == "stream_reset"


def test_a_farewell_is_an_error_and_not_the_done_mark() -> None:
    """The SDK would take what it has for the whole answer."""
    data = openai().farewell("drain", 250)
    assert b"[DONE]" not in data
    (frame,) = decode(data)
    assert frame.json() == {"error": openai_error(SHUTTING_DOWN)}
    assert (frame.id, frame.retry) == ("", None)


def test_a_heartbeat_has_no_blank_line() -> None:
    """With one, the SDK takes it for an event without data and fails."""
    assert openai().heartbeat == b": ping\n"


def test_heartbeats_between_events_change_nothing() -> None:
    encoder = openai()
    data = encoder.heartbeat + encoded(encoder, Token("a")) + encoder.heartbeat * 2 + encoded(encoder, DONE)
    assert decode(data) == decode(encoded(openai(), Token("a"), DONE))


@pytest.mark.parametrize("include_usage", [False, True])
def test_no_frame_has_an_id_or_a_name(include_usage: bool) -> None:
    frames = decode(encoded(openai(include_usage), Token("a\nid: 5\nevent: x\n\n"), CALL, DONE))
    assert {(frame.id, frame.event) for frame in frames} == {("", "message")}


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (429, "rate_limit_error"),
        (500, "server_error"),
        (503, "server_error"),
    ],
)
def test_an_error_has_the_type_of_its_status(status: int, kind: str) -> None:
    assert openai_error(Failed("c", "m", status, retryable=False))["type"] == kind


@given(text=TEXT, index=st.integers(0, 10**9))
@example(text="x\n\nevent: done\ndata: {}\n\n", index=1)
@example(text="a\rdata: b\r\rid: 1", index=1)
def test_a_native_token_round_trips_as_exactly_one_event(text: str, index: int) -> None:
    data = native().encode(AT, Token(text, index=index))
    (frame,) = decode(data)
    assert frame == Frame(frame.data, "token", id=f"{STREAM}.0.7")
    assert frame.json() == {"type": "content", "token": text, "index": index}
    assert_no_other_line_ends(data, lines=4)


@given(text=TEXT, kind=st.sampled_from(["content", "thought"]))
def test_an_openai_token_round_trips_as_exactly_one_event(text: str, kind: str) -> None:
    encoder = openai()
    encoder.encode(AT, Token("first"))
    data = encoder.encode(AT, Token(text, kind="thought" if kind == "thought" else "content"))
    (frame,) = decode(data)
    assert frame == Frame(frame.data)
    assert list(frame.json()["choices"][0]["delta"].values()) == [text]
    assert_no_other_line_ends(data, lines=2)


@given(text=TEXT)
def test_a_tool_call_round_trips_as_exactly_one_event(text: str) -> None:
    call = Token(json.dumps([{"index": 0, "function": {"arguments": text}}]), kind="tool_call")
    for encoder, lines in ((native(), 4), (openai(), 4)):
        data = encoder.encode(AT, call)
        assert arguments(data) == text
        assert_no_other_line_ends(data, lines)


@given(text=TEXT, model=TEXT)
def test_no_error_or_end_can_carry_a_forged_event(text: str, model: str) -> None:
    for terminal in (Failed("c", text, 502, retryable=True), Done(text, Usage(1, 1))):
        assert len(decode(NativeEncoder(STREAM, model).encode(START, terminal))) == 1
        frames = decode(OpenAIEncoder("i", model, 1, include_usage=False).encode(AT, terminal))
        assert len(frames) == (1 if isinstance(terminal, Failed) else 3)


@given(text=st.text(alphabet='a"\ud800\udbff\udc00\udfff\u2028\x00水🌊'))
def test_a_stream_survives_text_that_no_utf_8_can_carry(text: str) -> None:
    (frame,) = decode(native().encode(AT, Token(text)))
    told = frame.json()["token"]
    assert told == text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@given(data=st.lists(TEXT, max_size=5), cuts=st.lists(st.integers(0, 400), max_size=8))
def test_events_are_the_same_however_the_network_cuts_them(data: list[str], cuts: list[int]) -> None:
    stream = encoded(native(), *[Token(text) for text in data], DONE)
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    decoder = SSEDecoder()
    for begin, end in pairwise(edges):
        decoder.feed(stream[begin:end])
    assert decoder.frames == decode(stream)


def arguments(data: bytes) -> str:
    """The tool call's arguments, from either surface."""
    payload = decode(data)[-1].json()
    calls = json.loads(payload["token"]) if "token" in payload else payload["choices"][0]["delta"]["tool_calls"]
    return str(calls[0]["function"]["arguments"])


def assert_no_other_line_ends(data: bytes, lines: int) -> None:
    """Readers that split by their language's idea of a line see the same lines as the standard does."""
    for raw in ("\u2028", "\u2029", "\x85"):
        assert raw.encode() not in data
    assert len(data.decode().splitlines()) == lines
