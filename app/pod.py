"""What the workers of one Gunicorn know of each other, by memory that they inherit from its master."""

import mmap
import os
import secrets
from dataclasses import dataclass, field

DEAD_OWNERS_MAX = 256


class Pod:
    """Made in the master before the first fork."""

    def __init__(self) -> None:
        self._name = secrets.token_hex(4)
        self._draining = mmap.mmap(-1, 1)
        self._dead: list[str] = []

    @property
    def draining(self) -> bool:
        """Whether Gunicorn itself is about to stop, and not only one worker."""
        return self._draining[0] == 1

    def drain(self) -> None:
        self._draining[0] = 1

    def bury(self, owner: str) -> None:
        """A worker died; the next one that starts will end its lease."""
        self._dead = [*self._dead, owner][-DEAD_OWNERS_MAX:]

    def identity(self, age: int) -> "Identity":
        """Of the worker that is about to be forked; `age` is Gunicorn's number of it."""
        return Identity(f"{self._name}-{age}", self, tuple(self._dead))


@dataclass(frozen=True)
class Identity:
    """Who a worker is to the stream log.

    Args:
        owner: its name, of no other worker before or after it.
        dead: names of workers of this pod that died before it was forked.
    """

    owner: str
    pod: Pod = field(default_factory=Pod)
    dead: tuple[str, ...] = ()

    @classmethod
    def alone(cls) -> "Identity":
        """Of a process that no Gunicorn started."""
        return cls(f"{secrets.token_hex(4)}-{os.getpid()}")
