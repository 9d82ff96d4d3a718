"""Once more, where once says little: a machine that stands still for a moment holds every stream that there is.

A miss is believed when it comes again: one such moment in a search would put the boundary where it happened to look.
What a neighbour took the core from is measured again whether it missed or not. Only the search asks twice; the number
itself is what the open model carries with every seed at the first try.
"""

from collections.abc import Callable
from typing import Literal

from loadtests.capacity.objectives import Objectives
from loadtests.capacity.point import Model, Point
from loadtests.capacity.verdict import neighbour_complaints

# The second try's streams begin at other moments.
OTHER_SEEDS = 1000

# What became of the first time: `left out` missed an objective and not again; a `first try` missed again, so that the
# second stands for it; a `disturbed` one had a neighbour on its core.
Aside = Literal["left out", "first try", "disturbed"]


class Again:
    """Measures as `measure` does, and a load that missed an objective or was disturbed once more, unless `tries` is 1.

    The second try stands, whatever came of it. `aside` are the first ones.
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
        self.aside: list[tuple[Aside, Point]] = []

    def __call__(self, model: Model, streams: int, seed: int, seconds: float) -> Point:
        first = self._measure(model, streams, seed, seconds)
        missed, disturbed = first.misses(self._due), neighbour_complaints(first)
        if self._tries == 1 or not (missed or disturbed):
            return first
        second = self._measure(model, streams, seed + OTHER_SEEDS, seconds)
        told = f"{model:6} {streams:5} streams, seed {seed}"
        if disturbed:
            self._say(f"{told}: {', '.join(disturbed)}: measured again")
            self.aside.append(("disturbed", first))
        elif second.misses(self._due):
            self.aside.append(("first try", first))
        else:
            self._say(f"{told}: missed {', '.join(missed)}, but not again: left out")
            self.aside.append(("left out", first))
        return second
