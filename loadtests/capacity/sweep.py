"""The search: up in powers of two until an objective is missed, between by halves, and again with other seeds.

What it finds is then tried under arrivals that do not wait for the server.

Knows nothing of how a load is made: `Measure` does. All that it does is bounded by `Bounds`.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Protocol

from loadtests.capacity.again import Again, Aside
from loadtests.capacity.boundary import Boundary, boundary
from loadtests.capacity.objectives import Objectives
from loadtests.capacity.point import Model, Point

# The boundary is sought to this precision.
PRECISION = 0.05
# How far below the interval the open model may force us: steps of 5 %.
CONFIRM_STEPS_MAX = 6
# Steps by which a repetition looks for the boundary from where the first found it.
WALK_STEPS_MAX = 4


class Bounds(NamedTuple):
    """What is tried. `seconds` are those of a point's window, `confirm_seconds` those of the last ones."""

    streams_min: int = 64
    streams_max: int = 4096
    repetitions: int = 3
    seconds: float = 8.0
    confirm_seconds: float = 15.0


# What became of a point: `search` and `carried` make the result; `not carried` is of an open load that a seed missed.
Role = Aside | Literal["search", "not carried", "carried"]


class Measure(Protocol):
    """Puts a load on the target and says what came of it."""

    def __call__(self, model: Model, streams: int, seed: int, seconds: float) -> Point: ...


class Sweep(NamedTuple):
    """What was measured, and what it comes to.

    `points` and `boundary` are of the closed model, `carried` and `not_carried` of the open one. `confirmed` is None
    when no load near the boundary was carried; `outside` says so when the boundary is not within the bounds of the
    search. `aside` is what was measured again, and why.
    """

    points: list[Point]
    carried: list[Point]
    boundary: Boundary
    confirmed: int | None
    outside: str | None
    aside: list[tuple[Aside, Point]]
    not_carried: list[Point]

    def everything(self) -> list[tuple[Role, Point]]:
        """Every point that was measured: those of the search by load, then those of the open model, as they came."""
        closed: list[tuple[Role, Point]] = [("search", point) for point in self.points]
        closed += [each for each in self.aside if each[1].model == "closed"]
        tried: list[tuple[Role, Point]] = [each for each in self.aside if each[1].model == "open"]
        tried += [("not carried", point) for point in self.not_carried]
        tried += [("carried", point) for point in self.carried]
        return sorted(closed, key=lambda each: each[1].streams) + tried

    def deciding(self) -> list[Point]:
        """The points on which the result rests: those far beyond the boundary only shape the curve.

        An open load that was not carried says nothing of the one that was, and can only have lowered the number.
        """
        beyond = (1 + 2 * PRECISION) * max(self.boundary.high, self.boundary.streams)
        failing = [point.streams for point in self.points if point.streams > self.boundary.streams]
        limit = max(beyond, min(failing, default=0))
        return [point for point in self.points if point.streams <= limit] + self.carried


def sweep(measure: Measure, due: Objectives, bounds: Bounds, say: Callable[[str], None] = lambda _: None) -> Sweep:
    """Find the boundary within the bounds."""
    again = Again(measure, due, say, tries=2 if bounds.repetitions > 1 else 1)
    points, outside = search(again, due, bounds, say)
    if outside:
        return Sweep(points, [], boundary(points, due), None, outside, again.aside, [])
    for seed in range(2, bounds.repetitions + 1):
        points += _walk(again, due, bounds, boundary(points, due, resamples=1).streams, seed, say)
    found = boundary(points, due)
    say(f"boundary at {found.streams:.0f} streams, interval {found.low:.0f} to {found.high:.0f} ({found.binding})")
    carried, not_carried = _confirm(again.undisturbed, due, bounds, int(found.low), say)
    confirmed = carried[0].streams if carried else None
    return Sweep(points, carried, found, confirmed, None, again.aside, not_carried)


