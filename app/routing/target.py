"""One upstream of a model, as requests are routed to it: its provider, and what is known of how it fares."""

from collections import deque
from dataclasses import dataclass, field
from math import ceil
from time import monotonic

from app.providers.base import GenerationRequest, Provider
from app.routing.bill import Price
from app.routing.breaker import Breaker
from app.routing.gate import Gate
from app.routing.prefill import Prefill

# A percentile of fewer says nothing; older ones say little about now.
LATENCIES_MIN = 20
LATENCIES_KEPT = 200


@dataclass(eq=False)
class Target:
    """Shared by all requests of one worker.

    Args:
        protocol: what the provider speaks, for traces.
        name: for logs and accounts: the model's name and its place in the list.
        retries_max: how often one request may come back.
        weight: its share of the requests that begin here; None only takes those that fail elsewhere.
        prefill: how it is asked to go on behind a text.
        tools: whether it takes requests with tools.
    """

    name: str
    provider: Provider
    gate: Gate
    breaker: Breaker
    retries_max: int = 0
    weight: float | None = None
    prefill: Prefill = "none"
    tools: bool = True
    price: Price | None = None
    protocol: str = ""
    rests_until: float = 0.0
    _first_token_seconds: deque[float] = field(default_factory=lambda: deque(maxlen=LATENCIES_KEPT))

    @property
    def resting(self) -> bool:
        """Whether it asked not to be asked for a while."""
        return monotonic() < self.rests_until

    def rest(self, seconds: float) -> None:
        """Prefer others for so long."""
        self.rests_until = max(self.rests_until, monotonic() + seconds)

    def takes(self, request: GenerationRequest) -> bool:
        """Whether it can do what the request needs."""
        return self.tools or not (request.extra.get("tools") or request.extra.get("functions"))

    def answered_after(self, seconds: float) -> None:
        """A first token took so long."""
        self._first_token_seconds.append(seconds)

    def first_token_percentile(self, percent: int) -> float | None:
        """Within how many seconds so many of a hundred first tokens come; None while nobody knows."""
        known = sorted(self._first_token_seconds)
        return known[ceil(len(known) * percent / 100) - 1] if len(known) >= LATENCIES_MIN else None
