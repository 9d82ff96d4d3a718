"""A provider's run: numbered tokens, exactly one end, and an upstream that is closed whatever happens."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import UpstreamRejected, UpstreamStalled
from app.events import Done, Event, Failed, Token, Usage
from tests.support.asgi import until
from tests.support.providers import DONE, FOREVER, Step, Steps, tokens
from tests.support.worker import Worker, worker


@pytest_asyncio.fixture
async def here() -> AsyncIterator[Worker]:
    async with worker() as here:
        yield here


async def finished(here: Worker, provider: Steps) -> list[Event]:
    """All events of a stream that ends by itself."""
    events = await here.read(await here.open(provider))
    await until(lambda: provider.closed == provider.started)
    return events


async def failure(here: Worker, *steps: Step) -> Failed:
    """The end of a stream that fails."""
    *before, last = await finished(here, Steps(*steps))
    assert all(type(event) is Token for event in before)
    assert isinstance(last, Failed)
    return last


# What is said


async def test_content_tokens_are_numbered_from_one(here: Worker) -> None:
    events = await finished(here, Steps(*tokens(3), DONE))
    assert events[:3] == [Token("t1 ", index=1), Token("t2 ", index=2), Token("t3 ", index=3)]


async def test_thoughts_and_tool_calls_are_not_numbered(here: Worker) -> None:
    thought, call = Token("Hm", kind="thought"), Token("[]", kind="tool_call")
    events = await finished(here, Steps(thought, Token("a"), call, Token("b"), DONE))
    assert events[:4] == [thought, Token("a", index=1), call, Token("b", index=2)]


async def test_the_end_says_how_long_it_took(here: Worker) -> None:
    *_, last = await finished(here, Steps(0.05, Token("a"), DONE))
    assert isinstance(last, Done)
    assert (last.finish_reason, last.usage) == (DONE.finish_reason, DONE.usage)
    assert 45 <= last.duration_ms < 2000


async def test_nothing_follows_the_end(here: Worker) -> None:
    events = await finished(here, Steps(Token("a"), DONE, Token("b"), Done("length", Usage())))
    assert [type(event) for event in events] == [Token, Done]


# How it ends


async def test_an_upstreams_failure_is_the_end(here: Worker) -> None:
    failed = await failure(here, Token("a"), UpstreamStalled("The upstream stopped."))
    assert failed == Failed("upstream_stalled", "The upstream stopped.", 504, retryable=True)


async def test_an_upstreams_wish_for_later_is_kept(here: Worker) -> None:
    failed = await failure(here, UpstreamRejected(429, "Slow down.", retry_after_seconds=7))
    assert (failed.status, failed.retry_after_seconds, failed.retryable) == (429, 7, True)


async def test_a_provider_that_ends_without_done_was_truncated(here: Worker) -> None:
    failed = await failure(here, *tokens(2))
    assert (failed.code, failed.status, failed.retryable) == ("upstream_truncated", 502, True)


@pytest.mark.parametrize(
    "error", [ValueError("sk-canary"), TimeoutError("sk-canary"), OSError("sk-canary"), KeyError("sk-canary")], ids=type
)
async def test_a_defect_is_an_internal_error_without_its_text(here: Worker, error: Exception) -> None:
    failed = await failure(here, Token("a"), error)
    assert (failed.code, failed.status, failed.retryable) == ("internal_error", 500, False)
    assert "canary" not in failed.message


async def test_a_generation_that_is_torn_down_with_its_loop_says_nothing(here: Worker) -> None:
    """A worker that was interrupted twice cancelled all its tasks: each stream's log then ended in `internal_error`,
    and nobody took it over."""
    reader = await here.open(Steps(Token("a"), FOREVER))
    live = here.streams.live[reader.record.stream_id]
    await until(lambda: live.tail.entries)
    generation = live.generation
    assert generation is not None
    assert generation.task is not None
    generation.task.cancel()
    await asyncio.wait([generation.task])
    await here.streams.committer.flush()
    found = await here.streams.backend.describe(live.stream_id)
    assert found is not None
    assert found[1].state == "running"
    assert len(live.tail.entries) == 1
    here.streams.detach(reader)


async def test_a_cancellation_that_nobody_asked_for_still_ends_the_stream(here: Worker) -> None:
    """Libraries let the cancellation of an inner task of their own escape; readers would wait for ever."""
    failed = await failure(here, Token("a"), asyncio.CancelledError())
    assert failed.code == "internal_error"


async def test_the_longest_life_of_a_stream_is_bounded() -> None:
    async with worker(stream_seconds_max=0.1) as here:
        failed = await failure(here, Token("a"), FOREVER)
    assert (failed.code, failed.status) == ("limit_exceeded", 413)


async def test_the_longest_life_holds_for_a_stream_that_never_pauses() -> None:
    """Tokens that keep coming are no reason to go on."""
    async with worker(stream_seconds_max=0.2) as here:
        *said, last = await finished(here, Steps(*[step for token in tokens(500) for step in (token, 0.005)]))
    assert isinstance(last, Failed)
    assert last.code == "limit_exceeded"
    assert 0 < len(said) < 100


@pytest.mark.parametrize("kind", ["content", "thought"])
async def test_the_text_of_a_stream_is_bounded(kind: str) -> None:
    token = Token("a" * 8, kind="thought" if kind == "thought" else "content")
    async with worker(stream_bytes_max=80) as here:
        *said, last = await finished(here, Steps(*[token] * 11, DONE))
    assert len(said) == 10
    assert isinstance(last, Failed)
    assert last.code == "limit_exceeded"


async def test_a_stream_that_fills_its_bound_exactly_is_complete() -> None:
    async with worker(stream_bytes_max=80) as here:
        events = await finished(here, Steps(*[Token("a" * 8)] * 10, DONE))
    assert isinstance(events[-1], Done)


STEPS = st.one_of(
    st.builds(Token, st.text(max_size=3), st.sampled_from(["content", "thought"])),
    st.builds(Done, st.just("stop"), st.just(Usage())),
    st.just(0.0),
    st.builds(UpstreamStalled, st.just("s")),
    st.builds(ValueError),
    st.builds(TimeoutError),
    st.builds(asyncio.CancelledError),
)


@given(steps=st.lists(STEPS, max_size=8))
@settings(max_examples=25)
def test_any_stream_is_tokens_and_then_exactly_one_end(steps: list[Step]) -> None:
    async def run() -> list[Event]:
        async with worker(stream_bytes_max=8) as here:
            return await finished(here, Steps(*steps))

    *before, last = asyncio.run(run())
    assert all(type(event) is Token for event in before)
    assert isinstance(last, Done | Failed)
