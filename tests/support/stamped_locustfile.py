"""A client for Locust that keeps what `loadtests/bench/origin` says of its tokens: when each was sent.

Beside the journal it leaves a line for each stream, in the journal's clock, so that a token's sending can be compared
with what Locust says of its arrival. Locust measures as ever; this only reads the texts that it throws away.
"""

import json
import re
import time
from pathlib import Path
from typing import Any

from locust.contrib.fasthttp import ResponseContextManager

from loadtests.reading import Reading
from loadtests.sse import Event
from loadtests.surfaces import Meaning, OpenAI
from loadtests.telemetry import now
from loadtests.users.openai import OpenAIChat

STAMP = re.compile(r"@\d+:(\d+) ")
# From the kernel's monotonic clock, which the origin reads, to the journal's.
_OFFSET_MS = 1000 * now() - time.monotonic_ns() / 1e6


class Stamps(OpenAI):
    """OpenAI's route, with the moments at which tokens were sent; of several in one event the first."""

    def __init__(self) -> None:
        self.sent_ms: list[float] = []

    def meaning(self, event: Event) -> Meaning:
        meaning = super().meaning(event)
        if meaning is Meaning.TOKEN and (found := STAMP.search(event.data)):
            self.sent_ms.append(int(found[1]) / 1e6 + _OFFSET_MS)
        return meaning


class StampedChat(OpenAIChat):
    """Asks an origin through Sluice."""

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self.stamps = Stamps()
        vars(self)["surface"] = self.stamps  # one for each user, which has one stream at a time; others share theirs

    def _read(self, response: ResponseContextManager, reading: Reading) -> str:
        self.stamps.sent_ms = []
        outcome = super()._read(response, reading)
        line = {"stream_id": reading.observation.stream_id, "sent_ms": self.stamps.sent_ms}
        with (Path(self.options.records) / "sent.stamps").open("a") as file:
            file.write(json.dumps(line) + "\n")
        return outcome
