"""An answer of OpenAI's chat completions, from its bytes to tokens: no network, no waiting.

The protocol as its many servers speak it: endings with and without `[DONE]` or a finish_reason, errors and plain JSON
under status 200, comments and role chunks before the first token.
"""

import json

from app.events import Token, Usage
from app.providers.answer_stream import AnswerStream, invalid, text
from app.providers.chunk_frame import ChunkFrame
from app.providers.openai_chunks import Choice, Chunk, UsageCount, decode, given
from app.providers.rejection import Rejections
from app.providers.sse_parser import SSEEvent


class ChatStream(AnswerStream):
    """The state of one answer; complete at `[DONE]`."""

    _counted: UsageCount | None = None

    def __init__(self, rejections: Rejections, content_type: str) -> None:
        super().__init__(rejections, content_type)
        self._frame = ChunkFrame()

    def plain(self, data: bytes) -> list[str]:
        if not self._parser.between or not data.startswith(b"data: "):
            return []
        end = b"\n\n" if data.endswith(b"\n\n") else b"\r\n\r\n"
        if data.find(end) == len(data) - len(end):  # one event, nearly always
            text = self._frame.text(data[6 : -len(end)])
            return [text] if text else []
        if not data.endswith(end):
            return []
        texts = []
        for payload in data[6 : -len(end)].split(end + b"data: "):
            text = self._frame.text(payload)
            if not text:
                return []
            texts.append(text)
        return texts

    def _event(self, event: SSEEvent, tokens: list[Token]) -> None:
        if event.data == b"[DONE]":
            self.complete = True
        elif event.event == "error":
            raise self._rejections.of_event(event.data)
        elif event.data:
            self._chunk(event.data, tokens)

    def _chunk(self, data: bytes, tokens: list[Token]) -> Chunk:
        chunk = decode(data)
        if chunk.choices:
            for choice in chunk.choices:
                if not choice.index:  # others are answers that nobody asked for
                    self._choice(choice, tokens)
        elif chunk.object == "error":
            raise self._rejections.of_event(data)
        if chunk.usage is not None:
            self._counted = chunk.usage
        if given(chunk.error):
            raise self._rejections.of_event(data)
        return chunk

    def _choice(self, choice: Choice, tokens: list[Token]) -> None:
        delta = choice.delta or choice.message
        if delta is not None:
            if thought := delta.reasoning_content or delta.reasoning:
                tokens.append(Token(thought, "thought"))
            if delta.content:
                self.content_tokens += 1
                tokens.append(Token(delta.content))
            if calls := given(delta.tool_calls):
                tokens.append(Token(text(calls), "tool_call"))
        if choice.finish_reason:
            self.finish_reason = choice.finish_reason

    def _whole(self, body: bytes, tokens: list[Token]) -> None:
        """An answer that is one JSON object: an error, or a completion whose text is one token."""
        chunk = self._chunk(body, tokens)
        if not chunk.choices:
            raise invalid(f"JSON without choices: {body[:200]!r}")
        tokens[:] = [_indexed(token) if token.kind == "tool_call" else token for token in tokens]

    def _usage(self) -> Usage:
        counted = self._counted or UsageCount()
        return Usage(counted.prompt_tokens or 0, counted.completion_tokens or 0)


def _indexed(token: Token) -> Token:
    """The tool calls of a whole message as a delta: there each has its index."""
    calls = json.loads(token.text)
    return Token(json.dumps([{"index": at, **call} for at, call in enumerate(calls)]), token.kind)
