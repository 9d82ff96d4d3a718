"""What is counted of a stream's pace covers all of it: its wait for a place, and the worker that goes on with it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import time
from typing import NamedTuple

import pytest

from app.admission.places import Places
from app.events import Done
from app.observability import metrics
from app.observability.figures import figures
from app.streams import generation as generation_module
from app.streams.generation import AGE_SECONDS_MAX, Generation
from app.streams.log import START, StreamRecord
from app.streams.memory_log import MemoryLog
from app.streams.tail import Tail
from tests.support.asgi import no_tasks_left, until
from tests.support.journal import Journal
from tests.support.providers import DONE, REQUEST, Steps, tokens
from tests.support.side import TOKENS, Side
from tests.support.worker import LONG, worker

WAIT_SECONDS = 0.4
# What a busy machine may add to a wait.
LATE_SECONDS_MAX = 10.0


class Seen(NamedTuple):
    """A histogram of one model's."""

    values: int
    total: float


def seen(metric: metrics.Declared, model: str) -> Seen:
    tally = figures.tally(metric, model)
    return Seen(sum(tally.counts), tally.total)


def risen(metric: metrics.Declared, before: Seen, model: str = REQUEST.model) -> Seen:
    now = seen(metric, model)
    return Seen(now.values - before.values, now.total - before.total)


async def test_the_time_to_the_first_token_and_the_duration_begin_before_the_wait_for_a_place() -> None:
    """They began with the place: at a full queue callers waited for seconds, and the objective called it good."""
    async with worker(places=Places(1, 4, LONG)) as here:
        first = await here.open(Steps(*tokens(1), WAIT_SECONDS, DONE))
        second = asyncio.create_task(here.open(Steps(*tokens(1), DONE)))
        await until(lambda: here.streams.places.waiting == 1)
        before = [seen(metric, "m1") for metric in (metrics.FIRST_TOKEN_SECONDS, metrics.STREAM_SECONDS)]
        *_, end = await here.read(await second)
        await here.read(first)
    assert isinstance(end, Done)
    assert end.duration_ms > WAIT_SECONDS * 800
    for metric, was in zip((metrics.FIRST_TOKEN_SECONDS, metrics.STREAM_SECONDS), before, strict=True):
        found = risen(metric, was, "m1")
        assert found.values == 1
        assert WAIT_SECONDS * 0.8 < found.total < WAIT_SECONDS + LATE_SECONDS_MAX


@asynccontextmanager
async def two_sides(wait_at: int) -> AsyncIterator[tuple[MemoryLog, Side, Side]]:
    """Two workers; the first stands before that token until it is gone."""
    log = MemoryLog()
    async with no_tasks_left(3.0):
        a, b = Side("a", log, wait_at=wait_at), Side("b", log)
        for side in (a, b):
            await log.beat(side.streams.owner)
        try:
            yield log, a, b
        finally:
            for side in (a, b):
                await side.stop()


@pytest.mark.parametrize("watched", [True, False], ids=["read by the one that goes on", "read by nobody there before"])
async def test_a_stream_that_is_taken_over_is_counted_as_one_with_its_silence(watched: bool) -> None:
    model = REQUEST.model
    names = (metrics.FIRST_TOKEN_SECONDS, metrics.STREAM_SECONDS, metrics.GAP_SECONDS_MAX)
    async with two_sides(wait_at=4) as (log, a, b):
        before = {metric: seen(metric, model) for metric in names}
        journal = Journal(stream_id=await a.open())
        reading = asyncio.create_task((b if watched else a).read(journal, tokens=TOKENS + 1 if watched else 3))
        await until(lambda: len(journal.tokens) == 3)
        if not watched:
            await log.expire("a")  # it is silent from now on, and said to be gone
        await asyncio.sleep(WAIT_SECONDS)
        await a.stop()
        if watched:
            await log.expire("a")
        else:
            await reading
            reading = asyncio.create_task(b.read(journal))
        await reading
        journal.check("a1 a2 a3 b4 b5 b6 b7 b8 b9 ")
    first, whole, gap = (risen(metric, before[metric]) for metric in names)
    assert first.values == 1
    assert first.total < whole.total - WAIT_SECONDS * 0.8
    assert whole.values == 1
    assert WAIT_SECONDS * 0.8 < whole.total < WAIT_SECONDS + LATE_SECONDS_MAX
    # Of the first worker's part, and of the second's with the silence before it.
    assert gap.values == 2
    assert gap.total > WAIT_SECONDS * 0.8


async def test_the_first_token_of_a_stream_that_was_taken_over_before_it_is_counted_from_the_request() -> None:
    model = REQUEST.model
    async with two_sides(wait_at=1) as (log, a, b):
        before = seen(metrics.FIRST_TOKEN_SECONDS, model), seen(metrics.TOKEN_GAP_SECONDS, model)
        journal = Journal(stream_id=await a.open())
        await until(lambda: a.talker.started == 1)
        await asyncio.sleep(WAIT_SECONDS)
        await a.stop()
        await log.expire("a")
        await b.read(journal)
        assert len(journal.tokens) == TOKENS
    first, gaps = risen(metrics.FIRST_TOKEN_SECONDS, before[0]), risen(metrics.TOKEN_GAP_SECONDS, before[1])
    assert first.values == 1
    assert WAIT_SECONDS * 0.8 < first.total < WAIT_SECONDS + LATE_SECONDS_MAX
    assert gaps.values == TOKENS - 1, "the silence before the first token is none between two"


@pytest.mark.parametrize(
    ("ahead_seconds", "age_seconds"), [(30.0, 0.0), (-30.0, 30.0), (-7200.0, 7200.0), (-1e9, AGE_SECONDS_MAX)]
)
async def test_a_clock_of_another_machine_makes_no_stream_older_than_any_can_be(
    ahead_seconds: float, age_seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation_module, "monotonic", lambda: 10_000.0)
    asked = time() + ahead_seconds
    record = StreamRecord("s" * 22, "p", "native", REQUEST, "finish", 1.0, int(asked), asked_unix=asked)
    made = Generation(record, Tail(START), 2, on_over=lambda _: None)
    assert made.started == pytest.approx(10_000.0 - age_seconds, abs=5.0)
