"""One try of one upstream: its place in the queue, its word to the breaker, its line on the bill."""

from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

from msgspec.structs import replace

from app.events import Done, Token
from app.observability import tracing
from app.observability.figures import figures
from app.observability.metrics import ATTEMPTS, UPSTREAM_FIRST_TOKEN, UPSTREAM_WAIT
from app.providers.base import GenerationRequest
from app.providers.words import words
from app.routing.bill import Bill, Item
from app.routing.pump import Pump
from app.routing.target import Target
from app.routing.verdict import Verdict

if TYPE_CHECKING:
    from app.observability.genai import AttemptSpan


class Attempt:
    """`begin` it, read `events`, `close` it.

    Args:
        pour: told who pours, see `Pour`.
    """

    def __init__(
        self,
        target: Target,
        request: GenerationRequest,
        bill: Bill,
        pour: Callable[["Attempt", Sequence[str]], bool],
    ) -> None:
        self.target = target
        self.item = Item(target.name, target.price, words(request.messages))
        self.pump: Pump | None = None
        self.outcome = "given_up"
        """`ok`, or the code of the error that it failed with; until then nobody has waited for its end."""
        self.events: AsyncGenerator[Token | Done, None]
        self.finish_reason: str | None = None
        self.text: str | None = None
        """What the stream has said, once the attempt is over."""
        self._request = request
        self._pour = pour
        self._bill = bill
        self._span: AttemptSpan | None = None
        self._begun_at: float | None = None
        self._closed = False

    async def begin(self) -> None:
        """Wait for a place.

        Raises:
            UpstreamUnavailable: there is none.
        """
        asked_at = monotonic()
        try:
            await self.target.gate.enter()
        finally:
            figures.observe(UPSTREAM_WAIT, monotonic() - asked_at, self.target.name)
        self._begun_at = monotonic()
        self.target.breaker.enter(self)
        self._bill.items.append(self.item)
        self.events = self.target.provider.generate(self._traced(), partial(self._pour, self))

    def _traced(self) -> GenerationRequest:
        """The request, part of a span of this attempt where there are traces."""
        request = self._request
        span = self._span = tracing.begin_attempt(
            request.headers,
            request.messages,
            model=request.model,
            provider=self.target.protocol,
            upstream=self.target.name,
            stream=self._bill.stream_id,
        )
        return request if span is None else replace(request, headers=request.headers | span.headers)

    def run_apart(self) -> Pump:
        """Have its events come from a task of its own."""
        if self.pump is None:
            self.pump = Pump(self.events)
            self.events = self.pump.events()
        return self.pump

    def answered(self) -> None:
        """Its first token is there."""
        assert self._begun_at is not None
        self.target.breaker.answered()
        seconds = monotonic() - self._begun_at
        self.target.answered_after(seconds)
        figures.observe(UPSTREAM_FIRST_TOKEN, seconds, self.target.name)
        if self._span is not None:
            self._span.first_token(seconds)

    def failed(self, code: str, verdict: Verdict, retry_after_seconds: float | None) -> None:
        """It failed by itself."""
        self.outcome = code
        if verdict.counts:
            self.target.breaker.failed(self)
        if retry_after_seconds:
            self.target.rest(retry_after_seconds)

    async def close(self) -> None:
        """End the upstream's work, if it has not ended, and give the place back."""
        if self._closed or self._begun_at is None:
            return
        self._closed = True
        try:
            await self.events.aclose()
            if self.pump is not None:
                await self.pump.aclose()  # a generator that nobody began to read closes nothing
        finally:
            figures.add(ATTEMPTS, 1, self.target.name, self.outcome)
            if self._span is not None:
                used = self.item.counted
                self._span.end(self.outcome, used.input_tokens, used.output_tokens, self.finish_reason, self.text)
            self.target.breaker.leave(self)
            self.target.gate.leave()
