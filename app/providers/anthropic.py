"""Tokens from any upstream that speaks Anthropic's Messages API."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from app.events import Done, Token
from app.providers.anthropic_body import messages_body
from app.providers.anthropic_stream import MessageStream
from app.providers.base import GenerationRequest, Pour
from app.providers.own_terms import ANTHROPIC_BETA, original
from app.providers.streaming import StreamingProvider

BASE_URL = "https://api.anthropic.com/v1"
VERSION = "2023-06-01"  # the only one since; https://docs.anthropic.com/en/api/versioning


class AnthropicProvider(StreamingProvider):
    """One upstream; implements `Provider`."""

    path = "/messages"
    stream = MessageStream

    async def generate(
        self, request: GenerationRequest, pour: Pour | None = None
    ) -> AsyncGenerator[Token | Done, None]:
        # A message that is begun may not end in white space, so `_body` leaves it out: the model brings it again.
        blank = request.prefix != request.prefix.rstrip()
        async with aclosing(super().generate(request, None if blank else pour)) as events:
            async for event in events:
                if not blank or type(event) is not Token or event.kind != "content":
                    yield event
                elif rest := event.text.lstrip():
                    blank = False
                    yield Token(rest)

    def _own_headers(self, request: GenerationRequest) -> dict[str, str]:
        headers = {"anthropic-version": VERSION}
        if ANTHROPIC_BETA in request.headers:
            headers["anthropic-beta"] = request.headers[ANTHROPIC_BETA]
        if self._api_key:
            headers["x-api-key"] = self._api_key
        return headers

    def _body(self, request: GenerationRequest) -> dict[str, Any]:
        own = original(request)
        if own is None:
            body = messages_body(request)
        else:
            body = own | {"max_tokens": request.max_tokens, "messages": _signed(own["messages"])}
        body |= {"model": self._model or request.model, "stream": True}
        if request.prefix:
            body["messages"] = [*body["messages"], {"role": "assistant", "content": request.prefix.rstrip()}]
        return body


def _signed(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without thinking that nobody signed: another upstream thought it, and this one would refuse the request."""
    found = []
    for message in messages:
        content = message["content"]
        if isinstance(content, list):
            content = [b for b in content if b.get("type") != "thinking" or b.get("signature")]
        if content != []:
            found.append({**message, "content": content})
    return found
