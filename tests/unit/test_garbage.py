"""When a worker looks for garbage that refers to itself."""

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from app import garbage
from app.garbage import OBJECTS_MAX, OBJECTS_MIN, OBJECTS_PER_STREAM, REST_SECONDS_MAX, Garbage
from tests.support.asgi import until


class Ring:
    """Refers to itself."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def by_ourselves() -> Iterator[None]:
    """As in a worker; what a test leaves is collected again by the interpreter itself."""
    gc.disable()
    gc.collect()
    gc.collect()  # what finalizers of other tests' garbage made
    yield
    gc.enable()
    gc.collect()


def test_with_no_stream_a_little_garbage_is_enough() -> None:
    idle = Garbage(lambda: 0)
    assert not idle.is_due()
    rings = [Ring() for _ in range(OBJECTS_MIN + 500)]
    left = weakref.ref(rings[0])
    del rings
    assert idle.is_due()
    idle.collect()
    assert left() is None
    assert not Garbage(lambda: 0).is_due()


@pytest.mark.parametrize("streams", [1, 50])
def test_streams_are_held_only_for_more_than_they_can_have_made(streams: int) -> None:
    running = Garbage(lambda: streams)
    some = [[] for _ in range(OBJECTS_MAX + OBJECTS_PER_STREAM * streams - 1_000)]  # type: ignore[var-annotated]
    assert not running.is_due()
    some += [[] for _ in range(2_000)]
    assert running.is_due()


def test_a_line_says_that_streams_waited_and_none_that_nobody_did() -> None:
    with capture_logs() as lines:
        Garbage(lambda: 0).collect()
        assert lines == []
        Garbage(lambda: 3).collect()
    assert [(line["event"], line["streams"]) for line in lines] == [("streams waited for garbage", 3)]
    assert lines[0]["held_ms"] > 0


@pytest.mark.parametrize(("took_seconds", "rest_seconds"), [(0.05, 5.0), (0.5, REST_SECONDS_MAX)])
def test_a_longer_walk_has_a_longer_rest_but_not_for_ever(
    took_seconds: float, rest_seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(garbage, "monotonic", lambda: now)

    def walk() -> int:
        nonlocal now
        now += took_seconds
        return 0

    monkeypatch.setattr(gc, "collect", walk)
    monkeypatch.setattr(gc, "get_count", lambda: (10**9, 0, 0))
    idle = Garbage(lambda: 0)
    assert idle.is_due()
    idle.collect()
    now += rest_seconds - 0.1
    assert not idle.is_due()
    now += 0.2
    assert idle.is_due()


async def test_it_looks_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage, "PERIOD_SECONDS", 0.01)
    looking = asyncio.create_task(Garbage(lambda: 0).run())
    rings = [Ring() for _ in range(2 * OBJECTS_MIN)]
    left = weakref.ref(rings[0])
    del rings
    await until(lambda: left() is None, 10.0)
    looking.cancel()
