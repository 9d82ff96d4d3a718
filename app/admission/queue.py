"""Who waits for a place, in order: the highest priority first, and within one priority each principal in turn."""

from collections import OrderedDict, deque
from typing import Generic, Protocol, TypeVar


class Waiting(Protocol):
    """One who waits."""

    principal: str
    priority: int


Who = TypeVar("Who", bound=Waiting)
# By principal, whose turn is next first; each has its own line.
Lines = OrderedDict[str, deque[Who]]


class Queue(Generic[Who]):
    """Where it is full, whoever has the least claim has to go.

    Args:
        waiting_max: who may wait at a time.
    """

    def __init__(self, waiting_max: int) -> None:
        self._waiting_max = waiting_max
        self._classes: dict[int, Lines[Who]] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def join(self, who: Who) -> Who | None:
        """Wait at the end of the principal's line; returns who has to go for it, who may be the same."""
        lines = self._classes.setdefault(who.priority, OrderedDict())
        lines.setdefault(who.principal, deque()).append(who)
        self._size += 1
        if self._size <= self._waiting_max:
            return None
        least = self._least_claim(who)
        self.leave(least)
        return least

    def next(self) -> Who | None:
        """Whose turn it is, who waits no longer."""
        if not self._classes:
            return None
        lines = self._classes[max(self._classes)]
        principal, line = next(iter(lines.items()))
        who = line[0]
        # To the end of the round, whoever comes next: a principal with a hundred waiting gets one turn, as all others.
        lines.move_to_end(principal)
        self.leave(who)
        return who

    def leave(self, who: Who) -> None:
        """Wait no longer."""
        lines = self._classes[who.priority]
        lines[who.principal].remove(who)
        self._size -= 1
        if not lines[who.principal]:
            del lines[who.principal]
            if not lines:
                del self._classes[who.priority]

    def ahead(self, who: Who) -> int:
        """How many have their turn before, if nobody else comes."""
        before = sum(
            len(line) for priority, lines in self._classes.items() if priority > who.priority for line in lines.values()
        )
        lines = self._classes[who.priority]
        rounds = lines[who.principal].index(who)
        earlier = True  # in the round in which it has its turn
        for principal, line in lines.items():
            if principal == who.principal:
                earlier = False
                before += rounds
            else:
                before += min(len(line), rounds + earlier)
        return before

    def _least_claim(self, newcomer: Who) -> Who:
        """The last of whoever has the most waiting, in the lowest priority. Between equals the newcomer goes: else two
        principals would push each other out for ever."""
        lines = self._classes[min(self._classes)]
        most = max(len(line) for line in lines.values())
        if newcomer.priority == min(self._classes) and len(lines[newcomer.principal]) == most:
            return newcomer
        return next(line[-1] for line in lines.values() if len(line) == most)
