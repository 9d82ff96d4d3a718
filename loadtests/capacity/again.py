"""Once more, where once says little: a machine that stands still for a moment holds every stream that there is.

A miss is believed when it comes again: one such moment in a search would put the boundary where it happened to look.
What a neighbour took the core from counts for nothing, whether it missed or not. Only the search asks twice; the number
itself is what the open model carries with every seed at the first try.
"""

from collections.abc import Callable
from typing import Literal

from loadtests.capacity.objectives import Objectives
from loadtests.capacity.point import Model, Point
from loadtests.capacity.verdict import neighbour_complaints

# The second try's streams begin at other moments.
OTHER_SEEDS = 1000
# Beyond that the machine is shared for good, and the verdict says so.
DISTURBED_MAX = 2

# Why a point does not count: `left out` missed an objective and not again; a `first try` missed again, so that the
# second stands for it; a `disturbed` one had a neighbour on its core.
Aside = Literal["left out", "first try", "disturbed"]


class Again:
    """Measures as `measure` does, and a load that missed an objective once more; what was disturbed up to twice more.

    The last time stands, whatever came of it, and `aside` are those before. With one of `tries` nothing is repeated.
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
        first = self.undisturbed(model, streams, seed, seconds)
        if not (missed := first.misses(self._due)) or self._tries == 1:
            return first
        second = self.undisturbed(model, streams, seed + OTHER_SEEDS, seconds)
        if second.misses(self._due):
            self.aside.append(("first try", first))
        else:
            self._say(f"{first.label}: missed {', '.join(missed)}, but not again: left out")
            self.aside.append(("left out", first))
        return second

    def undisturbed(self, model: Model, streams: int, seed: int, seconds: float) -> Point:
        """This load as often as a neighbour disturbs it, within bounds; a miss counts at once."""
        point = self._measure(model, streams, seed, seconds)
        for _ in range(DISTURBED_MAX if self._tries > 1 else 0):
            if not (disturbed := neighbour_complaints(point)):
                break
            self._say(f"{point.label}: {', '.join(disturbed)}: measured again")
            self.aside.append(("disturbed", point))
            point = self._measure(model, streams, seed, seconds)
        return point
