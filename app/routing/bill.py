"""What a stream cost: the tokens of all its attempts, by the upstreams' count where they say, else by ours."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from app.events import Usage


class Price(NamedTuple):
    """Of a million tokens, in whatever currency the operator counts."""

    input: float = 0.0
    output: float = 0.0

    def of(self, usage: Usage) -> float:
        return (usage.input_tokens * self.input + usage.output_tokens * self.output) / 1_000_000


@dataclass
class Item:
    """One attempt. `usage` is the upstream's figure, where it gave one."""

    upstream: str
    price: Price | None
    input_tokens: int
    output_tokens: int = 0
    usage: Usage | None = None

    @property
    def counted(self) -> Usage:
        return self.usage or Usage(self.input_tokens, self.output_tokens)


@dataclass
class Bill:
    """All attempts of one stream on this worker. `rescued`: one of them failed in the middle of its answer.

    `more`, if it is set, takes more of the caller's tokens than the stream was given, and says how many.
    """

    stream_id: str
    items: list[Item] = field(default_factory=list)
    rescued: bool = False
    more: Callable[[], Awaitable[int]] | None = None

    @property
    def usage(self) -> Usage:
        counts = [item.counted for item in self.items]
        return Usage(sum(count.input_tokens for count in counts), sum(count.output_tokens for count in counts))

    @property
    def cost(self) -> float | None:
        """None where no upstream that was asked has a price."""
        costs = [item.price.of(item.counted) for item in self.items if item.price is not None]
        return round(sum(costs), 9) if costs else None

    @property
    def upstream(self) -> str | None:
        """Who was asked last."""
        return self.items[-1].upstream if self.items else None
