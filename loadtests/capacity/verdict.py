"""Whether a measurement can be believed. Every reason names what was seen and what is allowed.

Past the boundary the gateway holds tokens back, and less arrives than is offered: that is the finding. So the load
itself is judged on points that kept their objectives, the generator on all.
"""

from collections.abc import Sequence

from loadtests.capacity.objectives import Objectives
from loadtests.capacity.point import Point

# Above this, origin and load wait for each other, and their delays would be charged to the gateway.
GENERATOR_BUSY_PERCENT_MAX = 95.0
# The generator read a byte at most this late, but for one pass of its loop in a hundred: a tenth of a gap that counts.
LAG_P99_MS_MAX = 10.0
# Above this, something else ran on the gateway's core.
NEIGHBOURS_PERCENT_MAX = 10.0
ACHIEVED_PERCENT_MIN = 98.0
# Of streams in flight, beside what their records come to and, in the open model, beside Little's law.
IN_FLIGHT_PERCENT_MAX = 5.0
# Of few streams, or of a window that is no longer than they live, chance alone takes or adds more than that.
DEVIATIONS_MAX = 3.0
# Streams of the open model begin when they are due, not when a place is free.
START_LAG_P99_MS_MAX = 50.0


def reasons(points: Sequence[Point], due: Objectives) -> list[str]:
    """Why the points cannot be believed; none when they can."""
    found = []
    for point in points:
        complaints = generator_complaints(point)
        if not point.misses(due):
            complaints += load_complaints(point)
        found += [f"{point.streams} streams ({point.model}, seed {point.seed}): {text}" for text in complaints]
    return found


def generator_complaints(point: Point) -> list[str]:
    """What was wrong on this side of the wire, or beside the gateway."""
    health, found = point.health, []
    if (busy := health.generator_busy_percent) is not None and busy > GENERATOR_BUSY_PERCENT_MAX:
        found.append(f"the generator's core was {busy:.0f} % busy, at most {GENERATOR_BUSY_PERCENT_MAX:g} %")
    if health.lag_p99_ms > LAG_P99_MS_MAX:
        found.append(f"the generator's loop was {health.lag_p99_ms:.1f} ms late (p99), at most {LAG_P99_MS_MAX:g} ms")
    return found + neighbour_complaints(point)


def neighbour_complaints(point: Point) -> list[str]:
    """What ran where only the gateway should."""
    others = point.health.neighbours_percent
    if others is None or others <= NEIGHBOURS_PERCENT_MAX:
        return []
    return [f"others took {others:.0f} % of the gateway's core, at most {NEIGHBOURS_PERCENT_MAX:g} %"]


def is_exhausted(point: Point) -> bool:
    """Whether the generator's core had nothing left: what carries more cannot be told with it."""
    return (point.health.generator_busy_percent or 0.0) > GENERATOR_BUSY_PERCENT_MAX


def load_complaints(point: Point) -> list[str]:
    """How the load differed from the one that the point is named after."""
    found = []
    if not point.finished:
        return ["no stream finished within the window"]
    if point.achieved_percent < ACHIEVED_PERCENT_MIN:
        found.append(f"{point.achieved_percent:.1f} % of the tokens due arrived, {ACHIEVED_PERCENT_MIN:g} % must")
    if (off := point.unrecorded_percent) > IN_FLIGHT_PERCENT_MAX:
        found.append(f"{off:.1f} % between streams in flight and their records, at most {IN_FLIGHT_PERCENT_MAX:g} %")
    if point.model == "open":
        found += _arrival_complaints(point)
    return found


def _arrival_complaints(point: Point) -> list[str]:
    health, found = point.health, []
    chance = max(IN_FLIGHT_PERCENT_MAX, DEVIATIONS_MAX * point.edge_percent)
    if (off := point.little_percent) > chance:
        found.append(f"{off:.1f} % between streams in flight and Little's law, at most {chance:.0f} %")
    if health.start_lag_p99_ms > START_LAG_P99_MS_MAX:
        found.append(f"streams began {health.start_lag_p99_ms:.0f} ms late (p99), at most {START_LAG_P99_MS_MAX:g} ms")
    begun = 100 * (1 - health.waiting / max(1, health.scheduled))
    if begun < ACHIEVED_PERCENT_MIN:
        found.append(f"{begun:.1f} % of the arrivals began, {ACHIEVED_PERCENT_MIN:g} % must")
    return found
