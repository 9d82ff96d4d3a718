"""What the workers of one Gunicorn know of each other, by memory that they inherit from its master."""

import mmap
import os
import secrets
import struct
from dataclasses import dataclass, field

# Deaths that are remembered. A worker looks ten times a second, and a new one has to hear of those from before.
DEATHS_MAX = 256
# Workers that may be alive at one time, old ones that drain included.
WORKERS_MAX = 4096
_AGE = struct.Struct("=Q")


class Pod:
    """Made in the master before the first fork."""

    def __init__(self) -> None:
        self._name = secrets.token_hex(4)
        self._draining = mmap.mmap(-1, 1)
        # A byte for each age: whether that worker stops of itself.
        self._retiring = mmap.mmap(-1, WORKERS_MAX)
        # How many have died, then the ages of the last of them, in a ring. Only the master writes.
        self._deaths = mmap.mmap(-1, _AGE.size * (1 + DEATHS_MAX))

    @property
    def draining(self) -> bool:
        """Whether Gunicorn itself is about to stop, and not only one worker."""
        return self._draining[0] == 1

    def drain(self) -> None:
        self._draining[0] = 1

    def bury(self, age: int) -> None:
        """A worker died: the others end its lease, and take over what it produced."""
        count = self._read(0)
        self._write(1 + count % DEATHS_MAX, age)
        self._write(0, count + 1)  # last, for whoever reads meanwhile

    def retire(self, age: int) -> None:
        """The worker has served enough: another one is to take its place, while it drains."""
        self._retiring[age % WORKERS_MAX] = 1

    def retires(self, age: int) -> bool:
        return self._retiring[age % WORKERS_MAX] == 1

    def identity(self, age: int) -> "Identity":
        """Of the worker that is about to be forked; `age` is Gunicorn's number of it."""
        self._retiring[age % WORKERS_MAX] = 0
        return Identity(self._owner(age), self)

    def dead_since(self, count: int) -> tuple[int, list[str]]:
        """How many have died by now, and the names of those beyond the first `count`, as far as they are remembered."""
        now = self._read(0)
        first = max(count, now - DEATHS_MAX)
        return now, [self._owner(self._read(1 + number % DEATHS_MAX)) for number in range(first, now)]

    def _owner(self, age: int) -> str:
        return f"{self._name}-{age}"

    def _read(self, place: int) -> int:
        (number,) = _AGE.unpack_from(self._deaths, place * _AGE.size)
        return int(number)

    def _write(self, place: int, number: int) -> None:
        _AGE.pack_into(self._deaths, place * _AGE.size, number)


@dataclass
class Identity:
    """Who a worker is to the stream log.

    Args:
        owner: its name, of no other worker before or after it.
    """

    owner: str
    pod: Pod = field(default_factory=Pod)
    _deaths_heard: int = 0

    @classmethod
    def alone(cls) -> "Identity":
        """Of a process that no Gunicorn started."""
        return cls(f"{secrets.token_hex(4)}-{os.getpid()}")

    def newly_dead(self) -> list[str]:
        """The names of workers of this pod that died since this was asked last, or ever."""
        self._deaths_heard, owners = self.pod.dead_since(self._deaths_heard)
        return owners
