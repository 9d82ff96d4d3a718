"""Whatever producers, readers, takeovers and trims do in whatever order: what a reader assembles is what was said.

The model keeps what the log said it took. Readers resume from any id that they saw; a former owner never gives up.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.errors import CursorGone
from app.events import Event, Reset, Token
from app.streams.log import START, Append, Cursor, successor
from tests.contract.logs import Log, Options, Place, open_log
from tests.contract.streams import DONE, begin, state

READERS = 3
EXAMPLES = 150

counts = st.integers(1, 6)
readers = st.integers(0, READERS - 1)
shares = st.floats(0, 1)
Step = tuple[object, ...]
steps = st.lists(
    st.one_of(
        st.tuples(st.just("say"), counts),
        st.tuples(st.just("say"), counts),
        st.tuples(st.just("repeat"), st.integers(0, 3)),
        st.tuples(st.just("late"), counts),
        st.tuples(st.just("take_over")),
        st.tuples(st.just("reset")),
        st.tuples(st.just("overflow"), counts),
        st.tuples(st.just("trim"), shares),
        st.tuples(st.just("read"), readers, st.integers(1, 8)),
        st.tuples(st.just("read"), readers, st.integers(1, 8)),
        st.tuples(st.just("resume"), readers, shares),
    ),
    min_size=10,
    max_size=60,
)


@dataclass
class Producer:
    """Somebody who owns the stream, or believes so."""

    fence: int
    next: Cursor
    last: Append | None = None


@dataclass
class Reading:
    """A reader: all that it saw, in order, since it began or resumed."""

    began: Cursor = START
    saw: list[tuple[Cursor, Event]] = field(default_factory=list)

    @property
    def cursor(self) -> Cursor:
        return self.saw[-1][0] if self.saw else self.began


class Play:
    """One stream, and the model of it."""

    def __init__(self, log: Log, stream_id: str) -> None:
        self.log = log
        self.stream_id = stream_id
        self.said: list[tuple[Cursor, Event]] = []
        self.trimmed = START
        self.owner = Producer(1, Cursor(0, 1))
        self.former: list[Producer] = []
        self.readers = [Reading() for _ in range(READERS)]
        self.number = 0

    async def run(self, steps: Sequence[Step]) -> None:
        for verb, *arguments in steps:
            await getattr(self, str(verb))(*arguments)
        await self.end()

    async def say(self, count: int) -> None:
        self.owner.last = self._append(self.owner, self._events(count))
        assert await self.log.append([self.owner.last]) == ["ok"]
        self._note(self.owner.last)

    async def repeat(self, more: int) -> None:
        """The answer was lost: the same again, with what came since."""
        last = self.owner.last
        if last is None or last.first <= self.trimmed:
            return
        grown = Append(self.stream_id, last.fence, last.first, [*last.events, *self._events(more)])
        assert await self.log.append([grown]) == ["ok"]
        del self.said[-len(last.events) :]
        self._note(grown)
        self.owner.last = grown

    async def late(self, count: int) -> None:
        """A former owner goes on as if nothing had happened, behind its own end and behind the log's."""
        for former in self.former:
            for first in (former.next, self.owner.next):
                append = Append(self.stream_id, former.fence, first, self._events(count))
                assert await self.log.append([append]) == ["fenced"]

    async def take_over(self) -> None:
        now = await state(self.log, self.stream_id)
        assert now.fence == self.owner.fence
        await self.log.expire(now.owner)
        fence = await self.log.claim(self.stream_id, f"w{now.fence + 1}", now.fence)
        assert fence == now.fence + 1
        self.former.append(self.owner)
        self.owner = Producer(fence, Cursor(now.last.epoch, now.last.seq + 1))

    async def reset(self) -> None:
        self.owner.next = Cursor(self.owner.next.epoch + 1, 0)
        self.owner.last = self._append(self.owner, [Reset("replay")])
        assert await self.log.append([self.owner.last]) == ["ok"]
        self._note(self.owner.last)

    async def overflow(self, count: int) -> None:
        """Events that the owner could not keep while the log was away."""
        epoch, seq = self.owner.next
        self.owner.next = Cursor(epoch, seq + count)
        await self.say(1)

    async def trim(self, share: float) -> None:
        if self.said:
            through = self.said[int(share * (len(self.said) - 1))][0]
            await self.log.trim(self.stream_id, through)
            self.trimmed = max(self.trimmed, through)

    async def read(self, number: int, page: int) -> bool:
        """One page, checked against the model; whether it brought anything."""
        reader = self.readers[number]
        run = self._run_behind(reader.cursor)
        try:
            found = await self.log.read(self.stream_id, reader.cursor, page)
        except CursorGone:
            end = run[-1][0] if run else reader.cursor
            assert reader.cursor < self.trimmed or end != self._last, "a reader was refused what is there"
            return False
        if found and run[:1] != found[:1]:
            # What a reset made void may be gone: it can be skipped for a later reset, and for nothing else.
            assert reader.cursor < self.trimmed
            assert found[0][0].seq == 0
            assert found[0][0].epoch > reader.cursor.epoch
            run = [found[0], *self._run_behind(found[0][0])]
        assert found == run[: len(found)]
        assert set(found) <= set(self.said)
        assert found or reader.cursor == self._last, "a hole was passed over in silence"
        reader.saw += found
        return bool(found)

    async def resume(self, number: int, share: float) -> None:
        """The reader comes back with an id that it, or somebody else, saw before."""
        seen = [cursor for reader in self.readers for cursor, _ in reader.saw]
        if seen:
            self.readers[number] = Reading(seen[int(share * (len(seen) - 1))])

    async def end(self) -> None:
        """The stream ends; every reader reads to the end, or to where it is told that more is gone."""
        self.owner.last = self._append(self.owner, [DONE])
        assert await self.log.append([self.owner.last]) == ["ok"]
        self._note(self.owner.last)
        for number in range(READERS):
            while await self.read(number, 5):
                pass
        await self.late(1)

    @property
    def _last(self) -> Cursor:
        return self.said[-1][0] if self.said else START

    def _events(self, count: int) -> list[Event]:
        """Texts that were never said before, so that none can stand in for another."""
        self.number += count
        return [Token(f"{number}") for number in range(self.number - count, self.number)]

    def _append(self, producer: Producer, events: Sequence[Event]) -> Append:
        return Append(self.stream_id, producer.fence, producer.next, events)

    def _note(self, append: Append) -> None:
        """The log took it."""
        epoch, first = append.first
        self.said += [(Cursor(epoch, seq), event) for seq, event in enumerate(append.events, first)]
        self.owner.next = Cursor(epoch, first + len(append.events))

    def _run_behind(self, after: Cursor) -> list[tuple[Cursor, Event]]:
        """What was said behind `after`, as far as it goes without a hole."""
        run: list[tuple[Cursor, Event]] = []
        for cursor, event in self.said:
            if cursor > after:
                if not successor(run[-1][0] if run else after, cursor):
                    break
                run.append((cursor, event))
        return run


def test_what_a_reader_assembles_is_what_was_said(place: Place) -> None:
    with asyncio.Runner() as runner:
        log = runner.run(open_log(place.address, Options()))

        async def play(steps: Sequence[Step]) -> None:
            await Play(log, await begin(log)).run(steps)

        @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
        @given(steps)
        def plays(steps: Sequence[Step]) -> None:
            runner.run(play(steps))

        try:
            plays()
        finally:
            runner.run(log.aclose())
