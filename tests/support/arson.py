"""Sets fire to a running chain: random signals at random workers, from a seed that is printed."""

import asyncio
import contextlib
import os
import random
import signal
from dataclasses import dataclass, field
from time import monotonic
from typing import NamedTuple

import psutil

from tests.support.chain import Chain

# How often each is chosen. HUP costs most: no dead worker is replaced until Gunicorn's reload is over.
DEEDS = {"KILL": 5, "TERM": 4, "ABRT": 3, "STOP": 4, "HUP": 1}
STOPPED_SECONDS = (1.0, 8.0)
PAUSE_SECONDS = (0.8, 2.0)


class Deed(NamedTuple):
    """What was done to whom; `seconds` is how long a stopped worker stood still."""

    at_seconds: float
    name: str
    pid: int
    seconds: float = 0.0

    def __str__(self) -> str:
        lasting = f" for {self.seconds:.1f} s" if self.seconds else ""
        return f"{self.at_seconds:5.1f} s  {self.name} {self.pid}{lasting}"


@dataclass
class Arsonist:
    """`await burn(seconds)`; whoever still stands still at its end goes on.

    Args:
        pause_seconds: between two deeds, from and to.
        deeds: how often each is chosen.
        stopped_seconds: how long a stopped worker stands still.
    """

    chain: Chain
    seed: int
    pause_seconds: tuple[float, float] = PAUSE_SECONDS
    deeds: dict[str, int] = field(default_factory=lambda: dict(DEEDS))
    stopped_seconds: tuple[float, float] = STOPPED_SECONDS
    done: list[Deed] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)
        self._stopped: dict[int, asyncio.TimerHandle] = {}

    async def burn(self, seconds: float) -> None:
        began = monotonic()
        try:
            while monotonic() - began < seconds:
                self._do(monotonic() - began)
                await asyncio.sleep(self._rng.uniform(*self.pause_seconds))
        finally:
            for pid in list(self._stopped):
                self._go_on(pid)

    @property
    def hit(self) -> set[int]:
        """The workers that lost their streams by this, or may have."""
        return {deed.pid for deed in self.done}

    @property
    def killed(self) -> set[int]:
        """Those of them that could not let go of their streams first."""
        return {deed.pid for deed in self.done if deed.name in ("KILL", "ABRT", "STOP")}

    def _do(self, at_seconds: float) -> None:
        name = self._rng.choices(list(self.deeds), list(self.deeds.values()))[0]
        workers = self.chain.worker_pids()
        if name == "HUP":
            # To the master, and so to every worker.
            self.done += [Deed(at_seconds, "HUP", pid) for pid in workers]
            os.kill(self.chain.gunicorn_pid(), signal.SIGHUP)
            return
        if not workers:
            return
        pid = self._rng.choice(workers)
        seconds = self._rng.uniform(*self.stopped_seconds) if name == "STOP" else 0.0
        self.done.append(Deed(at_seconds, name, pid, seconds))
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, getattr(signal, f"SIG{name}"))
        if name == "STOP" and pid not in self._stopped:
            self._stopped[pid] = asyncio.get_running_loop().call_later(seconds, self._go_on, pid)

    def _go_on(self, pid: int) -> None:
        self._stopped.pop(pid).cancel()
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(pid).resume()
