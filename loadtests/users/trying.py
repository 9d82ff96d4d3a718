"""Clients as they also are: they lose their connections, leave, read slowly, wait for silent models, and idle."""

import itertools
from typing import ClassVar

import gevent
from locust import constant

from loadtests.observation import Observation, Outcome
from loadtests.reading import Reading
from loadtests.surfaces import Wish
from loadtests.telemetry import now
from loadtests.users.base import StreamingUser
from loadtests.users.native import PROMPT

# Longer than a heartbeat's 15 s, shorter than what the first token may take.
SILENCE_MS = 20_000
SLOW_READ_SECONDS = 0.05
SLOW_SECONDS_MAX = 60.0
# More than NGINX and the kernel hold for a reader.
SLOW_TOKENS = 20_000
# As long as load balancers commonly let a connection idle, less a little.
IDLE_SECONDS = 25
# By the count and not by chance, so that a short test has some of either.
_ANSWERS = itertools.count()


class Reconnecting(StreamingUser):
    """Loses its connection twice in every answer, as on a train, and goes on behind the last id."""

    scenario: ClassVar[str] = "reconnecting"

    def wish(self) -> Wish:
        self._cuts = sorted(self.random.sample(range(5, 75), 2))
        return Wish(PROMPT, 80, self.pace(), seed=self.random.randrange(1_000_000))

    def leaves(self, observation: Observation) -> bool:
        return bool(self._cuts) and observation.tokens >= self._cuts[0]

    def _read(self, response: object, reading: Reading) -> str:
        outcome = super()._read(response, reading)  # type: ignore[arg-type]
        if outcome == Outcome.CANCELLED:
            self._cuts.pop(0)
            return Outcome.TRUNCATED  # to come back, as after any other cut
        return outcome


class Impatient(StreamingUser):
    """Leaves three of ten answers in the middle, by closing the connection; has no wish to come back."""

    scenario: ClassVar[str] = "impatient"
    resumable: ClassVar[bool] = False
    expected: ClassVar[frozenset[str]] = frozenset({Outcome.FINISHED, Outcome.CANCELLED})

    def wish(self) -> Wish:
        self._leave_after = self.random.randint(1, 60) if 3 * next(_ANSWERS) % 10 < 3 else None
        return Wish(PROMPT, 80, self.pace(), seed=self.random.randrange(1_000_000))

    def leaves(self, observation: Observation) -> bool:
        return self._leave_after is not None and observation.tokens >= self._leave_after


class SlowReader(StreamingUser):
    """Takes twenty lines a second of a stream that comes as fast as it can. Leaves after a minute."""

    scenario: ClassVar[str] = "slow reader"
    resumable: ClassVar[bool] = False
    expected: ClassVar[frozenset[str]] = frozenset({Outcome.FINISHED, Outcome.CANCELLED, Outcome.RECONNECT})
    slow_seconds_max: ClassVar[float] = SLOW_SECONDS_MAX

    def wish(self) -> Wish:
        return Wish(PROMPT, SLOW_TOKENS, 0 if self.pace() else None, first_token_ms=0)

    def leaves(self, observation: Observation) -> bool:
        return now() - observation.opened > self.slow_seconds_max

    def between_reads(self) -> None:
        gevent.sleep(SLOW_READ_SECONDS)


class SilentUpstream(StreamingUser):
    """Waits for a model that thinks for 20 s: only heartbeats keep the connection, and there must be one."""

    scenario: ClassVar[str] = "silent upstream"

    def wish(self) -> Wish:
        return Wish(PROMPT, 10, self.pace(), first_token_ms=SILENCE_MS)

    def _read(self, response: object, reading: Reading) -> str:
        outcome = super()._read(response, reading)  # type: ignore[arg-type]
        if outcome == Outcome.FINISHED and not reading.observation.heartbeats:
            return Outcome.FAILED
        return outcome


class StalledUpstream(StreamingUser):
    """Meets a model that stops in the middle: the stream must end in an error, not in silence."""

    scenario: ClassVar[str] = "stalled upstream"
    expected: ClassVar[frozenset[str]] = frozenset({Outcome.FAILED})

    def wish(self) -> Wish:
        return Wish(PROMPT, 40, self.pace(), fault={"kind": "stall", "at_token": 10})


class IdleKeepAlive(StreamingUser):
    """Keeps a connection and uses it now and then: no request may meet one that is just being closed."""

    scenario: ClassVar[str] = "idle keep-alive"
    # Would ask again on another connection, and nobody would know.
    resumable: ClassVar[bool] = False
    wait_time = constant(IDLE_SECONDS)

    def wish(self) -> Wish:
        return Wish(PROMPT, 5, self.pace(), seed=self.random.randrange(1_000_000))
