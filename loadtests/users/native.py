"""Clients of the native route that want an answer and take it."""

from typing import ClassVar

from loadtests.observation import Outcome
from loadtests.reading import Reading
from loadtests.surfaces import Wish
from loadtests.users.base import HTTP_OK, STREAM_SECONDS_MAX, StreamingUser

PROMPT = "Tell me of the sea, the harbour and the people who wait there."
# Of answers in conversations: half are shorter than 150 tokens, one in fifty longer than 1,100.
MEDIAN_TOKENS, SPREAD = 150, 1.0
TOKENS_MAX = 4000
PAUSE_SECONDS_MAX = 2.0


class ShortChat(StreamingUser):
    """A sentence or two, and the next question."""

    scenario: ClassVar[str] = "short chat"

    def wish(self) -> Wish:
        return Wish(PROMPT, self.random.randint(20, 100), self.pace(), seed=self.random.randrange(1_000_000))


class LongGeneration(StreamingUser):
    """An essay: few requests, long connections."""

    scenario: ClassVar[str] = "long generation"

    def wish(self) -> Wish:
        return Wish(PROMPT, 1200, self.pace(), seed=self.random.randrange(1_000_000))


class MixedSizes(StreamingUser):
    """As people use it: most answers short, some very long, and prompts of all lengths."""

    scenario: ClassVar[str] = "mixed sizes"

    def wish(self) -> Wish:
        tokens = min(TOKENS_MAX, max(1, round(self.random.lognormvariate(0, SPREAD) * MEDIAN_TOKENS)))
        prompt = " ".join([PROMPT] * self.random.choice((1, 1, 1, 10, 100)))
        return Wish(prompt, tokens, self.pace(), seed=self.random.randrange(1_000_000))

    def wait_time(self) -> float:
        """A moment to read; none where arrivals say when the next stream begins."""
        return 0.0 if self.telemetry.arrivals else self.random.uniform(0, PAUSE_SECONDS_MAX)


class Batch(StreamingUser):
    """Wants the whole answer as one document."""

    scenario: ClassVar[str] = "batch"
    resumable: ClassVar[bool] = False
    # It is silent until it is whole.
    network_timeout = STREAM_SECONDS_MAX

    def wish(self) -> Wish:
        return Wish(PROMPT, 50, self.pace(), seed=self.random.randrange(1_000_000))

    def follow(self, reading: Reading) -> str:
        body = self.surface.body(self.wish(), self.options.model) | {"stream": False}
        headers = self.headers() | {"Accept": "application/json"}
        with self.client.post(
            self.surface.path, json=body, headers=headers, catch_response=True, name=self.scenario
        ) as response:
            if response.status_code == HTTP_OK:
                said = response.json()
                reading.observation.tokens = said["usage"]["output_tokens"]
                outcome: str = Outcome.FINISHED if said["success"] else Outcome.FAILED
            else:
                outcome = f"http_{response.status_code}" if response.status_code else Outcome.REFUSED
            if outcome != Outcome.FINISHED:
                response.failure(outcome)
        return outcome
