"""An answer of OpenAI's chat completions, from its bytes to tokens: no network, no waiting.

The protocol as its many servers speak it: endings with and without `[DONE]` or a finish_reason, errors and plain JSON
under status 200, comments and role chunks before the first token.
"""

import json
from typing import Any

from app.errors import UpstreamError, UpstreamTruncated
from app.events import Done, Token, Usage
from app.providers.openai_chunks import Choice, Chunk, UsageCount, decode, given, invalid
from app.providers.rejection import Rejections
from app.providers.sse_parser import BOM, SSEEvent, SSEParser

JSON_BYTES_MAX = 4 * 1024 * 1024  # of an answer that is no stream
BLANK_BYTES_MAX = 1024  # before its first byte that says something


class ChatStream:
    """The state of one answer. `feed` it with what arrives, call `end` when no more does.

    `complete` becomes true at `[DONE]`, or at an end that needs none; then `done` has the last event.
    """

    def __init__(self, rejections: Rejections, content_type: str) -> None:
        self._rejections = rejections
        self._content_type = content_type
        self._parser = SSEParser()
        self._take = self._sniff
        self._head = b""
        self._json: bytearray | None = None
        self._events_seen = False
        self._failure: UpstreamError | None = None
        self._usage: UsageCount | None = None
        self._content_tokens = 0
        self.finish_reason: str | None = None
        self.complete = False

    def feed(self, data: bytes) -> list[Token]:
        """The tokens in these bytes. A failure behind the last of them is raised by `check`, once they are delivered.

        Raises:
            UpstreamRejected: the upstream says that it failed.
            UpstreamInvalid: this is not its protocol.
        """
        return self._take(data)

    def check(self) -> None:
        """Raise the failure that came behind the tokens of the last `feed`."""
        if self._failure is not None:
            raise self._failure

    def end(self) -> list[Token]:
        """The bytes are over: complete, if the upstream had said that it is.

        Raises:
            UpstreamTruncated: it had not.
        """
        tokens: list[Token] = []
        if self._json is not None:
            self._whole(bytes(self._json), tokens)
        elif self.finish_reason is None:
            if not self._events_seen and "event-stream" not in self._content_type:
                raise invalid(f"no event in an answer of type {self._content_type[:100]!r}")
            raise UpstreamTruncated("The upstream ended before the answer was complete.")
        self.complete = True
        return tokens

    def done(self, messages: list[dict[str, Any]]) -> Done:
        """The terminal event; where the upstream counted no usage, it is counted here."""
        usage = self._usage
        if usage is None or not (usage.prompt_tokens or usage.completion_tokens):
            counted = Usage(_words(messages), self._content_tokens)
        else:
            counted = Usage(usage.prompt_tokens or 0, usage.completion_tokens or 0)
        return Done(self.finish_reason or "stop", counted)

    def _sniff(self, data: bytes) -> list[Token]:
        """Decides by the first byte that says something: content types lie, and no SSE field begins like these."""
        self._head += data
        start = self._head.removeprefix(BOM).lstrip()[:1]
        if not start and len(self._head) < BLANK_BYTES_MAX:
            return []
        data, self._head = self._head, b""
        if start == b"<":
            raise invalid(f"markup, of type {self._content_type[:100]!r}")
        if start == b"{":
            self._json = bytearray()
            self._take = self._collect
        else:
            self._take = self._events
        return self._take(data)

    def _collect(self, data: bytes) -> list[Token]:
        assert self._json is not None
        if len(self._json) + len(data) > JSON_BYTES_MAX:
            raise invalid(f"JSON over {JSON_BYTES_MAX} bytes")
        self._json += data
        return []

    def _events(self, data: bytes) -> list[Token]:
        tokens: list[Token] = []
        try:
            for event in self._parser.feed(data):
                if event.data == b"[DONE]":
                    self.complete = True
                    break
                self._event(event, tokens)
        except UpstreamError as error:
            if not tokens:
                raise
            self._failure = error
        return tokens

    def _event(self, event: SSEEvent, tokens: list[Token]) -> None:
        self._events_seen = True
        if event.event == "error":
            raise self._rejections.of_event(event.data)
        if event.data:
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
            self._usage = chunk.usage
        if given(chunk.error):
            raise self._rejections.of_event(data)
        return chunk

    def _choice(self, choice: Choice, tokens: list[Token]) -> None:
        delta = choice.delta or choice.message
        if delta is not None:
            if thought := delta.reasoning_content or delta.reasoning:
                tokens.append(Token(thought, "thought"))
            if delta.content:
                self._content_tokens += 1
                tokens.append(Token(delta.content))
            if calls := given(delta.tool_calls):
                tokens.append(Token(_text(calls), "tool_call"))
        if choice.finish_reason:
            self.finish_reason = choice.finish_reason

    def _whole(self, body: bytes, tokens: list[Token]) -> None:
        """An answer that is one JSON object: an error, or a completion whose text is one token."""
        chunk = self._chunk(body.removeprefix(BOM), tokens)
        if not chunk.choices:
            raise invalid(f"JSON without choices: {body[:200]!r}")
        tokens[:] = [_indexed(token) if token.kind == "tool_call" else token for token in tokens]


def _indexed(token: Token) -> Token:
    """The tool calls of a whole message as a delta: there each has its index."""
    calls = json.loads(token.text)
    return Token(json.dumps([{"index": at, **call} for at, call in enumerate(calls)]), token.kind)


def _words(messages: list[dict[str, Any]]) -> int:
    """About as many tokens as the request has: its words, for there is no tokenizer here."""
    count = 0
    for message in messages:
        content = message.get("content")
        parts = content if isinstance(content, list) else [{"text": content}]
        texts = (part.get("text") for part in parts if isinstance(part, dict))
        count += sum(len(text.split()) for text in texts if isinstance(text, str))
    return count


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise invalid(str(error)) from None
