"""Where one request has been, and where it goes next."""

import random
from collections.abc import Callable, Sequence
from time import monotonic

from app.errors import UpstreamUnavailable
from app.routing.budget import RetryBudget
from app.routing.target import Target
from app.routing.verdict import Verdict

# Full jitter: a random moment up to a bound that doubles. Requests that failed together do not come back together.
BACKOFF_SECONDS = 0.25
BACKOFF_SECONDS_MAX = 4.0
# An upstream that asks for more patience than this is not waited for: whoever asked has a status to show for it.
RETRY_AFTER_SECONDS_MAX = 5.0


class Course:
    """Of one request.

    Args:
        targets: in the order in which they are preferred.
        attempts_max: all in all.
    """

    def __init__(self, targets: Sequence[Target], attempts_max: int, budget: RetryBudget) -> None:
        self._targets = targets
        self._attempts_left = attempts_max
        self._budget = budget
        self._tries = dict.fromkeys(targets, 0)
        self._barred: set[Target] = set()
        self._silent: set[Target] = set()
        self._ready_at = dict.fromkeys(targets, 0.0)

    def next(self, fit: Callable[[Target], bool] = lambda _: True) -> tuple[Target, float] | None:
        """The best target that is fit, and how long to wait before it is asked; None when there is none."""
        now = monotonic()
        usable = [target for target in self._targets if self._may(target) and fit(target)]
        # Who just kept silent is asked again only where nobody else is left.
        usable = [target for target in usable if target not in self._silent] or usable
        if self._attempts_left <= 0 or not usable:
            return None
        target = usable[0] if len(usable) == 1 else min(usable, key=lambda each: self._rank(each, now))
        return target, max(0.0, self._ready_at[target] - now)

    def go(self, target: Target) -> None:
        """It is asked."""
        if self._tries[target]:
            self._budget.spend()
        self._tries[target] += 1
        self._attempts_left -= 1

    def failed(self, target: Target, verdict: Verdict, retry_after_seconds: float | None) -> None:
        """It failed."""
        if not verdict.again or (retry_after_seconds or 0) > RETRY_AFTER_SECONDS_MAX:
            self._barred.add(target)
        if verdict.silent:
            self._silent.add(target)
        bound = min(BACKOFF_SECONDS * 2 ** (self._tries[target] - 1), BACKOFF_SECONDS_MAX)
        wait = (retry_after_seconds or 0.0) + random.uniform(0, bound)  # noqa: S311
        self._ready_at[target] = monotonic() + wait

    def forgive(self, target: Target) -> None:
        """What it was asked it could not know."""
        self._tries[target] -= 1

    def bar(self, target: Target) -> None:
        """Ask it no more."""
        self._barred.add(target)

    def closed(self) -> UpstreamUnavailable:
        """Why nobody was asked at all: their breakers are open."""
        wait = min((target.breaker.closed_in_seconds for target in self._targets), default=0.0)
        return UpstreamUnavailable("No upstream of the model works just now.", retry_after_seconds=int(wait) + 1)

    def _may(self, target: Target) -> bool:
        tries = self._tries[target]
        if target in self._barred or tries > target.retries_max or not target.breaker.admits:
            return False
        return not tries or self._budget.any_left

    def _rank(self, target: Target, now: float) -> tuple[bool, bool, bool, float]:
        """Those that need no patience first; among equals the order given."""
        return (self._tries[target] > 0, target.resting, not target.gate.free, max(0.0, self._ready_at[target] - now))
