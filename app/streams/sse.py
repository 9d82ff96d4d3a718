"""Events to bytes, as each surface wants them. Pure: nobody else writes `data:`.

Every payload is JSON, so no text of a model can end a frame or forge another one. U+2028, U+2029 and U+0085 are escaped
too: they are line ends to clients that split with their language's idea of a line instead of the specification's.
"""

import json
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from app.events import Done, Event, Failed, Reset, Token
from app.streams.log import Cursor, StreamRecord

SHUTTING_DOWN = Failed("server_shutting_down", "The server is shutting down; send the request again.", 503, True)
EXPIRED = Failed("token_expired", "What was shown as a credential has expired; send the request again.", 401, False)
RESTARTED = Failed("stream_reset", "The answer began again; send the request again.", 502, True)
# What ends a connection, to clients that cannot come back to its stream.
FAREWELLS = {"reauthenticate": EXPIRED}
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()
_NOT_LINE_ENDS = ((b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029"), (b"\xc2\x85", b"\\u0085"))


def json_bytes(value: Any) -> bytes:
    """`value` as JSON without any character that somebody takes for a line end."""
    try:
        encoded = _encoder.encode(value)
    except UnicodeEncodeError:
        encoded = _without_lone_surrogates(value)
    if not encoded.isascii():
        for raw, escaped in _NOT_LINE_ENDS:
            if raw in encoded:
                encoded = encoded.replace(raw, escaped)
    return encoded


def _without_lone_surrogates(value: Any) -> bytes:
    """`value` with U+FFFD for half a surrogate pair: UTF-8 carries none, and the stream would end without a word."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=msgspec.to_builtins)
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def sse(event: str | None, payload: Any) -> bytes:
    """One frame. `event` is a name of ours, never text from outside."""
    head = b"event: %s\ndata: " % event.encode() if event else b"data: "
    return head + json_bytes(payload) + b"\n\n"


class Encoder(Protocol):
    """One connection's view of a stream. Holds no more state than what it has said already."""

    heartbeat: bytes

    def encode(self, cursor: Cursor | None, event: Event) -> bytes:
        """The frames for the event at `cursor`, which is None while the log is away."""
        ...

    def farewell(self, reason: str, retry_ms: int) -> bytes:
        """The frames that end a connection before its stream has ended."""
        ...


class NativeEncoder:
    """The events of /api/v1: `token`, `done`, `error`, `reset`, and on a connection only, `reconnect` and `notice`."""

    heartbeat = b": ping\n\n"

    def __init__(self, stream_id: str, model: str, metadata: Mapping[str, str] | None = None) -> None:
        self._id = b"id: " + stream_id.encode() + b".%d.%d\n"
        self._metadata = {**(metadata or {}), "stream_id": stream_id, "model": model}
        self._resumable = True

    @classmethod
    def of(cls, record: StreamRecord) -> "NativeEncoder":
        """The stream's."""
        return cls(record.stream_id, record.request.model, record.metadata)

    def encode(self, cursor: Cursor | None, event: Event) -> bytes:
        head = b"" if cursor is None else self._id % cursor
        if (cursor is not None) is not self._resumable:
            self._resumable = not self._resumable
            head = sse("notice", {"resumable": self._resumable}) + head
        if type(event) is Token:
            # By hand: a quarter of what the encoder of a whole mapping takes, and this line runs for every token.
            return head + b'event: token\ndata: {"type":"%s","token":%s,"index":%d}\n\n' % (
                event.kind.encode(),
                json_bytes(event.text),
                event.index,
            )
        if type(event) is Done:
            return head + sse("done", self._done(event))
        if type(event) is Reset:
            return head + sse("reset", {"reason": event.reason})
        assert type(event) is Failed
        return head + sse("error", self._failed(event))

    def farewell(self, reason: str, retry_ms: int) -> bytes:
        return b"retry: %d\n" % retry_ms + sse("reconnect", {"reason": reason, "retry_ms": retry_ms})

    def _failed(self, event: Failed) -> dict[str, Any]:
        said = {"code": event.code, "message": event.message, "retryable": event.retryable, "status": event.status}
        seconds = event.retry_after_seconds
        return said if seconds is None else said | {"retry_after_seconds": seconds}

    def _done(self, event: Done) -> dict[str, Any]:
        cost = {} if event.cost is None else {"cost": event.cost}
        return {
            "done": True,
            "finish_reason": event.finish_reason,
            "usage": event.usage,
            "total_tokens": event.usage.input_tokens + event.usage.output_tokens,
            "duration_ms": event.duration_ms,
            **cost,
            "metadata": self._metadata,
        }


class OpenAIEncoder:
    """`chat.completion.chunk` events, then `[DONE]`. Never an id, and no blank line after a heartbeat.

    The openai SDK dispatches an event with no data at a blank line once it has seen an id, and fails to parse it.
    Source: openai 3.52 `_streaming.py`.
    """

    heartbeat = b": ping\n"

    def __init__(self, completion_id: str, model: str, created: int, include_usage: bool) -> None:
        common = {"id": completion_id, "object": "chat.completion.chunk", "created": created, "model": model}
        usage = b',"usage":null' if include_usage else b""
        self._head = b"data: " + json_bytes(common)[:-1] + b',"choices":[{"index":0,"delta":{'
        self._tail = b'},"finish_reason":null}]' + usage + b"}\n\n"
        self._common = common
        self._include_usage = include_usage
        self._opened = False

    def farewell(self, reason: str, retry_ms: int) -> bytes:
        # Never [DONE]: the SDK would take what it has for the whole answer.
        del retry_ms
        return sse(None, {"error": openai_error(FAREWELLS.get(reason, SHUTTING_DOWN))})

    def encode(self, cursor: Cursor | None, event: Event) -> bytes:
        del cursor
        opening = b"" if self._opened else self._head + b'"role":"assistant","content":""' + self._tail
        self._opened = True
        if type(event) is Token:
            if event.kind == "content":
                return b'%b%b"content":%b%b' % (opening, self._head, json_bytes(event.text), self._tail)
            return opening + self._head + _delta(event) + self._tail
        if type(event) is Done:
            return opening + self._done(event)
        # Tokens that were delivered cannot be taken back in this protocol.
        failed = RESTARTED if type(event) is Reset else event
        assert type(failed) is Failed
        return sse(None, {"error": openai_error(failed)})

    def _done(self, event: Done) -> bytes:
        choice = {"index": 0, "delta": {}, "finish_reason": event.finish_reason}
        last = {**self._common, "choices": [choice]}
        if not self._include_usage:
            return sse(None, last) + b"data: [DONE]\n\n"
        usage = {**self._common, "choices": [], "usage": openai_usage(event)}
        return sse(None, {**last, "usage": None}) + sse(None, usage) + b"data: [DONE]\n\n"


def _delta(token: Token) -> bytes:
    if token.kind == "thought":
        return b'"reasoning_content":' + json_bytes(token.text)
    return b'"tool_calls":' + json_bytes(_decoder.decode(token.text))


def openai_usage(done: Done) -> dict[str, int]:
    """Usage under OpenAI's names."""
    read, written = done.usage.input_tokens, done.usage.output_tokens
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def openai_error(failed: Failed) -> dict[str, Any]:
    """The error object of OpenAI's API."""
    kind = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}.get(
        failed.status, "server_error" if failed.status >= 500 else "invalid_request_error"
    )
    return {"message": failed.message, "type": kind, "param": None, "code": failed.code}
