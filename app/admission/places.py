"""How many streams this worker generates at a time: places, who waits for one, and who is refused.

One generation has one place, from before its stream is made until nothing more comes of it. Nothing here is asked by a
token. What resumes asks for nothing; a stream that is taken over from another worker is let in past everybody.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable

from app.admission.queue import Queue
from app.errors import Overloaded

# Who comes back at once finds the same crowd; with so much spread, a crowd that was refused together does not.
RETRY_AFTER_SECONDS = (1, 8)


class Place:
    """One generation's, held or waited for; made by `Places`."""

    def __init__(self, places: "Places", principal: str, priority: int) -> None:
        self.principal = principal
        self.priority = priority
        self.held = False
        self._places = places
        self._since = 0.0
        self._turn: asyncio.Future[None] | None = None

    @property
    def ahead(self) -> int:
        """How many are before it; 0 once it is held."""
        return self._places.ahead(self)

    async def turn(self) -> None:
        """Wait until it is held. Whoever stops waiting has left.

        Raises:
            Overloaded: it was not to be had in time, or somebody with a better claim came.
        """
        if self._turn is None:
            return
        try:
            await self._turn
        except BaseException:
            self.leave()
            raise

    def leave(self) -> None:
        """Give it back, or wait for it no longer. Once is enough, and more does no harm."""
        if self._turn is not None and self._turn.done() and not self._turn.cancelled():
            self._turn.exception()  # looked at: asyncio reports a refusal that nobody waits for any more
        self._places.leave(self)

    def wait(self, now: float, turn: asyncio.Future[None]) -> None:
        self._since, self._turn = now, turn

    def hold(self, now: float) -> float:
        """It is this one's turn; returns how long it waited."""
        self.held = True
        if self._turn is None:
            return 0.0
        if not self._turn.done():  # whoever stopped waiting a moment ago leaves at once
            self._turn.set_result(None)
        return now - self._since

    def refuse(self, error: Overloaded) -> None:
        assert self._turn is not None
        if not self._turn.done():
            self._turn.set_exception(error)


class Places:
    """One for each worker.

    Args:
        places_max: generations at a time.
        waiting_max: who may wait for a place.
        wait_seconds: how long, where the answer's status waits too.
    """

    def __init__(self, places_max: int, waiting_max: int, wait_seconds: float) -> None:
        self.places_max = places_max
        self.active = 0
        """Places that are held."""
        self.shed: Counter[str] = Counter()
        """How many were refused, by reason: `queue_full`, `timeout`, `lag`."""
        self.waited: Callable[[float], None] | None = None
        """Told of each who got a place how many seconds it waited, 0 for most."""
        self.closed_by: Callable[[], str | None] = lambda: None
        """Why nobody may begin just now although there are places; `lag` refuses, anything else has them wait."""
        self.changed: Callable[[int], None] = lambda _: None
        """Told `active` whenever it changes."""
        self._wait_seconds = wait_seconds
        self._queue: Queue[Place] = Queue(waiting_max)
        self._timers: dict[Place, asyncio.TimerHandle] = {}

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._queue)

    def take_now(self, principal: str, priority: int = 0) -> Place | None:
        """A place, if there is one and nobody waits for it."""
        if self._queue or not self._open:
            return None
        return self._given(Place(self, principal, priority))

    def take_past_all(self) -> Place:
        """A place beyond all bounds, for what was let in before: a stream whose worker is gone."""
        place = Place(self, "", 0)
        place.held = True
        self._count(1)
        return place

    def queue(self, principal: str, priority: int = 0, seconds: float | None = None) -> Place:
        """A place to be waited for, by its `turn`.

        Args:
            seconds: how long; by default as long as a status may wait.

        Raises:
            Overloaded: too many wait already, or the event loop is behind.
        """
        if self.closed_by() == "lag":
            raise self._overloaded("lag")
        loop = asyncio.get_running_loop()
        place = Place(self, principal, priority)
        place.wait(loop.time(), loop.create_future())
        pushed_out = self._queue.join(place)
        if pushed_out is place:
            raise self._overloaded("queue_full")
        self._timers[place] = loop.call_later(self._wait_seconds if seconds is None else seconds, self._expire, place)
        if pushed_out is not None:
            self._forget_timer(pushed_out)
            pushed_out.refuse(self._overloaded("queue_full"))
        return place

    def admit(self) -> None:
        """Give the places that are free to whoever's turn it is."""
        while self._queue and self._open:
            place = self._queue.next()
            assert place is not None
            self._forget_timer(place)
            self._given(place)

    def ahead(self, place: Place) -> int:
        return self._queue.ahead(place) if place in self._timers else 0

    def leave(self, place: Place) -> None:
        if place.held:
            place.held = False
            self._count(-1)
            self.admit()
        elif place in self._timers:
            self._forget_timer(place)
            self._queue.leave(place)

    @property
    def _open(self) -> bool:
        return self.active < self.places_max and self.closed_by() is None

    def _given(self, place: Place) -> Place:
        self._count(1)
        waited = place.hold(asyncio.get_running_loop().time())
        if self.waited is not None:
            self.waited(waited)
        return place

    def _count(self, change: int) -> None:
        self.active += change
        self.changed(self.active)

    def _expire(self, place: Place) -> None:
        del self._timers[place]
        self._queue.leave(place)
        place.refuse(self._overloaded("timeout"))

    def _forget_timer(self, place: Place) -> None:
        self._timers.pop(place).cancel()

    def _overloaded(self, reason: str) -> Overloaded:
        self.shed[reason] += 1
        return Overloaded(
            "The server is at its capacity.",
            detail=reason,
            retry_after_seconds=random.randint(*RETRY_AFTER_SECONDS),  # noqa: S311
        )
