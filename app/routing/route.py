"""The upstreams of one model, and the rules by which a request goes from one to the next."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from app.errors import InvalidRequest
from app.providers.base import GenerationRequest, Provider
from app.routing.attempts import Attempts
from app.routing.bill import Bill
from app.routing.breaker import Breaker
from app.routing.budget import RetryBudget
from app.routing.gate import Gate
from app.routing.target import Target
from app.routing.ways import Policy, Readers, Way, ways_from

Resume = Literal["continue", "replay", "fail"]
_AFTER_TAKEOVER: dict[Resume, tuple[Way, ...]] = {"continue": ("continue", "splice"), "replay": ("splice",), "fail": ()}


@dataclass(eq=False)
class Route:
    """One for each model and worker.

    Args:
        targets: in order of preference.
        after_first_token: the policy for an answer whose upstream fails in the middle.
        resume: how a stream whose worker died is taken up.
        attempts_max: of one request, all in all.
        retry_share: repeats on the same upstream, for each request.
        total_seconds: for all attempts together; None leaves it to the stream's own bound.
        hold_tokens, hold_seconds: see `held_back`; both 0 hold nothing back.
        hedge_percentile: ask a second upstream when the first token takes longer than so many of a hundred did.
    """

    targets: Sequence[Target]
    after_first_token: Policy = "fail"  # noqa: S105 - a token of text
    resume: Resume = "fail"
    attempts_max: int = 6
    retry_share: float = 0.2
    total_seconds: float | None = None
    hold_tokens: int = 0
    hold_seconds: float = 0.0
    hedge_percentile: int | None = None
    budget: RetryBudget = field(init=False)
    ways: tuple[Way, ...] = field(init=False)
    ways_after_takeover: tuple[Way, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.budget = RetryBudget(self.retry_share)
        self.ways = ways_from(self.after_first_token)
        taken = _AFTER_TAKEOVER[self.resume]
        self.ways_after_takeover = (*taken, *(way for way in self.ways if way not in taken)) if taken else ()

    @classmethod
    def to(cls, provider: Provider, resume: Resume = "fail") -> "Route":
        """A route to one provider, which is asked once."""
        target = Target("only", provider, Gate(100_000, 0, 1.0), Breaker(0, 1.0))
        target.prefill = "whole" if resume == "continue" else "none"
        return cls([target], resume=resume)

    @property
    def holds_back(self) -> bool:
        return bool(self.hold_tokens or self.hold_seconds)

    def begin(self, request: GenerationRequest, said: str, readers: Readers, bill: Bill) -> Attempts:
        """A generation, which asks nobody before its first event is wanted.

        Args:
            said, readers, bill: see `Attempts`.

        Raises:
            InvalidRequest: no upstream takes such a request.
        """
        self.budget.earn()
        return Attempts(self, request, said, readers, bill)

    def order(self, request: GenerationRequest) -> list[Target]:
        """The targets that take the request: one drawn by weight, then the others as they are listed.

        Raises:
            InvalidRequest: there is none.
        """
        able = [target for target in self.targets if target.takes(request)]
        if not able:
            raise InvalidRequest("This model takes no tools.")
        weighted = [target for target in able if target.weight]
        if not weighted:
            return able
        first = random.choices(weighted, [target.weight or 0 for target in weighted])[0]  # noqa: S311
        return [first, *(each for each in weighted if each is not first), *(each for each in able if not each.weight)]

    def seconds_within(self, bound: float) -> float:
        """How long a generation may take, where none may take longer than `bound`."""
        return min(bound, self.total_seconds or bound)

    async def aclose(self) -> None:
        """Close the providers."""
        for target in self.targets:
            await target.provider.aclose()