def search(
    measure: Measure, due: Objectives, bounds: Bounds, say: Callable[[str], None] = lambda _: None
) -> tuple[list[Point], str | None]:
    """Up and between, once: the points, and why the boundary is not among them, if so."""
    points, low, high = _geometric(measure, due, bounds, say)
    if high is None:
        return points, f"{low} streams kept every objective: raise --streams-max"
    if not low:
        return points, f"{high} streams missed an objective: lower --streams-min"
    return points + _bisect(measure, due, bounds, (low, high), say), None


def _geometric(
    measure: Measure, due: Objectives, bounds: Bounds, say: Callable[[str], None]
) -> tuple[list[Point], int, int | None]:
    """Doubles the load until an objective is missed: the points, the last good load and the first bad one."""
    points: list[Point] = []
    low, streams = 0, bounds.streams_min
    while streams <= bounds.streams_max:
        points.append(measure("closed", streams, 1, bounds.seconds))
        missed = _told(points[-1], due, say)
        if missed:
            return points, low, streams
        low, streams = streams, streams * 2
    return points, low, None


def _bisect(
    measure: Measure, due: Objectives, bounds: Bounds, bracket: tuple[int, int], say: Callable[[str], None]
) -> list[Point]:
    low, high = bracket
    points = []
    while high - low > max(1, PRECISION * low):
        middle = (low + high) // 2
        points.append(measure("closed", middle, 1, bounds.seconds))
        if _told(points[-1], due, say):
            high = middle
        else:
            low = middle
    return points


def _walk(
    measure: Measure, due: Objectives, bounds: Bounds, start: float, seed: int, say: Callable[[str], None]
) -> list[Point]:
    """From the boundary up while the objectives are kept, or down until they are."""
    step = max(1, round(PRECISION * start))
    streams = max(1, round(start))
    points = [measure("closed", streams, seed, bounds.seconds)]
    first = _told(points[0], due, say)
    for _ in range(WALK_STEPS_MAX):
        streams = max(1, streams - step if first else streams + step)
        points.append(measure("closed", streams, seed, bounds.seconds))
        if bool(_told(points[-1], due, say)) != bool(first):
            break
    return points


def _confirm(
    measure: Measure, due: Objectives, bounds: Bounds, start: int, say: Callable[[str], None]
) -> tuple[list[Point], list[Point]]:
    """From `start` down in the open model: the points of the first load that all seeds carry, and those before it."""
    not_carried: list[Point] = []
    streams = start
    for _ in range(CONFIRM_STEPS_MAX):
        if streams < 1:
            break
        run = _run(measure, due, bounds, streams, say)
        if len(run) == bounds.repetitions and not run[-1].misses(due):
            return run, not_carried
        not_carried += run
        streams = int(streams * (1 - PRECISION))
    return [], not_carried


def _run(measure: Measure, due: Objectives, bounds: Bounds, streams: int, say: Callable[[str], None]) -> list[Point]:
    """The points of all seeds, or those up to the first that misses an objective."""
    run: list[Point] = []
    for seed in range(1, bounds.repetitions + 1):
        run.append(measure("open", streams, seed, bounds.confirm_seconds))
        if _told(run[-1], due, say):
            break
    return run


def _told(point: Point, due: Objectives, say: Callable[[str], None]) -> list[str]:
    """The objectives that the point misses; and a line about it for whoever watches."""
    missed = point.misses(due)
    shares = ", ".join(f"{name} {100 * kept.share:.2f} %" for name, kept in point.kept.items())
    say(f"{point.label}: {shares}" + (f": misses {', '.join(missed)}" if missed else ""))
    return missed


def curve(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    """Concurrency and throughput (tokens/s) of the closed model's points, in order."""
    closed = sorted((point for point in points if point.model == "closed"), key=lambda point: point.streams)
    return [float(point.streams) for point in closed], [point.tokens_per_second for point in closed]
