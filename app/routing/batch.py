"""A batch of prompts as one stream: each answer is a line of JSON, and one token of content.

So a batch has what every stream has: a log, a lease, a takeover, readers. Whoever takes it over reads in what was said
which prompts are answered, and answers the others; one that was half answered is asked again. A prompt that fails says
so in its line and ends nothing.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Final

import msgspec
import structlog

from app.errors import Internal, LimitExceeded, SluiceError, UpstreamTimeout
from app.events import Done, Reset, Token, TokenKind, Usage
from app.providers.base import GenerationRequest, Pour
from app.routing.bill import Bill
from app.routing.route import Resume, Route
from app.routing.ways import Readers

log = structlog.get_logger(__name__)

# The surface of the streams that are made so.
TASKS: Final = "tasks"
# Of one batch: several, since most of an answer's time is waiting; few, since a caller is told that a task is one
# stream to those who share the upstreams with him.
PROMPTS_AT_ONCE = 4
# Says that the batch has begun, before anything of it is answered.
BEGUN = Token("", kind="thought")


class Failure(msgspec.Struct, frozen=True):
    """Why there is no answer."""

    code: str
    message: str
    retryable: bool


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of one prompt; `index` is its place in the request."""

    index: int
    response: str | None = None
    finish_reason: str | None = None
    usage: Usage | None = None
    error: Failure | None = None


_line = msgspec.json.Decoder(Line)


def read_lines(said: str) -> list[Line]:
    """The lines of a batch, as far as it came."""
    # Not `splitlines`, which knows line ends that JSON may have in its text.
    return [_line.decode(line) for line in said.split("\n") if line]


class Batch:
    """What a batch's stream is made by, as a `Route` is what an ordinary one is.

    Args:
        route: of the model that answers.
        prompt_seconds_max, prompt_bytes_max: bounds of one answer.
        seconds_max: of the whole, on one worker.
        tokens_max: how many tokens all answers may have together, before more are asked for; 0: any number.
    """

    resume: Resume = "continue"

    def __init__(
        self, route: Route, prompt_seconds_max: float, prompt_bytes_max: int, seconds_max: float, tokens_max: int
    ) -> None:
        self._route = route
        self._prompt_seconds_max = route.seconds_within(prompt_seconds_max)
        self._prompt_bytes_max = prompt_bytes_max
        self._seconds_max = seconds_max
        self._tokens_max = tokens_max

    def seconds_within(self, bound: float) -> float:
        """How long it may take; the bound of single answers is not its own."""
        del bound
        return self._seconds_max

    def begin(self, request: GenerationRequest, said: str, readers: Readers, bill: Bill) -> "BatchRun":
        """See `Route.begin`."""
        del readers  # nothing that was said is ever taken back
        return BatchRun(self, request, read_lines(said), bill)

    async def answer(self, index: int, request: GenerationRequest, bill: Bill) -> Line:
        """Ask for one answer, to its end."""
        try:
            async with asyncio.timeout(self._prompt_seconds_max):
                text, done = await self._answer(request, bill)
        except TimeoutError:
            error: SluiceError = UpstreamTimeout("The upstream took too long to finish.")
        except SluiceError as failed:
            error = failed
        except Exception:
            log.exception("prompt of a batch failed", stream=bill.stream_id)
            error = Internal("The server failed.")
        else:
            return Line(index, text, done.finish_reason, done.usage)
        event = error.as_event()
        return Line(index, error=Failure(event.code, event.message, event.retryable))

    async def _answer(self, request: GenerationRequest, bill: Bill) -> tuple[str, Done]:
        texts: list[str] = []
        left = self._prompt_bytes_max

        def pour(more: Sequence[str], kind: TokenKind = "content") -> bool:
            nonlocal left
            length = sum(map(len, more))
            if length > left:
                return False
            left -= length
            if kind == "content":
                texts.extend(more)
            return True

        async with aclosing(self._route.begin(request, "", "waiting", bill).events(pour)) as events:
            async for event in events:
                if type(event) is Done:
                    return "".join(texts), event
                if type(event) is Reset:
                    texts.clear()
                elif type(event) is Token and not pour((event.text,), event.kind):
                    raise LimitExceeded(f"The answer reached its {self._prompt_bytes_max} bytes.")
        raise Internal("The server failed.", detail="an answer that ended without an end")

    @property
    def tokens_max(self) -> int:
        return self._tokens_max


class BatchRun:
    """One batch on one worker.

    Args:
        request: its messages are the prompts, each by itself, behind the system's if there is one.
        lines: what an earlier worker answered.
    """

    def __init__(self, batch: Batch, request: GenerationRequest, lines: Sequence[Line], bill: Bill) -> None:
        self._batch = batch
        self._bill = bill
        self._lines = len(lines)
        self._tokens_max = batch.tokens_max
        self._usages = [line.usage for line in lines if line.usage is not None]
        answered = {line.index for line in lines}
        system, prompts = split_prompts(request)
        self._todo = [
            (index, msgspec.structs.replace(request, messages=[*system, prompt]))
            for index, prompt in enumerate(prompts)
            if index not in answered
        ]

    async def events(self, pour: Pour) -> AsyncGenerator[Token | Done | Reset, None]:
        """A token for each prompt, in the order in which they are answered, and `Done`."""
        del pour  # there are few
        if not self._lines:
            yield BEGUN
        running: set[asyncio.Task[Line]] = set()
        todo = iter(self._todo)
        try:
            while True:
                for index, request in todo:
                    # Before each that is asked, and not behind the last: using up what was given is no fault.
                    await self._check_tokens()
                    running.add(asyncio.create_task(self._batch.answer(index, request, self._bill)))
                    if len(running) == PROMPTS_AT_ONCE:
                        break
                if not running:
                    break
                over, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for line in sorted((task.result() for task in over), key=lambda line: line.index):
                    if line.usage is not None:
                        self._usages.append(line.usage)
                    yield Token(msgspec.json.encode(line).decode() + "\n")
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        yield Done("stop", self._usage, cost=self._bill.cost)

    async def _check_tokens(self) -> None:
        """
        Raises:
            LimitExceeded: the batch has used up what it may, and there is no more.
        """
        if not self._tokens_max or self._usage.output_tokens < self._tokens_max:
            return
        more = await self._bill.more() if self._bill.more is not None else 0
        if not more:
            raise LimitExceeded("The batch used up the tokens that its caller has left.")
        self._tokens_max += more

    @property
    def _usage(self) -> Usage:
        return Usage(
            sum(usage.input_tokens for usage in self._usages), sum(usage.output_tokens for usage in self._usages)
        )


def split_prompts(request: GenerationRequest) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """What precedes each prompt of a batch's request, and the prompts."""
    system = [message for message in request.messages if message["role"] == "system"]
    return system, [message for message in request.messages if message["role"] != "system"]
