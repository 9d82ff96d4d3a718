"""An upstream that answers a POST with a stream of events: what is the same whatever its protocol."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from functools import partial
from typing import Any, ClassVar
from urllib.parse import urlsplit

import msgspec

from app.errors import InvalidRequest, UpstreamError, UpstreamInvalid, UpstreamStalled, UpstreamTruncated
from app.events import Done, Token
from app.providers.answer_stream import AnswerStream
from app.providers.base import GenerationRequest, Pour
from app.providers.own_terms import ANTHROPIC_BETA, ANTHROPIC_MARK
from app.providers.rejection import Rejections
from app.providers.upstream import Answer, Upstream
from app.providers.watch import Watch

ERROR_BYTES_MAX = 64 * 1024  # of an error's body: its message is at the front
ERROR_SECONDS = 2  # for that body: the status alone is an answer too
# After a finish_reason the text is complete, and the upstream owes no more than its usage and its last event.
FINISH_SECONDS = 2


class StreamingProvider(ABC):
    """One upstream; implements `Provider`.

    Args:
        base_url: up to and including the version, as `https://host/v1`.
        model: the upstream's name of the model; None passes the caller's on.
        api_key: sent where there is one.

    The other arguments are `Upstream`'s.
    """

    path: ClassVar[str]
    stream: ClassVar[type[AnswerStream]]

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
        self._url = base_url.rstrip("/") + self.path
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

    async def generate(
        self, request: GenerationRequest, pour: Pour | None = None
    ) -> AsyncGenerator[Token | Done, None]:
        """The answer's tokens and its `Done`.

        Raises:
            InvalidRequest: the request has what the upstream's protocol cannot say.
            UpstreamError: any other end, by its reason.
        """
        answer = await self._upstream.post(self._url, self._headers(request), _encoded(self._body(request)))
        complete = False
        try:
            if answer.status >= 300:
                raise await self._refusal(answer)
            stream = self.stream(self._rejections, answer.headers.get("Content-Type", ""))
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
                    if pour is not None:
                        answer.offer(partial(_poured, stream, answer.watch, pour))
                        pour = None
                stream.check()
            complete = True
            yield stream.done(request.messages)
        finally:
            await answer.end(complete=complete)

    async def aclose(self) -> None:
        """Close the connections to the upstream."""
        await self._upstream.aclose()

    @abstractmethod
    def _body(self, request: GenerationRequest) -> dict[str, Any]:
        """The request as the upstream takes it."""

    @abstractmethod
    def _own_headers(self, request: GenerationRequest) -> dict[str, str]:
        """The headers of the protocol: who asks, and in which version of it."""

    def _headers(self, request: GenerationRequest) -> dict[str, str]:
        headers = {name.lower(): value for name, value in request.headers.items()}
        for name in (ANTHROPIC_MARK, ANTHROPIC_BETA):
            headers.pop(name, None)  # of a surface; a provider that speaks that protocol has its own
        headers["content-type"] = "application/json"
        headers["accept"] = "text/event-stream"
        headers["accept-encoding"] = "identity"  # a compressor holds tokens back until its block is full
        return headers | self._own_headers(request)

    async def _refusal(self, answer: Answer) -> UpstreamError:
        body = await answer.read_all(ERROR_BYTES_MAX, ERROR_SECONDS)
        if answer.status < 400:
            # Not followed: the key would go wherever the upstream points.
            return UpstreamInvalid("The upstream did not answer.", detail=f"redirect, status {answer.status}")
        return self._rejections.of_answer(answer.status, answer.headers, body)


def _poured(stream: AnswerStream, watch: Watch, pour: Pour, data: bytes) -> bool:
    """Whether `data` could be passed on as it came: nearly all of an answer can."""
    texts = stream.plain(data)
    if not texts or not pour(texts):
        return False
    stream.content_tokens += len(texts)
    watch.resume()
    return True


def _encoded(body: dict[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(body)
    except UnicodeEncodeError:
        raise InvalidRequest("The messages hold characters that are not Unicode text.") from None


async def _next(answer: Answer, stream: AnswerStream) -> bytes:
    """The next bytes; none at the end, or where all but the end has come."""
    if stream.finish_reason is None:
        return await answer.read()
    answer.watch.hurry(FINISH_SECONDS)
    try:
        return await answer.read()
    except (UpstreamTruncated, UpstreamStalled):
        return b""
