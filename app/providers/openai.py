"""Tokens from any upstream that speaks OpenAI's chat completions."""

from collections.abc import AsyncGenerator
from typing import Any
from urllib.parse import urlsplit

import msgspec

from app.errors import InvalidRequest, UpstreamError, UpstreamInvalid, UpstreamStalled, UpstreamTruncated
from app.events import Done, Token
from app.providers.base import GenerationRequest
from app.providers.openai_stream import ChatStream
from app.providers.rejection import Rejections
from app.providers.upstream import Answer, Upstream

ERROR_BYTES_MAX = 64 * 1024  # of an error's body: its message is at the front
ERROR_SECONDS = 2  # for that body: the status alone is an answer too
# After a finish_reason the text is complete, and the upstream owes no more than its usage and `[DONE]`.
FINISH_SECONDS = 2


class OpenAIProvider:
    """One upstream; implements `Provider`.

    Args:
        base_url: up to and including the version, as `https://host/v1`.
        model: the upstream's name of the model; None passes the caller's on.
        api_key: sent as bearer, where there is one.

    The other arguments are `Upstream`'s.
    """

    def __init__(
        self,
        *,
        base_url: str,
        model: str | None = None,
        api_key: str | None = None,
        connect_seconds: float = 5,
        first_token_seconds: float = 60,
        idle_seconds: float = 30,
        total_seconds: float = 600,
        concurrency_max: int = 512,
    ) -> None:
        self._url = base_url.rstrip("/") + "/chat/completions"
        self._model = model
        self._api_key = api_key
        self._rejections = Rejections(urlsplit(base_url).netloc.rpartition("@")[2], api_key)
        self._upstream = Upstream(
            connect_seconds=connect_seconds,
            first_token_seconds=first_token_seconds,
            idle_seconds=idle_seconds,
            total_seconds=total_seconds,
            concurrency_max=concurrency_max,
        )

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Token | Done, None]:
        """The answer's tokens and its `Done`.

        Raises:
            UpstreamError: any other end, by its reason.
        """
        answer = await self._upstream.post(self._url, self._headers(request), self._body(request))
        complete = False
        try:
            if answer.status >= 300:
                raise await self._refusal(answer)
            stream = ChatStream(self._rejections, answer.headers.get("Content-Type", ""))
            while not stream.complete:
                data = await _next(answer, stream)
                tokens = stream.feed(data) if data else stream.end()
                if tokens:
                    # No deadline runs and no cancel scope is open while the consumer has control: it may be slow, and
                    # it may close us from another task.
                    answer.watch.pause()
                    for token in tokens:
                        yield token
                    answer.watch.resume()
                stream.check()
            complete = True
            yield stream.done(request.messages)
        finally:
            await answer.end(complete=complete)

    async def aclose(self) -> None:
        """Close the connections to the upstream."""
        await self._upstream.aclose()

    def _headers(self, request: GenerationRequest) -> dict[str, str]:
        headers = {name.lower(): value for name, value in request.headers.items()}
        headers["content-type"] = "application/json"
        headers["accept"] = "text/event-stream"
        headers["accept-encoding"] = "identity"  # a compressor holds tokens back until its block is full
        if self._api_key:
            headers["authorization"] = f"Bearer {self._api_key}"
        return headers

    def _body(self, request: GenerationRequest) -> bytes:
        options = request.extra.get("stream_options")
        body: dict[str, Any] = {
            **request.extra,
            "model": self._model or request.model,
            "messages": request.messages,
            "stream": True,
            "stream_options": {**(options if isinstance(options, dict) else {}), "include_usage": True},
        }
        if request.max_tokens is not None:
            body["max_tokens"] = request.max_tokens
        if request.temperature is not None:
            body["temperature"] = request.temperature
        try:
            return msgspec.json.encode(body)
        except UnicodeEncodeError:
            raise InvalidRequest("The messages hold characters that are not Unicode text.") from None

    async def _refusal(self, answer: Answer) -> UpstreamError:
        body = await answer.read_all(ERROR_BYTES_MAX, ERROR_SECONDS)
        if answer.status < 400:
            # Not followed: the key would go wherever the upstream points.
            return UpstreamInvalid("The upstream did not answer.", detail=f"redirect, status {answer.status}")
        return self._rejections.of_answer(answer.status, answer.headers, body)


async def _next(answer: Answer, stream: ChatStream) -> bytes:
    """The next bytes; none at the end, or where all but the end has come."""
    if stream.finish_reason is None:
        return await answer.read()
    answer.watch.hurry(FINISH_SECONDS)
    try:
        return await answer.read()
    except (UpstreamTruncated, UpstreamStalled):
        return b""
