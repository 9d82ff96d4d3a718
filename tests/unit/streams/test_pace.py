"""What the figures hold of a stream's tokens, though they are counted many at once."""

import pytest

from app.events import Token
from app.observability import metrics
from app.observability.figures import Figures
from app.streams import pace as pace_module
from app.streams.log import Cursor
from app.streams.pace import TIMES_MAX, Pace
from app.streams.tail import Entry


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(pace_module, "monotonic", clock)
    return clock


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> Figures:
    own = Figures()
    monkeypatch.setattr(pace_module, "figures", own)
    return own


def entries(count: int, kind: str = "content") -> list[Entry]:
    return [(Cursor(0, seq + 1), Token("x", kind)) for seq in range(count)]  # type: ignore[arg-type]


def total(figures: Figures, metric: metrics.Declared) -> tuple[int, float]:
    """How many values a histogram has, and their sum."""
    tally = figures.tally(metric, "m")
    return sum(tally.counts), round(tally.total, 3)


def test_every_silence_is_counted_however_long_the_stream(clock: Clock, figures: Figures) -> None:
    pace = Pace("m", clock.now - 1)
    tokens = 3 * TIMES_MAX + 5
    for number in range(tokens):
        clock.now += 2.0 if number == TIMES_MAX + 1 else 0.05
        pace.delivered(entries(1))
        assert len(pace._times) <= TIMES_MAX
    pace.ended("completed")
    gaps = figures.tally(metrics.TOKEN_GAP_SECONDS, "m")
    assert sum(gaps.counts) == tokens - 1
    assert gaps.total == pytest.approx(0.05 * (tokens - 2) + 2.0)
    assert figures.tally(metrics.GAP_SECONDS_MAX, "m").total == pytest.approx(2.0)
    assert figures.tally(metrics.TOKEN_SECONDS, "m").total == pytest.approx(gaps.total / (tokens - 1))
    assert figures.tally(metrics.FIRST_TOKEN_SECONDS, "m").total == pytest.approx(1.05)


def test_tokens_that_come_together_have_no_silence_between_them(clock: Clock, figures: Figures) -> None:
    pace = Pace("m", clock.now)
    pace.delivered(entries(3))
    clock.now += 1.0
    pace.delivered(entries(2))
    pace.ended("completed")
    gaps = figures.tally(metrics.TOKEN_GAP_SECONDS, "m")
    assert sum(gaps.counts) == 4
    assert gaps.counts[0] == 3
    assert gaps.total == pytest.approx(1.0)
    assert figures.tally(metrics.TOKEN_SECONDS, "m").total == pytest.approx(0.25)


def test_what_a_stream_that_moved_elsewhere_had_by_then_is_counted_once(clock: Clock, figures: Figures) -> None:
    pace = Pace("m", clock.now)
    for seconds in (0.5, 0.1, 2.0, 0.1):
        clock.now += seconds
        pace.delivered(entries(1))
    assert total(figures, metrics.FIRST_TOKEN_SECONDS) == (1, 0.5), "when it came: the end may be another worker's"
    for _ in range(2):
        pace.left()
    assert total(figures, metrics.TOKEN_GAP_SECONDS) == (3, 2.2)
    assert total(figures, metrics.GAP_SECONDS_MAX) == (1, 2.0)
    assert total(figures, metrics.TOKEN_SECONDS) == (1, 0.733)
    assert total(figures, metrics.STREAM_SECONDS) == (0, 0.0), "it has not ended"


def test_whoever_takes_a_stream_over_counts_the_silence_before_and_its_whole_duration(
    clock: Clock, figures: Figures
) -> None:
    pace = Pace("m", clock.now - 10, answered=True, last_token_at=clock.now - 4)
    pace.delivered(entries(1))
    clock.now += 1
    pace.delivered(entries(1))
    pace.ended("completed")
    assert total(figures, metrics.TOKEN_GAP_SECONDS) == (2, 5.0)
    assert total(figures, metrics.GAP_SECONDS_MAX) == (1, 4.0)
    assert total(figures, metrics.STREAM_SECONDS) == (1, 11.0)
    assert total(figures, metrics.FIRST_TOKEN_SECONDS) == (0, 0.0), "the worker before has counted it"
    assert figures.value(metrics.NO_FIRST_TOKEN, "m", "completed") == 0


def test_whoever_takes_over_what_had_no_token_yet_counts_the_first(clock: Clock, figures: Figures) -> None:
    pace = Pace("m", clock.now - 10)
    pace.delivered(entries(1))
    pace.ended("completed")
    assert total(figures, metrics.FIRST_TOKEN_SECONDS) == (1, 10.0)
    assert total(figures, metrics.TOKEN_GAP_SECONDS) == (0, 0.0)


def test_a_thought_is_not_the_first_token_of_an_answer(clock: Clock, figures: Figures) -> None:
    pace = Pace("m", clock.now)
    clock.now += 1.0
    pace.delivered(entries(1, "thought"))
    assert pace.first_token_seconds is None
    clock.now += 1.0
    pace.delivered(entries(1))
    assert pace.first_token_seconds == pytest.approx(2.0)
