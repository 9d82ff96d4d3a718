"""One generation and its owner: a task drives the provider, numbers the tokens and keeps what came, whoever reads.

Producers belong to the process's lifespan and not to a request, so that an ending request cannot take one down
half-way: whoever no longer wants a generation says so by `cancel`.
"""

import asyncio
import secrets
from collections.abc import Callable, Iterator
from contextlib import aclosing
from time import monotonic

import structlog

from app.errors import Draining, Internal, LimitExceeded, SluiceError, UpstreamTruncated
from app.events import Done, Event, Failed, Token, TokenKind
from app.providers.base import GenerationRequest, Provider

log = structlog.get_logger(__name__)


class Generation:
    """The events of one stream so far, in order, and who is to be told of more.

    `events` only grows, by whole events, and its last one is a `Done` or `Failed` once `ended` is true.
    """

    def __init__(self, stream_id: str, request: GenerationRequest) -> None:
        self.stream_id = stream_id
        self.request = request
        self.events: list[Event] = []
        self.started = monotonic()
        self.first_token_seconds: float | None = None
        self.content_tokens = 0
        self.ended = False
        self._wakers: list[Callable[[], None]] = []

    def follow(self, wake: Callable[[], None]) -> None:
        """Call `wake` after every append from now on."""
        self._wakers.append(wake)

    def append(self, event: Event) -> None:
        """Add an event and wake the readers; nothing follows a terminal one."""
        if self.ended:
            return
        if type(event) is Token:
            if event.kind == "content":
                self.content_tokens += 1
                event = Token(event.text, index=self.content_tokens)
            if self.first_token_seconds is None:
                self.first_token_seconds = monotonic() - self.started
        else:
            self.ended = True
        self.events.append(event)
        for wake in self._wakers:
            wake()

    def end(self, error: SluiceError) -> None:
        """End with `error`, unless the end has come already."""
        self.append(error.as_event())

    def tokens(self, kind: TokenKind) -> Iterator[Token]:
        """The tokens of one kind so far."""
        return (event for event in self.events if type(event) is Token and event.kind == kind)

    @property
    def terminal(self) -> Done | Failed | None:
        last = self.events[-1] if self.ended else None
        return last if isinstance(last, Done | Failed) else None


class Producers:
    """All generations of this process.

    Args:
        stream_seconds_max: longest life of one generation.
        stream_bytes_max: most text that one generation may hold.
    """

    def __init__(self, stream_seconds_max: float, stream_bytes_max: int = 16 * 1024 * 1024) -> None:
        self._stream_seconds_max = stream_seconds_max
        self._stream_bytes_max = stream_bytes_max
        # Strong references: the event loop itself keeps only weak ones, and would lose running generations.
        self._running: dict[Generation, asyncio.Task[None]] = {}
        self.draining = False

    @property
    def active(self) -> int:
        return len(self._running)

    def start(self, provider: Provider, request: GenerationRequest) -> Generation:
        """Begin to generate; the result fills up by itself.

        Raises:
            Draining: the process is about to stop.
        """
        if self.draining:
            raise Draining("The server is shutting down.", retry_after_seconds=1)
        generation = Generation(secrets.token_urlsafe(18), request)
        task = asyncio.create_task(self._run(provider, generation), name=f"producer-{generation.stream_id}")
        self._running[generation] = task
        task.add_done_callback(lambda _: self._running.pop(generation))
        return generation

    def cancel(self, generation: Generation) -> None:
        """Stop the generation and its upstream now; a finished one is left as it is."""
        if task := self._running.get(generation):
            task.cancel()

    def end_all(self) -> None:
        """Let every running stream end in band, for the process must go, and start no other."""
        self.draining = True
        for generation, task in list(self._running.items()):
            generation.end(Draining("The server is shutting down.", retry_after_seconds=1))
            task.cancel()

    async def aclose(self) -> None:
        """End all and wait until their upstreams are closed."""
        self.end_all()
        if self._running:
            await asyncio.wait(self._running.values())

    async def _run(self, provider: Provider, generation: Generation) -> None:
        try:
            async with asyncio.timeout(self._stream_seconds_max):
                await self._drive(provider, generation)
        except SluiceError as error:
            if error.detail:
                log.warning("upstream failed", code=error.code, detail=error.detail, stream_id=generation.stream_id)
            generation.end(error)
        except TimeoutError:
            generation.end(LimitExceeded(f"The stream reached its {self._stream_seconds_max:g} s."))
        except Exception:
            log.exception("generation failed", stream_id=generation.stream_id)
            generation.end(Internal("The server failed."))

    async def _drive(self, provider: Provider, generation: Generation) -> None:
        bytes_left = self._stream_bytes_max
        async with aclosing(provider.generate(generation.request)) as events:
            async for event in events:
                if type(event) is Token:
                    bytes_left -= len(event.text)
                    if bytes_left < 0:
                        raise LimitExceeded(f"The stream reached its {self._stream_bytes_max} bytes.")
                    generation.append(event)
                elif type(event) is Done:
                    duration_ms = round((monotonic() - generation.started) * 1000)
                    generation.append(Done(event.finish_reason, event.usage, duration_ms))
                    return
        raise UpstreamTruncated("The upstream ended before the answer was complete.")
