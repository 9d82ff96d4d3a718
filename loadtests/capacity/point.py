"""One load that was measured: how many streams kept their objectives, what it cost, and how the generator fared."""

from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from loadtests.capacity.objectives import Objectives
from loadtests.capacity.records import FINISHED, STILL_OPEN, Kept, Record, kept
from loadtests.capacity.saturation import Saturation, saturation

Model = Literal["closed", "open"]


class Health(msgspec.Struct, frozen=True):
    """What the generator says of itself and of the machine. None: it could not be seen from there."""

    in_flight_mean: float
    lag_p99_ms: float
    start_lag_p99_ms: float
    generator_busy_percent: float | None = None
    neighbours_percent: float | None = None
    scheduled: int = 0
    waiting: int = 0


class Cost(msgspec.Struct, frozen=True):
    """What the streams took of the machine. None: the gateway runs elsewhere."""

    cpu_us_per_token: float | None = None
    nginx_cpu_us_per_token: float | None = None
    kib_per_stream: float | None = None
    nginx_kib_per_stream: float | None = None


class Point(msgspec.Struct, frozen=True):
    """`streams` is what was asked for: open at a time in the closed model, on average in the open one.

    By the records, all streams together: `stream_seconds` is how long they were open within the window. `life_seconds`
    is the mean of those that ended in it, of the whole time that each was open; `edge_seconds` the standard deviation
    of what such lives leave to the time behind the window and have from the time before, where streams begin by chance.
    """

    model: Model
    streams: int
    seed: int
    window_seconds: float
    tokens: int
    kept: dict[str, Kept]
    ttft_ms: dict[str, float]
    gap_ms: dict[str, float]
    outcomes: dict[str, int]
    finished: int
    saturation: Saturation
    stream_seconds: float
    life_seconds: float
    edge_seconds: float
    health: Health
    cost: Cost
    tokens_per_second_due: float

    @property
    def label(self) -> str:
        """Which load it is of, for lines below each other."""
        return f"{self.model:6} {self.streams:5} streams, seed {self.seed}"

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.window_seconds

    @property
    def achieved_percent(self) -> float:
        """Tokens that came, of those that the open streams were due."""
        due = self.health.in_flight_mean * self.tokens_per_second_due * self.window_seconds
        return 100 * self.tokens / max(1.0, due)

    @property
    def unrecorded_percent(self) -> float:
        """How far streams in flight, as the generator's loop counted them, are from what its records come to.

        True of every window, however short, since of a stream that an edge cuts only what lies within counts. So it
        says nothing of the load: only that no record is missing, and none is wrong.
        """
        return self._off_percent(self.stream_seconds / self.window_seconds)

    @property
    def little_percent(self) -> float:
        """How far streams in flight are from arrivals a second x time in the system: Little's law.

        Each has its own source: the loop's count, the schedule of the arrivals, the records. It holds of a load that
        stays as it is; one that doubles within the window is some 6 % from it, and less than that `saturation` sees.
        Of the open model only: the closed one keeps streams in flight as they are, and arrivals follow, in waves where
        streams live for longer than the ramp.
        """
        return self._off_percent(self.health.scheduled / self.window_seconds * self.life_seconds)

    @property
    def edge_percent(self) -> float:
        """One standard deviation of the former, by chance alone: 3 % of 250 streams of 5 s in 8 s, 6 % of 64."""
        return 100 * self.edge_seconds / self.window_seconds / max(1.0, self.health.in_flight_mean)

    def _off_percent(self, expected: float) -> float:
        return 100 * abs(self.health.in_flight_mean - expected) / max(1.0, self.health.in_flight_mean)

    def misses(self, due: Objectives) -> list[str]:
        """The objectives that fewer streams kept than must; and `throughput`, where streams pile up."""
        missed = [name for name, share in due.shares.items() if self.kept[name].share < share]
        return [*missed, *(["throughput"] if self.saturation is Saturation.SATURATED else [])]


def percentiles(values: Sequence[float], shares: Sequence[float] = (50, 95, 99)) -> dict[str, float]:
    """By name, such as p99; without the extreme ones that so few values cannot tell."""
    told = [share for share in shares if len(values) * (100 - share) >= 1000 or share <= 50]
    return {f"p{share:g}": float(np.percentile(values, share)) for share in told} if values else {}


def make_point(
    *,
    model: Model,
    streams: int,
    seed: int,
    window_seconds: float,
    tokens: int,
    records: Sequence[Record],
    gap_ms: dict[str, float],
    health: Health,
    cost: Cost,
    due: Objectives,
) -> Point:
    """A point of what the generator says and of its records."""
    begun = [record.ttft_ms for record in records if record.scheduled_ms >= 0 and record.ttft_ms is not None]
    lives = np.array([record.life_ms for record in records if record.life_ms is not None]) / 1000
    outcomes: dict[str, int] = {}
    for record in records:
        outcomes[record.outcome] = outcomes.get(record.outcome, 0) + 1
    return Point(
        model=model,
        streams=streams,
        seed=seed,
        window_seconds=window_seconds,
        tokens=tokens,
        kept=kept(records, due, window_seconds * 1000),
        ttft_ms=percentiles(begun),
        gap_ms=gap_ms,
        outcomes=outcomes,
        finished=outcomes.get(FINISHED, 0),
        saturation=_saturation(model, records, window_seconds),
        stream_seconds=sum(record.milliseconds_within(1000 * window_seconds) for record in records) / 1000,
        life_seconds=float(lives.mean()) if len(lives) else 0.0,
        edge_seconds=_edge_seconds(lives, health.scheduled, window_seconds),
        health=health,
        cost=cost,
        tokens_per_second_due=due.tokens_per_second,
    )


def _edge_seconds(lives: NDArray[np.float64], scheduled: int, window_seconds: float) -> float:
    """The deviation of what the streams that are open at a moment have still to live, for both edges of the window.

    Of a Poisson process its variance is arrivals a second x the mean of life³ / 3. Those who are open at the first edge
    end in the window, those at the second have begun in it, and nearly nobody is open at both.
    """
    if not len(lives):
        return 0.0
    return float(np.sqrt((len(lives) + scheduled) / window_seconds * np.mean(lives**3) / 3))


def _saturation(model: Model, records: Sequence[Record], window_seconds: float) -> Saturation:
    """Of the open model only: in the closed one a stream begins because another has ended."""
    if model == "closed":
        return Saturation.UNSATURATED
    ended = [record.ended_ms for record in records if record.outcome != STILL_OPEN and record.ended_ms is not None]
    return saturation([record.scheduled_ms for record in records], ended, window_seconds * 1000)
