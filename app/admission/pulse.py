"""How far the event loop is behind, and what the workers of a machine carry together: looked at ten times a second.

The second guard of admission. A place is one stream of the usual kind; where streams are dearer than that, or the
machine is busy with something else, every stream of the worker gets late, and one more makes all of them later.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from app.admission.places import Places

PERIOD_SECONDS = 0.1
# The lag that stays, and not a burst (a collection of garbage, one long prompt): the least of the last half second.
SAMPLES = 5
# Five tokens of a stream of 20 a second come at once then, which everybody sees.
LAG_SECONDS_MAX = 0.25


class Pulse:
    """One for each worker; `run` is its task.

    Args:
        pod_places_max: generations at a time of all workers of the machine. More of them than usual live during a
            reload, when those that go still generate.
        elsewhere: how many the machine's other workers have.
    """

    def __init__(self, places: Places, pod_places_max: int, elsewhere: Callable[[], int]) -> None:
        self.lag_seconds = 0.0
        """How late the last look was."""
        self.lagged: Callable[[float], None] | None = None
        """Told of each look how late it was."""
        self._places = places
        self._pod_places_max = pod_places_max
        self._elsewhere = elsewhere
        self._elsewhere_now = elsewhere()  # a worker that has just begun is asked before its first look
        self._lags: deque[float] = deque([0.0] * SAMPLES, maxlen=SAMPLES)
        places.closed_by = self._closed_by

    @property
    def standing_lag_seconds(self) -> float:
        """By how much the event loop is behind all the time."""
        return min(self._lags)

    async def run(self) -> None:
        """Look, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + PERIOD_SECONDS
            await asyncio.sleep(PERIOD_SECONDS)
            self.look(max(0.0, loop.time() - due))

    def look(self, lag_seconds: float) -> None:
        """Once more, so much later than it was due."""
        self.lag_seconds = lag_seconds
        self._lags.append(lag_seconds)
        if self.lagged is not None:
            self.lagged(lag_seconds)
        self._elsewhere_now = self._elsewhere()
        # Places that others of the machine have given back, or a lag that is over.
        self._places.admit()

    def _closed_by(self) -> str | None:
        if self.standing_lag_seconds > LAG_SECONDS_MAX:
            return "lag"
        return "pod" if self._places.active + self._elsewhere_now >= self._pod_places_max else None
