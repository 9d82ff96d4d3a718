"""Tokens from any upstream that speaks OpenAI's chat completions."""

from typing import Any

from app.providers.base import GenerationRequest
from app.providers.openai_stream import ChatStream
from app.providers.own_terms import translated
from app.providers.streaming import StreamingProvider


class OpenAIProvider(StreamingProvider):
    """One upstream; implements `Provider`.

    Args:
        usage_chunk: whether it takes `stream_options`; some servers refuse what they do not know.

    The other arguments are `StreamingProvider`'s.
    """

    path = "/chat/completions"
    stream = ChatStream

    def __init__(self, *, usage_chunk: bool = True, **common: Any) -> None:
        super().__init__(**common)
        self._usage_chunk = usage_chunk

    def _own_headers(self, request: GenerationRequest) -> dict[str, str]:
        del request
        return {"authorization": f"Bearer {self._api_key}"} if self._api_key else {}

    def _body(self, request: GenerationRequest) -> dict[str, Any]:
        extra = translated(request)
        options = extra.get("stream_options")
        body: dict[str, Any] = {
            **extra,
            "model": self._model or request.model,
            "messages": request.messages,
            "stream": True,
            "stream_options": {**(options if isinstance(options, dict) else {}), "include_usage": True},
        }
        if not self._usage_chunk:
            del body["stream_options"]
        if request.max_tokens is not None:
            body["max_tokens"] = request.max_tokens
        if request.temperature is not None:
            body["temperature"] = request.temperature
        return body
