"""One generation over the upstreams of its model: which is asked, when the next one is, and what its reader gets.

Before the first token of content or of a tool call a failure is invisible: another upstream is asked, or the same one
again. After it the model's policy says how far an answer may be rescued; where it cannot be, the failure is the end.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING

import structlog

from app.errors import InvalidRequest, SluiceError, UpstreamError, UpstreamTruncated, UpstreamUnavailable
from app.events import Done, Reset, Token, Usage
from app.observability.figures import figures
from app.observability.metrics import FAILOVERS, RESCUES, RETRIES
from app.providers.base import GenerationRequest, Pour
from app.routing.attempt import Attempt
from app.routing.bill import Bill
from app.routing.continuation import Differs, Echo, Splice
from app.routing.course import Course
from app.routing.hold import held_back
from app.routing.prefill import prefilled
from app.routing.race import first_to_speak
from app.routing.said import Said
from app.routing.target import Target
from app.routing.verdict import judge
from app.routing.ways import Readers, Way, lost

if TYPE_CHECKING:
    from app.routing.route import Route

log = structlog.get_logger(__name__)


class Attempts:
    """Made by `Route.begin`.

    Args:
        said: the content that an earlier producer of the stream delivered.
        readers: what they make of a `Reset`.
        bill: gets a line for every attempt.
    """

    def __init__(self, route: "Route", request: GenerationRequest, said: str, readers: Readers, bill: Bill) -> None:
        self._bill = bill
        self._route = route
        self._request = request
        self._readers = readers
        self._course = Course(route.order(request), route.attempts_max, route.budget)
        self._said = Said(said)
        self._ways = route.ways_after_takeover if said else route.ways
        self._failure: SluiceError | None = lost() if said else None
        self._failed_with: str | None = None
        self._pour: Pour
        # Of the attempt that runs.
        self._attempt: Attempt | None = None
        self._filter: Splice | Echo | None = None
        self._answered = False
        self._delivered = False
        self._thinks = False
        self._tokens = 0

    async def events(self, pour: Pour) -> AsyncGenerator[Token | Done | Reset, None]:
        """What the reader gets, up to a `Done`; what an upstream can pour past this goes into `pour`.

        Raises:
            SluiceError: how it ended otherwise.
        """
        self._pour = pour
        try:
            while True:
                way, target = await self._next()
                self._count(way, target)
                if way == "reset" and self._failure is not None:
                    self._said = Said()
                    yield Reset(self._failure.code)
                attempt = await self._begin(way, target)
                if attempt is None:
                    continue
                try:
                    # The way of every token: whatever is not needed for a healthy stream is in the methods.
                    async for event in attempt.events:
                        if self._filter is not None and (rest := self._finish_filter(event)) is not None:
                            yield rest
                        if type(event) is Token:
                            new = self._take(event)
                            if new is not None:
                                yield new
                        else:
                            assert type(event) is Done
                            yield self._done(event, attempt, way)
                            return
                    raise UpstreamTruncated("The upstream ended before the answer was complete.")
                except (UpstreamError, InvalidRequest, Differs) as error:
                    self._ended(attempt, error, way)
                finally:
                    attempt.item.output_tokens = self._tokens
                    attempt.text = self._said.text
                    await attempt.close()
        finally:
            # Circles: an error has the frames that it was raised through, and an attempt who pours its tokens.
            self._failure = self._attempt = None

    async def _next(self) -> tuple[Way, Target]:
        """How and where to go on.

        Raises:
            SluiceError: the failure that is the end, since nobody can.
        """
        for way in self._open_ways():
            found = self._course.next(_can_continue if way == "continue" else _any)
            if found is None:
                continue
            target, wait_seconds = found
            if wait_seconds:
                await asyncio.sleep(wait_seconds)
            self._course.go(target)
            return way, target
        raise self._failure or self._course.closed()

    def _open_ways(self) -> tuple[Way, ...]:
        if not self._said.anything:
            return ("start",)
        ways = self._ways
        if self._readers == "waiting" and "reset" not in ways:
            ways = (*ways, "reset")  # nobody has seen what it takes back
        if self._readers == "bound":
            ways = tuple(way for way in ways if way != "reset")
        # Half a tool call cannot be gone on with: its other half would be of another call.
        return tuple(way for way in ways if way == "reset") if self._said.called else ways

    def _count(self, way: Way, target: Target) -> None:
        """What kind of attempt is about to begin."""
        if way != "start":
            figures.add(RESCUES, 1, way)
        if self._failed_with is None or self._attempt is None:
            return
        if target is self._attempt.target:
            figures.add(RETRIES, 1, target.name, self._failed_with)
        else:
            figures.add(FAILOVERS, 1, self._request.model, self._failed_with)

    async def _begin(self, way: Way, target: Target) -> Attempt | None:
        """Ask an upstream; None where it has no place."""
        request = self._request
        self._filter = None
        if way == "splice":
            self._filter = Splice(self._said.text)
        elif way == "continue":
            request, given = prefilled(request, self._said.text, target.prefill)
            self._filter = None if target.prefill in {"native", "whole"} else Echo(self._said.text, given)
        self._answered = self._delivered = self._thinks = False
        self._tokens = 0
        attempt = self._attempt = Attempt(target, request, self._bill, self._poured)
        try:
            await attempt.begin()
        except UpstreamUnavailable as error:
            self._failed(attempt, error, way)
            return None
        if way in {"start", "reset"}:
            attempt = self._attempt = await self._hedged(attempt)
            if self._route.holds_back:
                pump = attempt.run_apart()
                attempt.events = held_back(pump, attempt.events, self._route.hold_tokens, self._route.hold_seconds)
        return attempt

    async def _hedged(self, attempt: Attempt) -> Attempt:
        """The attempt, or a second one that was faster."""
        percent = self._route.hedge_percentile
        patience = attempt.target.first_token_percentile(percent) if percent else None
        if patience is None:
            return attempt

        async def another() -> Attempt | None:
            found = self._course.next(lambda target: target is not attempt.target and target.gate.free)
            if found is None or found[1]:
                return None
            self._course.go(found[0])
            second = Attempt(found[0], self._request, self._bill, self._poured)
            await second.begin()
            return second

        async def failed(loser: Attempt, error: UpstreamError) -> None:
            self._failed(loser, error, "start")
            await loser.close()

        return await first_to_speak(attempt, patience, another, failed)

    def _take(self, token: Token) -> Token | None:
        """What of a token the reader gets."""
        self._tokens += 1
        if token.kind == "thought":
            # Those of another attempt would be the same thoughts once more.
            if self._said.thought and not self._thinks:
                return None
            self._said.thought = self._thinks = True
            return token
        if not self._answered:
            self._answer()
        if token.kind == "tool_call":
            self._said.called = self._delivered = True
            return token
        self._said.content_tokens += 1
        if self._filter is not None:
            new = self._filter.take(token)
            if self._filter.done:
                self._filter = None
            return self._say(new)
        self._delivered = True
        self._said.add(token.text)
        return token

    def _poured(self, attempt: Attempt, texts: Sequence[str]) -> bool:
        """The way of nearly every token of a healthy stream; whatever else has to be done for one is not done here."""
        apart = attempt is not self._attempt or attempt.pump is not None
        if apart or self._filter is not None or not self._delivered or not self._pour(texts):
            return False
        self._tokens += len(texts)
        self._said.content_tokens += len(texts)
        self._said.extend(texts)
        return True

    def _finish_filter(self, event: Token | Done) -> Token | None:
        """What was held back, where `event` shows that the text is over."""
        if type(event) is Token and event.kind != "tool_call":
            return None
        assert self._filter is not None
        rest, self._filter = self._filter.finish(), None
        return self._say(rest)

    def _say(self, token: Token | None) -> Token | None:
        if token is not None:
            self._delivered = True
            self._said.add(token.text)
        return token

    def _answer(self) -> None:
        self._answered = True
        assert self._attempt is not None
        self._attempt.answered()

    def _done(self, done: Done, attempt: Attempt, way: Way) -> Done:
        attempt.outcome, attempt.finish_reason = "ok", done.finish_reason
        attempt.item.usage = usage = done.usage
        if way == "continue" and attempt.target.prefill != "whole":
            # The upstream read what the reader counts as written.
            before = max(0, self._said.content_tokens - self._tokens)
            usage = Usage(max(0, usage.input_tokens - before), before + usage.output_tokens)
        if not self._answered:
            self._answer()
        return Done(done.finish_reason, usage, done.duration_ms, self._bill.cost)

    def _ended(self, attempt: Attempt, error: UpstreamError | InvalidRequest | Differs, way: Way) -> None:
        """Note how an attempt ended otherwise than well.

        Raises:
            UpstreamError: that is the end.
        """
        if isinstance(error, UpstreamError):
            refused = not judge(error).elsewhere and not self._delivered
            if refused and way == "continue":
                # It takes no begun message, whatever the operator thought; that is no failure of it.
                log.warning("upstream does not continue", upstream=attempt.target.name, detail=error.detail)
                self._course.forgive(attempt.target)
                self._ways = tuple(other for other in self._ways if other != way)
                return
            self._failed(attempt, error, way)
            # Of an answer that was under way it has to be told why it broke off, not that it could not be mended.
            if not judge(error).elsewhere and (self._delivered or not self._said.anything):
                raise error
        elif isinstance(error, Differs):
            log.info("upstream says something else", stream=self._bill.stream_id, upstream=attempt.target.name, way=way)
            self._ways = tuple(other for other in self._ways if other != way)
        else:
            # This upstream's protocol cannot say it; that of another may.
            self._failure = self._failure or error
            self._course.bar(attempt.target)

    def _failed(self, attempt: Attempt, error: UpstreamError, way: Way) -> None:
        verdict, target = judge(error), attempt.target
        log.warning(
            "upstream failed",
            stream=self._bill.stream_id,
            upstream=target.name,
            code=error.code,
            way=way,
            detail=error.detail,
        )
        self._course.failed(target, verdict, error.retry_after_seconds)
        attempt.failed(error.code, verdict, error.retry_after_seconds)
        self._failed_with = error.code
        if self._delivered:
            self._bill.rescued = True
            # What this attempt said is the reader's: from here on it is this failure that has to be mended.
            self._failure, self._ways = error, self._route.ways
        elif not self._said.anything and not (isinstance(error, UpstreamUnavailable) and self._failure):
            self._failure = error


def _can_continue(target: Target) -> bool:
    return target.prefill != "none"


def _any(_target: Target) -> bool:
    return True
