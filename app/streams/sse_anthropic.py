"""Events to bytes as Anthropic's Messages API streams them, and to its whole message. Pure.

Tokens become content blocks: one that is open takes what is of its kind, anything else begins another.
"""

from typing import Any

import msgspec

from app.errors import UpstreamInvalid
from app.events import Done, Event, Failed, Reset, Token
from app.streams.answer import Answer
from app.streams.log import Cursor
from app.streams.sse import FAREWELLS, RESTARTED, SHUTTING_DOWN, json_bytes, sse

STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
# https://docs.anthropic.com/en/api/errors
ERROR_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_DELTA = b'event: content_block_delta\ndata: {"type":"content_block_delta",'
_decode = msgspec.json.Decoder().decode
_DELTAS = {
    "content": (b'"text_delta","text":', {"type": "text", "text": ""}),
    "thought": (b'"thinking_delta","thinking":', {"type": "thinking", "thinking": "", "signature": ""}),
}


class AnthropicEncoder:
    """`message_start`, content blocks, `message_delta`, `message_stop`; heartbeats are `ping`.

    Args:
        signed: the thoughts' signatures may come with a tool call, behind the text that follows the thoughts. Their
            block is kept open for them, beside the text's: a client sends signed thoughts back with the tools' results.
    """

    heartbeat = sse("ping", {"type": "ping"})

    def __init__(self, message_id: str, model: str, signed: bool = False) -> None:
        self._message = {"id": message_id, "type": "message", "role": "assistant", "model": model, "content": []}
        self._signed = signed
        self._opened = False
        self._blocks = 0
        self._kind = ""
        self._head = b""
        self._current: int | None = None
        self._thoughts: list[int] = []  # blocks of thoughts that are kept open
        self._calls: dict[int, int] = {}  # the blocks of tool calls, by the calls' own index

    def farewell(self, reason: str, retry_ms: int) -> bytes:
        # Never message_stop: the SDK would take what it has for the whole answer.
        del retry_ms
        return _error(FAREWELLS.get(reason, SHUTTING_DOWN))

    def encode(self, cursor: Cursor | None, event: Event) -> bytes:
        del cursor
        opening = b"" if self._opened else self._open()
        if type(event) is Token:
            if event.kind == "tool_call":
                return opening + b"".join([self._call(delta) for delta in _decode(event.text)])
            if event.kind != self._kind:
                opening += self._turn_to(event.kind)
            # An empty one only says where a block begins.
            return opening + self._head + json_bytes(event.text) + b"}}\n\n" if event.text else opening
        if type(event) is Done:
            return opening + self._done(event)
        # Tokens that were delivered cannot be taken back in this protocol.
        failed = RESTARTED if type(event) is Reset else event
        assert type(failed) is Failed
        return _error(failed)

    def _open(self) -> bytes:
        self._opened = True
        # Nobody has counted yet; `message_delta` brings the figures, which replace these.
        usage = {"input_tokens": 0, "output_tokens": 0}
        message = {**self._message, "stop_reason": None, "stop_sequence": None, "usage": usage}
        return sse("message_start", {"type": "message_start", "message": message})

    def _turn_to(self, kind: str) -> bytes:
        field, block = _DELTAS[kind]
        frames = self._begin(kind, block)
        # By hand, up to the text: the rest of the frame is the same for every token of the block.
        self._head = _DELTA + b'"index":%d,"delta":{"type":%s' % (self._blocks - 1, field)
        return frames

    def _begin(self, kind: str, block: dict[str, Any]) -> bytes:
        frames = self._close()
        index = self._current = self._blocks
        self._blocks += 1
        self._kind = kind
        began = {"type": "content_block_start", "index": index, "content_block": block}
        return frames + sse("content_block_start", began)

    def _close(self) -> bytes:
        """End the block that takes what comes."""
        index, kind = self._current, self._kind
        self._current, self._kind = None, ""
        if index is None:
            return b""
        if kind == "thought" and self._signed:
            self._thoughts.append(index)
            return b""
        return _stop(index)

    def _call(self, delta: dict[str, Any]) -> bytes:
        number = delta.get("index", 0)
        function = delta.get("function") or {}
        frames = b""
        if number not in self._calls:
            frames = self._close() + self._sign(signatures(delta))
            block = {"type": "tool_use", **_named(delta, f"{self._message['id']}_{number}"), "input": {}}
            frames += self._begin("tool_call", block)
            self._calls[number] = self._blocks - 1
        if arguments := function.get("arguments"):
            # By its own index also where calls are told in turns: clients add up by that.
            added = {"type": "input_json_delta", "partial_json": arguments}
            frames += _delta(self._calls[number], added)
        return frames

    def _sign(self, blocks: list[dict[str, str]]) -> bytes:
        """End the thoughts before a tool call, by what came with it."""
        frames = b""
        for block in blocks:
            if block.get("type") != "thinking":  # what the API does not let anybody read
                frames += self._begin("", block) + self._close()
            elif self._thoughts:
                index = self._thoughts.pop(0)
                signature = {"type": "signature_delta", "signature": block.get("signature", "")}
                frames += _delta(index, signature) + _stop(index)
        return frames + self._stop_thoughts()

    def _stop_thoughts(self) -> bytes:
        indices, self._thoughts = self._thoughts, []
        return b"".join([_stop(index) for index in indices])

    def _done(self, event: Done) -> bytes:
        frames = self._close() + self._stop_thoughts()
        delta = {"stop_reason": stop_reason(event, bool(self._calls)), "stop_sequence": None}
        frames += sse("message_delta", {"type": "message_delta", "delta": delta, "usage": _usage(event)})
        return frames + sse("message_stop", {"type": "message_stop"})


