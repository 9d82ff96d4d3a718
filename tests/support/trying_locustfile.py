"""Clients for Locust that have less patience than a test has time, and bounds for a machine that does much else.

Each is one of the product's with a shorter wait; what they do is the product's.
"""

from dataclasses import replace
from typing import Any, ClassVar

from locust import constant

from loadtests import arrivals, telemetry
from loadtests.surfaces import Wish
from loadtests.users.native import Batch, LongGeneration, ShortChat
from loadtests.users.trying import IdleKeepAlive, SilentUpstream, SlowReader, StalledUpstream
from loadtests.users.websocket import WebSocketChat
from tests.support.scripted_gateway import BANISHED_HOST, ENDLESS_PROMPT

# A machine that tests share stands still at times. What is told of it then is right, and no test's subject.
PATIENT_MS = 60_000.0
telemetry.LOOP_LAG_P99_MS_MAX = arrivals.LAG_P99_MS_MAX = PATIENT_MS


class Told(ShortChat):
    """Says to a scripted gateway which story it wants to hear."""

    abstract = True
    wait_time = constant(1)
    story: ClassVar[str]

    def headers(self) -> dict[str, str]:
        return super().headers() | {"X-Story": self.story}


class Wandering(Told):
    """Is sent away, cut, refused and left in silence."""

    fixed_count = 1
    story = "wander"
    scenario: ClassVar[str] = "wandering"
    network_timeout = 1.0


class WanderingSocket(WebSocketChat):
    """The same on a WebSocket."""

    fixed_count = 1
    wait_time = constant(1)
    scenario: ClassVar[str] = "wandering socket"
    network_timeout = 1.0


class Banished(WebSocketChat):
    """Is sent away again and again, and gets no farewell."""

    fixed_count = 3
    scenario: ClassVar[str] = "banished"

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self.host = (self.host or "").replace("127.0.0.1", BANISHED_HOST)


class Late(Told):
    """Gets an answer whose body ends some time behind its last event."""

    fixed_count = 1
    story = "late"
    scenario: ClassVar[str] = "late"


class Held(Told):
    """Hears heartbeats, and nothing else."""

    fixed_count = 1
    story = "endless"
    scenario: ClassVar[str] = "held"
    stream_seconds_max: ClassVar[float] = 1.0


class HeldBatch(Batch):
    """Waits for a document that never comes."""

    fixed_count = 1
    wait_time = constant(1)
    scenario: ClassVar[str] = "held batch"
    stream_seconds_max: ClassVar[float] = 1.0

    def headers(self) -> dict[str, str]:
        return super().headers() | {"X-Story": "hung"}


class HeldSocket(WebSocketChat):
    """Hears pings, and nothing else."""

    fixed_count = 1
    wait_time = constant(1)
    scenario: ClassVar[str] = "held socket"
    stream_seconds_max: ClassVar[float] = 1.0

    def wish(self) -> Wish:
        return replace(super().wish(), prompt=ENDLESS_PROMPT)


class Exiled(Told):
    """Is sent away again and again."""

    fixed_count = 1
    story = "exile"
    scenario: ClassVar[str] = "exiled"


class Cut(Told):
    """Is cut again and again, and gets nothing."""

    fixed_count = 1
    story = "cut"
    scenario: ClassVar[str] = "cut"


class Garbled(Told):
    """Gets what nobody can read."""

    fixed_count = 1
    story = "garbled"
    scenario: ClassVar[str] = "garbled"


class Ignored(Told):
    """Gets no answer, and waits a second for one."""

    fixed_count = 1
    story = "hung"
    scenario: ClassVar[str] = "ignored"
    resumable: ClassVar[bool] = False
    network_timeout = 1.0


class Waiting(Told):
    """Gets no answer, and waits for longer than the test takes."""

    fixed_count = 1
    story = "hung"
    scenario: ClassVar[str] = "waiting"


class Essay(LongGeneration):
    """One at a time."""

    fixed_count = 1


class ShortSlowReader(SlowReader):
    """Has had enough after some seconds."""

    fixed_count = 1
    slow_seconds_max: ClassVar[float] = 6.0


class ShortSilence(SilentUpstream):
    """Of a model that thinks for three seconds."""

    fixed_count = 1

    def wish(self) -> Wish:
        return replace(super().wish(), first_token_ms=3000)


class ShortStall(StalledUpstream):
    """Of a model that is given up soon."""

    fixed_count = 1


class ShortIdle(IdleKeepAlive):
    """Idles for a second, not for 25."""

    fixed_count = 1
    wait_time = constant(1)
