"""An answer of Anthropic's Messages API, from its bytes to tokens: no network, no waiting.

Tool calls become OpenAI's deltas, thinking becomes thoughts. A thinking block's signature, which the API wants back
with the results of the tools, travels with the tool call that follows it, as `extra_content`.
"""

from typing import Any

import msgspec

from app.errors import UpstreamRejected
from app.events import Token, Usage
from app.providers.answer_stream import AnswerStream, invalid, text
from app.providers.anthropic_events import (
    Block,
    Delta,
    Event,
    UsageCount,
    decode_event,
    decode_message,
    error_kind,
)
from app.providers.openai_chunks import given
from app.providers.rejection import Rejections
from app.providers.sse_parser import SSEEvent

FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
# A stream that has begun has status 200: what its error would have been is in the error's type alone.
# https://docs.anthropic.com/en/api/errors
STATUSES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "conflict_error": 409,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}


class _Open:
    """A content block that has begun."""

    def __init__(self, block: Block, call: int) -> None:
        self.type = block.type
        self.call = call
        self.input = block.input
        self.arguments_came = False
        self.thinking: list[str] = []
        self.signature = ""


class MessageStream(AnswerStream):
    """The state of one answer; complete at `message_stop`."""

    def __init__(self, rejections: Rejections, content_type: str) -> None:
        super().__init__(rejections, content_type)
        self._counted = UsageCount()
        self._blocks: dict[int, _Open] = {}
        self._calls = 0
        self._proofs: list[dict[str, str]] = []  # thinking that no tool call has taken along yet

    def _event(self, event: SSEEvent, tokens: list[Token]) -> None:
        if event.event == "error":
            raise self._error(event.data)
        if not event.data:
            return
        said = decode_event(event.data)
        if said.type == "content_block_delta":
            if said.delta is not None:
                self._delta(said.index, said.delta, tokens)
        elif said.type == "content_block_start":
            if said.content_block is not None:
                self._start(said.index, said.content_block, tokens)
        elif said.type == "content_block_stop":
            self._stop(said.index, tokens)
        else:
            self._of_message(said, event.data, tokens)

    def _of_message(self, said: Event, data: bytes, tokens: list[Token]) -> None:
        if said.type == "message_start":
            if said.message is not None:
                self._count(said.message.usage)
        elif said.type == "message_delta":
            self._count(said.usage)
            if said.delta is not None:
                self._finish(said.delta.stop_reason, tokens)
        elif said.type == "message_stop":
            self.complete = True
        elif said.type == "error":
            raise self._error(data)
        # `ping`, and whatever is new: the API asks its clients to pass over events that they do not know.

    def _start(self, index: int, block: Block, tokens: list[Token]) -> None:
        opened = self._blocks[index] = _Open(block, self._calls)
        if block.type == "redacted_thinking":
            self._proofs.append({"type": block.type, "data": block.data or ""})
        elif block.type == "tool_use":
            self._calls += 1
            call: dict[str, Any] = {
                "id": block.id,
                "type": "function",
                "function": {"name": block.name or "", "arguments": ""},
            }
            if self._proofs:
                call["extra_content"] = {"anthropic": {"thinking": self._proofs}}
                self._proofs = []
            tokens.append(_call(opened.call, call))
        else:
            self._delta(index, Delta(_begun(block), block.text, block.thinking, block.signature), tokens)

    def _delta(self, index: int, delta: Delta, tokens: list[Token]) -> None:
        block = self._blocks.get(index)
        if delta.type == "text_delta":
            if delta.text:
                self.content_tokens += 1
                tokens.append(Token(delta.text))
        elif block is None:
            raise invalid(f"a {delta.type[:100]!r} without its block")
        elif delta.type == "thinking_delta":
            if delta.thinking:
                block.thinking.append(delta.thinking)
                tokens.append(Token(delta.thinking, "thought"))
            block.signature += delta.signature or ""
        elif delta.type == "signature_delta":
            block.signature += delta.signature or ""
        elif delta.type == "input_json_delta" and block.type == "tool_use" and delta.partial_json:
            block.arguments_came = True
            tokens.append(_call(block.call, {"function": {"arguments": delta.partial_json}}))

    def _stop(self, index: int, tokens: list[Token]) -> None:
        block = self._blocks.pop(index, None)
        if block is None:
            return
        if block.type == "tool_use" and not block.arguments_came:
            # A call without arguments has none here; OpenAI's has an empty object, which its clients parse.
            arguments = text(given(block.input)) or "{}"
            tokens.append(_call(block.call, {"function": {"arguments": arguments}}))
        elif block.type == "thinking" and block.signature:
            thinking = "".join(block.thinking)
            self._proofs.append({"type": "thinking", "thinking": thinking, "signature": block.signature})
            if not thinking:
                # The upstream keeps its thoughts for itself. This says where the block was: the signature comes later.
                tokens.append(Token("", "thought"))

    def _finish(self, stop_reason: str | None, tokens: list[Token]) -> None:
        for index in list(self._blocks):
            self._stop(index, tokens)
        if stop_reason:
            self.finish_reason = FINISH_REASONS.get(stop_reason, stop_reason)

    def _whole(self, body: bytes, tokens: list[Token]) -> None:
        message = decode_message(body)
        if message.type == "error":
            raise self._error(body)
        if message.content is None:
            raise invalid(f"JSON without content: {body[:200]!r}")
        for index, block in enumerate(message.content):
            self._start(index, block, tokens)
            self._stop(index, tokens)
        self._count(message.usage)
        self._finish(message.stop_reason, tokens)

    def _error(self, data: bytes) -> UpstreamRejected:
        status = STATUSES.get(error_kind(data))
        return self._rejections.of_event(data) if status is None else self._rejections.of_answer(status, {}, data)

    def _count(self, usage: UsageCount | None) -> None:
        """Later counts are totals, and leave out what has not changed."""
        for name in UsageCount.__struct_fields__:
            if usage is not None and (count := getattr(usage, name)) is not None:
                setattr(self._counted, name, count)

    def _usage(self) -> Usage:
        counted = self._counted
        cached = (counted.cache_creation_input_tokens or 0) + (counted.cache_read_input_tokens or 0)
        return Usage((counted.input_tokens or 0) + cached, counted.output_tokens or 0)


def _begun(block: Block) -> str:
    """The type of the delta that would say what the block begins with."""
    return {"text": "text_delta", "thinking": "thinking_delta"}.get(block.type, "")


def _call(index: int, delta: dict[str, Any]) -> Token:
    return Token(msgspec.json.encode([{"index": index, **delta}]).decode(), "tool_call")
