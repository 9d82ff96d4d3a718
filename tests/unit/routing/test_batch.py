"""A batch: what is answered once is never asked again, one that fails ends nothing, and bounds hold."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from app.errors import LimitExceeded, UpstreamUnreachable
from app.events import Done, Token, Usage
from app.providers.base import GenerationRequest, Pour
from app.routing.batch import BEGUN, PROMPTS_AT_ONCE, Batch, Line, read_lines
from app.routing.bill import Bill
from app.routing.route import Route
from tests.support.asgi import no_tasks_left

SECONDS = 20.0


class Echo:
    """Says its prompt back, word by word. `fail` fails; `stall` never ends."""

    def __init__(self, pause_seconds: float = 0.01) -> None:
        self._pause_seconds = pause_seconds
        self.asked: list[str] = []
        self.running = self.running_max = 0

    async def generate(
        self, request: GenerationRequest, pour: Pour | None = None
    ) -> AsyncGenerator[Token | Done, None]:
        prompt = request.messages[-1]["content"]
        self.asked.append(prompt)
        self.running += 1
        self.running_max = max(self.running_max, self.running)
        try:
            if prompt == "fail":
                raise UpstreamUnreachable("Nobody there.")
            words = prompt.split(" ")
            yield Token(words[0])
            await asyncio.sleep(3600 if prompt == "stall" else self._pause_seconds)
            rest = [f" {word}" for word in words[1:]]
            if pour is None or not pour(rest):
                for text in rest:
                    yield Token(text)
            yield Done("stop", Usage(1, len(words)))
        finally:
            self.running -= 1

    async def aclose(self) -> None: ...


def request(*prompts: str) -> GenerationRequest:
    messages = [{"role": "user", "content": prompt} for prompt in prompts]
    return GenerationRequest("m", [{"role": "system", "content": "Be brief."}, *messages])


def batch(echo: Echo, *, prompt_seconds_max: float = SECONDS, bytes_max: int = 1000, tokens_max: int = 0) -> Batch:
    return Batch(Route.to(echo), prompt_seconds_max, bytes_max, SECONDS, tokens_max)


async def run(
    of: Batch, wanted: GenerationRequest, said: str = "", bill: Bill | None = None
) -> tuple[list[Line], Done, list[Token]]:
    tokens: list[Token] = []
    making = of.begin(wanted, said, "bound", bill or Bill("s"))
    async with no_tasks_left(), aclosing(making.events(lambda _: False)) as events:
        async for event in events:
            if isinstance(event, Done):
                return read_lines("".join(token.text for token in tokens)), event, tokens
            assert isinstance(event, Token)
            tokens.append(event)
    raise AssertionError("no end")


async def test_every_prompt_is_answered_by_itself_behind_the_systems_words() -> None:
    echo = Echo()
    lines, done, tokens = await run(batch(echo), request("a b c", "d\u2028e f"))
    assert tokens[0] is BEGUN
    assert {line.index: line.response for line in lines} == {0: "a b c", 1: "d\u2028e f"}
    assert (done.finish_reason, done.usage) == ("stop", Usage(2, 5))


async def test_a_prompt_that_fails_says_so_and_ends_nothing() -> None:
    lines, done, _ = await run(batch(Echo()), request("a", "fail", "b"))
    by_index = {line.index: line for line in lines}
    assert (by_index[0].response, by_index[2].response) == ("a", "b")
    error = by_index[1].error
    assert error is not None
    assert (error.code, error.retryable) == ("upstream_unreachable", True)
    assert done.usage == Usage(2, 2)


async def test_who_takes_a_batch_over_asks_only_for_what_is_not_answered() -> None:
    echo = Echo()
    wanted = request(*(f"p {number}" for number in range(10)))
    _, _, tokens = await run(batch(echo), wanted)
    said = "".join(token.text for token in tokens[:4])  # behind the first, which is no line
    known = {line.index for line in read_lines(said)}
    echo.asked.clear()
    lines, done, more = await run(batch(echo), wanted, said)
    assert BEGUN not in more
    assert sorted(echo.asked) == sorted(f"p {number}" for number in range(10) if number not in known)
    assert {line.index for line in lines} == set(range(10)) - known
    assert done.usage == Usage(10, 20)


async def test_only_so_many_prompts_are_asked_at_a_time() -> None:
    echo = Echo()
    await run(batch(echo), request(*("x y" for _ in range(20))))
    assert echo.running_max == PROMPTS_AT_ONCE


async def test_an_answer_that_is_too_long_or_takes_too_long_fails_alone() -> None:
    lines, _, _ = await run(batch(Echo(), prompt_seconds_max=0.3, bytes_max=30), request("stall", "w " * 40, "a"))
    errors = {line.index: line.error.code for line in lines if line.error is not None}
    assert errors == {0: "upstream_timeout", 1: "limit_exceeded"}


async def test_a_batch_ends_where_its_callers_tokens_do() -> None:
    echo = Echo()
    with pytest.raises(LimitExceeded):
        await run(batch(echo, tokens_max=6), request(*("x y" for _ in range(20))))
    assert len(echo.asked) <= 3 + PROMPTS_AT_ONCE


async def test_a_batch_that_used_just_what_it_had_is_complete() -> None:
    lines, _, _ = await run(batch(Echo(), tokens_max=4), request("x y", "x y"))
    assert len(lines) == 2


async def test_a_batch_takes_more_of_its_callers_tokens_while_there_are_any() -> None:
    left = [10, 10, 0]

    async def more() -> int:
        return left.pop(0)

    wanted = request(*("x y" for _ in range(13)))
    lines, _, _ = await run(batch(Echo(), tokens_max=6), wanted, bill=Bill("s", more=more))
    assert len(lines) == 13
    with pytest.raises(LimitExceeded):
        await run(batch(Echo(), tokens_max=6), wanted, bill=Bill("s", more=more))


async def test_a_batch_that_is_left_leaves_no_prompt_running() -> None:
    echo = Echo()
    async with no_tasks_left():
        events = batch(echo).begin(request("stall", "stall"), "", "bound", Bill("s")).events(lambda _: False)
        async with aclosing(events):
            assert await anext(events) is BEGUN
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await anext(events)
    assert echo.running == 0
