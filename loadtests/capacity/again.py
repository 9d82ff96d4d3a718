"""A miss is believed when it comes again: a machine that stands still for a moment holds every stream that there is.

One such moment in a search would put the boundary where it happened to look. Only the search asks twice; the number
itself is what the open model carries with every seed at the first try.
"""

from collections.abc import Callable

from loadtests.capacity.objectives import Objectives
from loadtests.capacity.point import Model, Point

# The second try's streams begin at other moments.
OTHER_SEEDS = 1000


class Again:
    """Measures as `measure` does, and a load that missed an objective once more, unless `tries` is 1.

    `dropped` are the misses that did not come again, `repeated` those that did: the second try stands for both.
    """

    def __init__(
        self,
        measure: Callable[[Model, int, int, float], Point],
        due: Objectives,
        say: Callable[[str], None],
        tries: int = 2,
    ) -> None:
        self._tries = tries
        self._measure = measure
        self._due = due
        self._say = say
        self.dropped: list[Point] = []
        self.repeated: list[Point] = []

    def __call__(self, model: Model, streams: int, seed: int, seconds: float) -> Point:
        first = self._measure(model, streams, seed, seconds)
        if not (missed := first.misses(self._due)) or self._tries == 1:
            return first
        second = self._measure(model, streams, seed + OTHER_SEEDS, seconds)
        if second.misses(self._due):
            self.repeated.append(first)
        else:
            self._say(
                f"{model:6} {streams:5} streams, seed {seed}: missed {', '.join(missed)}, but not again: left out"
            )
            self.dropped.append(first)
        return second
