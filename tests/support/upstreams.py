"""A model's upstreams that do what a test decides, and what a reader gets of them."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from app.errors import SluiceError
from app.events import Done, Reset, Token
from app.providers.base import GenerationRequest, Pour
from app.routing.bill import Bill
from app.routing.breaker import Breaker
from app.routing.gate import Gate
from app.routing.route import Route
from app.routing.target import Target
from app.routing.ways import Readers
from tests.support.providers import REQUEST, Step, Steps


class Takes:
    """A provider that does one thing at its first request, the next at its second; the last one stays."""

    def __init__(self, *takes: list[Step] | Steps) -> None:
        self.takes = [take if isinstance(take, Steps) else Steps(*take) for take in takes]
        self.requests: list[GenerationRequest] = []

    @property
    def closed(self) -> int:
        return sum(take.closed for take in self.takes)

    async def generate(
        self, request: GenerationRequest, pour: Pour | None = None
    ) -> AsyncGenerator[Token | Done, None]:
        take = self.takes[min(len(self.requests), len(self.takes) - 1)]
        self.requests.append(request)
        async with aclosing(take.generate(request)) as events:
            async for event in events:
                yield event

    async def aclose(self) -> None:
        """Nothing is held."""


def target(provider: Takes, **fields: Any) -> Target:
    """With room for all and no patience lost, unless a test says otherwise."""
    gate = fields.pop("gate", None) or Gate(100, 0, 1.0)
    breaker = fields.pop("breaker", None) or Breaker(0, 1.0)
    return Target(fields.pop("name", "up"), provider, gate, breaker, **fields)


@dataclass
class Got:
    """What a reader got."""

    events: list[Token | Done | Reset] = field(default_factory=list)
    error: SluiceError | None = None
    bill: Bill = field(default_factory=lambda: Bill("s"))

    @property
    def text(self) -> str:
        """What the reader has at the end: a reset voids what was before it."""
        text = ""
        for event in self.events:
            if isinstance(event, Reset):
                text = ""
            elif isinstance(event, Token) and event.kind == "content":
                text += event.text
        return text

    @property
    def done(self) -> Done | None:
        return self.events[-1] if self.events and isinstance(self.events[-1], Done) else None

    @property
    def code(self) -> str | None:
        return self.error.code if self.error else None

    @property
    def resets(self) -> int:
        return sum(isinstance(event, Reset) for event in self.events)


async def got(
    route: Route, readers: Readers = "bound", said: str = "", request: GenerationRequest = REQUEST, until: int = 10_000
) -> Got:
    """All of one generation, or its first `until` events."""
    found = Got()
    try:
        async with aclosing(route.begin(request, said, readers, found.bill).events(lambda _: False)) as events:
            async for event in events:
                found.events.append(event)
                if len(found.events) == until:
                    break
    except SluiceError as error:
        found.error = error
    return found