def anthropic_message(whole: Answer, model: str) -> dict[str, Any]:
    """The whole answer.

    Raises:
        UpstreamInvalid: a tool call's arguments are no JSON object.
    """
    calls = whole.tool_calls
    proofs = [proof for call in calls for proof in signatures(call)]
    content: list[dict[str, Any]] = []
    if whole.thoughts and not any(proof.get("type") == "thinking" for proof in proofs):
        content.append({"type": "thinking", "thinking": whole.thoughts, "signature": ""})
    content += proofs
    if whole.text:
        content.append({"type": "text", "text": whole.text})
    message_id = f"msg_{whole.stream_id}"
    for number, call in enumerate(calls):
        content.append({"type": "tool_use", **_named(call, f"{message_id}_{number}"), "input": _input(call)})
    return {
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": stop_reason(whole.done, bool(calls)),
        "stop_sequence": None,
        "usage": _usage(whole.done),
    }


def stop_reason(done: Done, called: bool) -> str:
    """Under Anthropic's names. Some servers say `stop` behind tool calls, which the SDK's tool loops go by."""
    reason = STOP_REASONS.get(done.finish_reason, done.finish_reason)
    return "tool_use" if called and reason == "end_turn" else reason


def signatures(call: dict[str, Any]) -> list[dict[str, str]]:
    """The thinking blocks, with their signatures, that came with a tool call from an upstream of the same protocol."""
    content = call.get("extra_content")
    own = content.get("anthropic") if isinstance(content, dict) else None
    found = own.get("thinking") if isinstance(own, dict) else None
    return found if isinstance(found, list) else []


def anthropic_error(failed: Failed) -> dict[str, Any]:
    """The error object of Anthropic's API; `error_code` is what its SDK calls a stable code."""
    kind = ERROR_TYPES.get(failed.status, "api_error" if failed.status >= 500 else "invalid_request_error")
    return {"type": kind, "message": failed.message, "details": {"error_code": failed.code}}


def _usage(done: Done) -> dict[str, int]:
    return {"input_tokens": done.usage.input_tokens, "output_tokens": done.usage.output_tokens}


def _error(failed: Failed) -> bytes:
    return sse("error", {"type": "error", "error": anthropic_error(failed)})


def _delta(index: int, delta: dict[str, str]) -> bytes:
    return sse("content_block_delta", {"type": "content_block_delta", "index": index, "delta": delta})


def _stop(index: int) -> bytes:
    return sse("content_block_stop", {"type": "content_block_stop", "index": index})


def _named(call: dict[str, Any], otherwise: str) -> dict[str, str]:
    """A call's id and name; some servers send no id, and the result could not say what it answers."""
    return {"id": call.get("id") or otherwise, "name": (call.get("function") or {}).get("name") or ""}


def _input(call: dict[str, Any]) -> dict[str, Any]:
    arguments = call["function"]["arguments"]
    try:
        found = _decode(arguments.encode()) if arguments.strip() else {}
    except (msgspec.DecodeError, UnicodeEncodeError):
        found = None
    if not isinstance(found, dict):
        raise UpstreamInvalid("The upstream called a tool with what is no JSON object.", detail=arguments[:200])
    return found
