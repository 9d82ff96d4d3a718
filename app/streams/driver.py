"""Drives a provider through one generation, to an end that is always said.

A taken-over stream has said something already: the provider goes on behind it, or says it all again and is compared.
"""

import asyncio
from contextlib import aclosing
from time import monotonic

import structlog

from app.errors import Internal, LimitExceeded, ProducerLost, SluiceError, UpstreamTruncated
from app.events import Done, Failed, Token
from app.providers.base import GenerationRequest, Provider
from app.streams.committer import PENDING_EVENTS_MAX, Committer
from app.streams.generation import Generation

log = structlog.get_logger(__name__)


class Driver:
    """Runs providers into generations.

    Args:
        stream_seconds_max: longest life of one generation.
        stream_bytes_max: most text that one generation may hold, in characters of it.
    """

    def __init__(self, committer: Committer, stream_seconds_max: float, stream_bytes_max: int) -> None:
        self._committer = committer
        self._stream_seconds_max = stream_seconds_max
        self._stream_bytes_max = stream_bytes_max

    async def run(self, generation: Generation, provider: Provider, resume: str) -> None:
        """Generate until the end, which is the provider's `Done` or an error."""
        deadline = asyncio.timeout(self._stream_seconds_max)
        try:
            async with deadline:
                end: Done | Failed = await self._drive(generation, provider, resume)
        except SluiceError as error:
            if error.detail:
                log.warning("upstream failed", code=error.code, detail=error.detail, stream=generation.record.stream_id)
            end = error.as_event()
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and (generation.ended or _is_cancelled()):
                # Whoever stops a generation says how it ended. An event loop that is torn down says nothing: the stream
                # has not ended, and another worker goes on with it. Any other cancellation is the provider's own.
                raise
            if isinstance(error, TimeoutError) and deadline.expired():
                end = LimitExceeded(f"The stream reached its {self._stream_seconds_max:g} s.").as_event()
            else:
                log.exception("generation failed", stream=generation.record.stream_id)
                end = Internal("The server failed.").as_event()
        self._committer.add(generation, end)

    async def _drive(self, generation: Generation, provider: Provider, resume: str) -> Done:
        request, replayed = _request(generation, resume)
        bytes_left = self._stream_bytes_max - len(generation.said)
        async with aclosing(provider.generate(request)) as events:
            async for event in events:
                if type(event) is Done:
                    if replayed.text:
                        raise ProducerLost("The upstream did not say the same again.")
                    return Done(event.finish_reason, event.usage, round((monotonic() - generation.started) * 1000))
                assert type(event) is Token
                new = replayed.beyond(event) if replayed.text else event
                if new is not None:
                    bytes_left -= len(new.text)
                    if bytes_left < 0:
                        raise LimitExceeded(f"The stream reached its {self._stream_bytes_max} bytes.")
                    self._committer.add(generation, new)
                    if generation.pending_count >= PENDING_EVENTS_MAX:
                        await self._committer.room(generation)
        raise UpstreamTruncated("The upstream ended before the answer was complete.")


def _is_cancelled() -> bool:
    """Whether somebody asked this very task to stop."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class Replayed:
    """Text that a replay has to bring again before anything in it is new."""

    def __init__(self, text: str) -> None:
        self.text = text

    def beyond(self, token: Token) -> Token | None:
        """What of `token` goes beyond the text so far.

        Raises:
            ProducerLost: the replay says something else.
        """
        if token.kind != "content":
            return None
        if self.text.startswith(token.text):
            self.text = self.text[len(token.text) :]
            return None
        if not token.text.startswith(self.text):
            raise ProducerLost("The upstream did not say the same again.")
        rest, self.text = token.text[len(self.text) :], ""
        return Token(rest)


def _request(generation: Generation, resume: str) -> tuple[GenerationRequest, Replayed]:
    request = generation.record.request
    if not generation.said:
        return request, Replayed("")
    if resume == "continue":
        return request.behind(generation.said), Replayed("")
    if resume == "replay":
        return request, Replayed(generation.said)
    raise ProducerLost("The worker that generated this died.")
