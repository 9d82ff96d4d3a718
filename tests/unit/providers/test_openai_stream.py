"""From the bytes of an answer to tokens, without a network."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import UpstreamError, UpstreamInvalid, UpstreamRejected, UpstreamTruncated
from app.events import Done, Token, Usage
from app.providers.openai_stream import ChatStream
from app.providers.rejection import Rejections

DONE = b"data: [DONE]\n\n"


def chunk(delta: Any, finish_reason: str | None = None, **fields: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    payload = {"id": "c", "object": "chat.completion.chunk", "choices": [choice], **fields}
    return f"data: {json.dumps(payload, ensure_ascii=False)}\n\n".encode()


def say(text: str) -> bytes:
    return chunk({"content": text})


def run(*pieces: bytes, content_type: str = "text/event-stream") -> tuple[list[Token], Done]:
    """The tokens and the end of an answer that arrives in these pieces."""
    stream = ChatStream(Rejections("host:1", None), content_type)
    tokens = []
    for piece in pieces:
        tokens += stream.feed(piece)
        stream.check()
        if stream.complete:
            break
    else:
        tokens += stream.end()
    return tokens, stream.done([{"role": "user", "content": "three plain words"}])


PIECES = [
    say("one"),
    say("two") + say("three"),
    say("\u2028 é"),
    say(""),
    say("four").replace(b"\n\n", b"\r\n\r\n"),
    say("five").replace(b'"choices"', b'\n"choices"'),
    b": ping\n\n",
    b"\n",
    b"data: ",
    chunk({"role": "assistant", "content": ""}),
    chunk({"content": "six", "tool_calls": None}, usage=None, error=None),
    chunk({"reasoning_content": "hm"}),
    chunk({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}),
    chunk({"content": "last"}, "stop"),
    chunk({"content": "x"}, usage={"prompt_tokens": 1, "completion_tokens": 2}),
    b'data: {"error":{"message":"no"}}\n\n',
    b"data: no json\n\n",
    DONE,
]


@given(pieces=st.lists(st.sampled_from(PIECES), max_size=12), cuts=st.lists(st.integers(1, 40), max_size=4))
def test_what_is_taken_as_plain_is_what_would_have_been_read(pieces: list[bytes], cuts: list[int]) -> None:
    if pieces:
        pieces = [part for piece in pieces for part in _cut(piece, cuts)]

    def read(plainly: bool) -> tuple[list[Token], int, str]:
        stream = ChatStream(Rejections("host:1", None), "text/event-stream")
        tokens: list[Token] = []
        try:
            for piece in pieces:
                plain = stream.plain(piece) if plainly else []
                stream.content_tokens += len(plain)
                tokens += map(Token, plain) if plain else stream.feed(piece)
                stream.check()
                if stream.complete:
                    break
            else:
                tokens += stream.end()
        except UpstreamError as error:
            return tokens, stream.content_tokens, repr(error)
        return tokens, stream.content_tokens, repr(stream.done([]))

    assert read(plainly=True) == read(plainly=False)


def _cut(piece: bytes, cuts: list[int]) -> list[bytes]:
    at = next((cut for cut in cuts if cut < len(piece)), None)
    return [piece] if at is None or len(piece) % 3 else [piece[:at], piece[at:]]


def test_events_of_content_are_plain_in_either_line_ending() -> None:
    stream = ChatStream(Rejections("host:1", None), "text/event-stream")
    assert stream.plain(say("a")) == []  # nothing is known of what came before the first event
    assert content(stream.feed(say("a"))) == ["a"]
    assert stream.plain(say("b") + say("c")) == ["b", "c"]
    assert stream.plain(say("d").replace(b"\n\n", b"\r\n\r\n")) == ["d"]


def content(tokens: list[Token]) -> list[str]:
    return [token.text for token in tokens if token.kind == "content"]


def test_role_chunks_empty_content_nulls_and_comments_are_no_tokens() -> None:
    tokens, done = run(
        b": ping\n\n",
        chunk({"role": "assistant", "content": ""}),
        chunk({"role": "assistant", "content": None, "reasoning_content": None, "tool_calls": None}),
        chunk({"content": "", "tool_calls": []}),
        chunk(None),
        chunk({}),
        chunk({}, choices=[]),
        chunk({}, choices=None),
        b'data: {"type": "ping"}\n\n',
        b"event: ping\ndata: {}\n\n",
        b"data:\n\n",
        say("a"),
        chunk({}, "stop"),
        DONE,
    )
    assert tokens == [Token("a")]
    assert done.finish_reason == "stop"


def test_thoughts_and_tool_calls_are_tokens_of_their_own_kinds() -> None:
    calls: list[list[dict[str, Any]]] = [
        [{"index": 0, "id": "call_1", "function": {"name": "f", "arguments": ""}}],
        [{"index": 0, "function": {"arguments": '{"é":"\u2028"}'}}],
    ]
    tokens, done = run(
        chunk({"reasoning_content": "hm"}),
        chunk({"reasoning": "mh"}),
        say("a"),
        *(chunk({"tool_calls": call}) for call in calls),
        chunk({}, "tool_calls"),
        DONE,
    )
    assert tokens[:3] == [Token("hm", "thought"), Token("mh", "thought"), Token("a")]
    assert [token.kind for token in tokens[3:]] == ["tool_call"] * 2
    assert [json.loads(token.text) for token in tokens[3:]] == calls
    assert done.finish_reason == "tool_calls"


def test_other_choices_than_the_first_are_ignored() -> None:
    second = {"index": 1, "delta": {"content": "no"}, "finish_reason": "length"}
    first = {"index": 0, "delta": {"content": "yes"}}
    tokens, done = run(chunk({}, choices=[second]), chunk({}, choices=[second, first]), chunk({}, "stop"), DONE)
    assert content(tokens) == ["yes"]
    assert done.finish_reason == "stop"


@pytest.mark.parametrize(
    ("ending", "finish_reason"),
    [
        (DONE, "stop"),
        (chunk({}, "length"), "length"),
        (chunk({}, "length") + DONE, "length"),
        (chunk({}, None) + DONE, "stop"),
        (chunk({"content": ""}, "content_filter") + b": bye\n\n", "content_filter"),
    ],
    ids=["DONE only", "finish only", "finish and DONE", "null and DONE", "finish with a delta"],
)
def test_an_answer_is_complete_by_done_or_by_a_finish_reason(ending: bytes, finish_reason: str) -> None:
    tokens, done = run(say("a"), say("b"), ending)
    assert content(tokens) == ["a", "b"]
    assert done.finish_reason == finish_reason


@pytest.mark.parametrize(
    "rest", [b"", b"data: [DONE]", b"data: [DONE]\n", b'data: {"choices":[{"finish_reason":"stop"}]}\n']
)
def test_an_answer_without_either_is_truncated(rest: bytes) -> None:
    with pytest.raises(UpstreamTruncated):
        run(say("a"), rest)


def test_an_empty_answer_is_truncated() -> None:
    with pytest.raises(UpstreamTruncated):
        run()


def test_usage_is_the_upstreams_where_it_counts() -> None:
    usage = {"prompt_tokens": 11, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 3}}
    _, done = run(say("a"), chunk({}, "stop"), chunk({}, choices=[], usage=usage), DONE)
    assert done.usage == Usage(11, 5)


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": None, "completion_tokens": 0}])
def test_usage_is_counted_where_the_upstream_does_not(usage: Any) -> None:
    _, done = run(chunk({"reasoning": "hm"}), say("a"), say("b"), chunk({}, "stop", usage=usage), DONE)
    assert done.usage == Usage(input_tokens=3, output_tokens=2)


TEXTS = [
    "漢字",
    "🙂🙃",
    "e\u0301",
    "a\u2028b\u2029c\u0085d\x0be\x1cf",
    "\n\ndata: [DONE]\n\n",
    "\revent: error\r\r",
    "\0",
    '"\\',
]


def test_text_survives_every_split() -> None:
    whole = b"\xef\xbb\xbf" + b"".join(say(text) for text in TEXTS) + chunk({}, "stop") + DONE
    for cut in range(len(whole)):
        assert content(run(whole[:cut], whole[cut:])[0]) == TEXTS
    assert content(run(*(bytes([byte]) for byte in whole))[0]) == TEXTS


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), max_size=6))
def test_any_text_is_exactly_the_tokens_that_were_sent(texts: list[str]) -> None:
    assert content(run(b"".join(map(say, texts)) + DONE)[0]) == texts


@pytest.mark.parametrize(
    "head", [b"ev", b"event:", b":", b"\n", b"\r\n\r\n", b"\xef", b"\xef\xbb\xbf", b"d", b"data", b": {"]
)
def test_a_first_read_of_a_few_bytes_decides_nothing_wrong(head: bytes) -> None:
    rest = {
        b"ev": b"ent: message\n",
        b"event:": b" message\n",
        b":": b" ping\n\n",
        b"\xef": b"\xbb\xbf",
        b": {": b"\n\n",
    }
    whole = head + rest.get(head, b"") + say("a") + DONE
    if head in {b"d", b"data"}:
        whole = say("a") + DONE
    assert content(run(head, whole[len(head) :])[0]) == ["a"]


ERRORS = {
    "an error chunk": (b'data: {"error": {"message": "too many", "code": 429}}\n\n', 429, "too many"),
    "an error chunk with choices": (b'data: {"choices": [], "error": {"message": "no"}}\n\n', 502, "no"),
    "an error as text": (b'data: {"error": "no"}\n\n', 502, "no"),
    "an error event": (b'event: error\ndata: {"message": "no", "status": 503}\n\n', 503, "no"),
    "an error event of text": (b"event: error\ndata: sorry\n\n", 502, "The upstream answered with status 502."),
    "an error object": (b'data: {"object": "error", "message": "too long", "code": 400}\n\n', 400, "too long"),
    "a JSON body": (b'{"error": {"message": "bad", "code": "400"}}', 400, "bad"),
    "a JSON body with a code of words": (b'{"error": {"message": "bad", "code": "invalid_api_thing"}}', 502, "bad"),
    "a JSON error object": (b' \n{"object": "error", "message": "bad", "code": 422}', 422, "bad"),
}


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize(
    "before", [b"", b": ping\n\n", chunk({"role": "assistant", "content": ""}), chunk({}, choices=[])]
)
def test_an_error_under_status_200_is_a_rejection(name: str, before: bytes) -> None:
    frame, status, message = ERRORS[name]
    if frame.lstrip()[:1] == b"{":
        before = b" " if before else b""  # nothing else may come before a JSON body
    for pieces in ([before + frame], [before, frame], [bytes([byte]) for byte in before + frame]):
        with pytest.raises(UpstreamRejected) as caught:
            run(*pieces)
        assert (caught.value.status, caught.value.message) == (status, message)


def test_tokens_before_an_error_in_the_same_read_are_delivered() -> None:
    stream = ChatStream(Rejections("host:1", None), "text/event-stream")
    assert content(stream.feed(say("a") + b'data: {"error": {"message": "no"}}\n\n')) == ["a"]
    with pytest.raises(UpstreamRejected):
        stream.check()


def test_a_null_error_is_none() -> None:
    assert content(run(chunk({"content": "a"}, error=None), DONE)[0]) == ["a"]


def test_a_plain_completion_is_one_token_and_its_end() -> None:
    message = {"role": "assistant", "content": "whole text", "tool_calls": [{"id": "x", "function": {"name": "f"}}]}
    body = {
        "choices": [{"index": 0, "message": message, "finish_reason": "length"}],
        "usage": {"prompt_tokens": 4, "completion_tokens": 2},
    }
    data = json.dumps(body).encode()
    for pieces in ([data], [bytes([byte]) for byte in data]):
        tokens, done = run(*pieces, content_type="application/json")
        assert tokens[0] == Token("whole text")
        assert json.loads(tokens[1].text) == [{"index": 0, "id": "x", "function": {"name": "f"}}]
        assert done == Done("length", Usage(4, 2))


@pytest.mark.parametrize(
    "body",
    [
        b"<!doctype html><html></html>",
        b"  <html>",
        b"It works!",
        b"",
        b"{",
        b'{"choices": []}',
        b'{"hello": 1}',
        b"\x1f\x8b\x08\x00 not a stream",
        b"data: not JSON\n\n",
        b"data: [1]\n\n",
        b'data: {"choices": [{"delta": {"content": 5}}]}\n\n',
        b'data: {"choices": [{"delta": {"content": "\xff"}}]}\n\n',
        b'data: {"choices": [{"delta": {"tool_calls": ["\xff"]}}]}\n\n',
    ],
)
def test_what_is_not_the_protocol_is_invalid(body: bytes) -> None:
    with pytest.raises(UpstreamInvalid):
        run(body, content_type="text/plain")


def test_a_giant_body_that_is_no_stream_is_refused() -> None:
    with pytest.raises(UpstreamInvalid):
        run(b'{"choices": "', *[b"x" * 65_536] * 1024)


@given(st.lists(st.binary(max_size=60), max_size=8))
def test_no_bytes_raise_anything_but_an_upstream_error(pieces: list[bytes]) -> None:
    with pytest.raises(UpstreamError):
        run(b'data: {"choices":', *pieces)
