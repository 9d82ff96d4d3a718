"""What a generation takes of its caller's account: requests, tokens and a slot, all at once before it begins.

A request that bounds its answer gets so many tokens or is refused. For one that does not, some are taken, and more
while it runs: its stream ends where nothing is left of the minute. What was not used is given back at the end.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec
from starlette.types import Scope

from app.errors import LimitExceeded, RateLimited
from app.limits.account import ACCEPTED, NO_SLOT, TOKENS, Ask, Cost, Limit, Return, Taken
from app.limits.headers import limit_headers
from app.limits.limiter import Limiter
from app.scope import set_headers
from app.streams.account import Account
from app.streams.grant import Grant
from app.tiers import Tier

MINUTE_MS = 60_000
# A request that does not bound its answer is refused where less than this is left for it: hardly a sentence.
OUTPUT_TOKENS_MIN = 32
# What is taken at a time for an answer without a bound: longer than most are. All that is left of the minute would keep
# the caller's other streams from beginning.
OUTPUT_TOKENS_STEP = 4_096
# Of text that nobody has counted yet; the upstream's own count replaces it at the end.
CHARACTERS_PER_TOKEN = 4
# The name of a slot that nobody has.
NOBODY = "?"


class Hold(msgspec.Struct, frozen=True):
    """What was taken for a generation that is about to begin.

    Args:
        grant: to be kept with the stream; None where nothing is counted.
        ask, taken: what has to be given back if it does not begin; None where that is nothing.
    """

    grant: Grant | None
    ask: Ask | None = None
    taken: Taken | None = None

    @property
    def returns(self) -> list[Return]:
        """Gives all of it back."""
        if self.ask is None or self.taken is None:
            return []
        pairs = zip(self.ask.costs, self.taken.shares, strict=True)
        returns = [
            Return(self.ask.key, cost.limit.name, cost.limit.window_ms, got.window, got.granted) for cost, got in pairs
        ]
        if self.ask.slot:
            returns.append(Return(self.ask.key, "", 0, 0, 0, self.ask.slot))
        return returns


class Payer(Protocol):
    """Whose account it is."""

    @property
    def account(self) -> str: ...

    @property
    def tier(self) -> Tier: ...


class Wish(Protocol):
    """What is to be generated, as far as it decides how much that is."""

    @property
    def messages(self) -> Sequence[Mapping[str, Any]]: ...

    @property
    def max_tokens(self) -> int | None: ...


class _Need(NamedTuple):
    """What a request comes to; `ask` is None where nothing is counted."""

    ask: Ask | None
    input_tokens: int
    output_max: int | None


class Quotas:
    """One for each worker.

    Args:
        tiers: by name.
    """

    def __init__(self, limiter: Limiter, tiers: Mapping[str, Tier]) -> None:
        self._limiter = limiter
        self._tiers = tiers

    @property
    def limiter(self) -> Limiter:
        return self._limiter

    @property
    def tiers(self) -> Mapping[str, Tier]:
        return self._tiers

    def output_max(self, tier: Tier, asked: int | None) -> int | None:
        """How long an answer may be, in tokens.

        Raises:
            LimitExceeded: more was asked for than the tier may.
        """
        if asked is not None and tier.max_tokens is not None and asked > tier.max_tokens:
            raise LimitExceeded(f"max_tokens: at most {tier.max_tokens} in your tier.")
        return asked or tier.max_tokens

    async def take(
        self,
        scope: Scope,
        payer: Payer,
        rates: Sequence[Limit],
        slot: str,
        request: Wish,
        answers: int = 1,
    ) -> Hold:
        """Take what a generation may need; the answer's headers say what is left.

        Args:
            rates: the request limits of the route.
            slot: names the generation.
            answers: how many the request asks for, each of which counts as a request and as long as `max_tokens`.

        Raises:
            RateLimited: a limit is reached; nothing was taken.
            LimitExceeded: it can never be had.
        """
        need = self._need(payer, rates, slot, request, answers)
        if need.ask is None:
            return Hold(Grant(payer.account, output_tokens_max=need.output_max) if need.output_max else None)
        taken, alone = await self._take(scope, need.ask)
        return _hold(need.ask, taken, alone, payer.tier, need.input_tokens, need.output_max)

    async def look(
        self, scope: Scope, payer: Payer, rates: Sequence[Limit], key: str, request: Wish, answers: int = 1
    ) -> None:
        """Whether `take` would refuse, for a request that costs something before it is known in full. Takes nothing.

        Args:
            key: what the request is joined by, if by anything.

        Raises:
            RateLimited, LimitExceeded: as `take` does.
        """
        need = self._need(payer, rates, key or NOBODY, request, answers)
        if need.ask is not None:
            await self._take(scope, need.ask._replace(look=True))

    def _need(self, payer: Payer, rates: Sequence[Limit], slot: str, request: Wish, answers: int) -> _Need:
        tier, asked = payer.tier, request.max_tokens
        output_max = self.output_max(tier, asked)
        if tier.max_tokens is None and tier.tokens_per_minute is None:
            output_max = None  # what a caller without bounds asks of himself is his upstream's to keep
        if answers > min((limit.most for limit in rates), default=answers):
            raise LimitExceeded(f"{answers} requests at once are more than your tier has.")
        if answers > 1:
            output_max, asked = output_max and output_max * answers, asked and asked * answers
        costs = [Cost(limit, answers, answers) for limit in rates]
        input_tokens = 0
        if tier.tokens_per_minute is not None:
            input_tokens = estimate(request.messages)
            costs.append(_tokens_cost(tier.tokens_per_minute, input_tokens, output_max, asked))
        slots_max = tier.concurrent_streams or 0
        if not costs and not slots_max:
            return _Need(None, input_tokens, output_max)
        slot = slot if slots_max else ""
        ask = Ask(payer.account, tuple(costs), slot, slots_max, self._limiter.slot_ms)
        return _Need(ask, input_tokens, output_max)

    async def _take(self, scope: Scope, ask: Ask) -> tuple[Taken, bool]:
        taken, alone = await self._limiter.take(ask)
        if not ask.look or taken.refused != ACCEPTED:  # which says what is left once it is taken
            set_headers(scope, limit_headers(ask, taken))
        if taken.refused != ACCEPTED:
            raise refusal(ask, taken)
        return taken, alone

    async def extend(self, grant: Grant) -> Grant | None:
        """More for a stream that has used up what it was granted; None where nothing is left."""
        limit = Limit(TOKENS_PER_MINUTE, MINUTE_MS, grant.minute_tokens_max)
        wanted = min(OUTPUT_TOKENS_STEP, grant.more_tokens)
        ask = Ask(grant.account, (Cost(limit, wanted, min(OUTPUT_TOKENS_MIN, wanted)),))
        taken, alone = await self._limiter.take_more(ask)
        if taken.refused != ACCEPTED:
            return None
        got = taken.shares[0]
        return msgspec.structs.replace(
            grant,
            # What only this process knows of cannot be given back with what all know of; it was used.
            tokens=grant.tokens + got.granted if alone == grant.alone else grant.tokens,
            window=got.window if alone == grant.alone else grant.window,
            output_tokens_max=grant.output_tokens_max + got.granted,
            more_tokens=grant.more_tokens - got.granted,
        )

    async def count(self, scope: Scope, account: str, limits: tuple[Limit, ...]) -> None:
        """Take one of each limit for a request that generates nothing.

        Raises:
            RateLimited: a limit is reached; nothing was taken.
        """
        await self._take(scope, Ask(account, tuple(Cost(limit) for limit in limits)))

    def cancel(self, hold: Hold) -> None:
        """The generation does not begin: give everything back."""
        if hold.grant is not None and hold.ask is not None:
            self._limiter.give_back(hold.returns, hold.grant.alone)

    def settle(self, account: Account) -> None:
        """A generation is over here: what it did not use is given back, unless another worker goes on with it."""
        if account.grant is not None and account.outcome != "moved":
            self._settle(account.grant, account.input_tokens + account.output_tokens)

    def _settle(self, grant: Grant, tokens: int) -> None:
        if grant.slot or grant.tokens:
            unused = grant.tokens - tokens if grant.tokens else 0
            back = Return(grant.account, TOKENS_PER_MINUTE, MINUTE_MS, grant.window, unused, grant.slot)
            self._limiter.give_back([back], grant.alone)


TOKENS_PER_MINUTE = f"{TOKENS}/60"
# More than any stream will ever have.
UNBOUNDED_TOKENS = 1_000_000_000


def estimate(messages: Sequence[Mapping[str, Any]]) -> int:
    """About how many tokens these are, to be read."""
    characters = 0
    for message in messages:
        content = message.get("content")
        parts = content if isinstance(content, list) else [{"text": content}]
        texts = (part.get("text") for part in parts if isinstance(part, dict))
        characters += sum(len(text) for text in texts if isinstance(text, str))
    return characters // CHARACTERS_PER_TOKEN + 1


def refusal(ask: Ask, taken: Taken) -> RateLimited:
    """Why, and when to come back."""
    if taken.refused == NO_SLOT:
        return RateLimited(f"Too many streams at a time: {ask.slots_max}.", retry_after_seconds=1)
    # Behind the last limit that stands in the way, so that nobody comes back to be refused by the next.
    retry_ms = max(got.retry_ms for got in taken.shares)
    limit = ask.costs[taken.refused].limit
    what = "tokens" if limit.name == TOKENS_PER_MINUTE else "requests"
    message = f"Too many {what}: {limit.most} in {limit.window_ms // 1000} s."
    return RateLimited(message, retry_after_seconds=max(1, -(-retry_ms // 1000)))


def _tokens_cost(per_minute: int, input_tokens: int, output_max: int | None, asked: int | None) -> Cost:
    limit = Limit(TOKENS_PER_MINUTE, MINUTE_MS, per_minute)
    wanted = input_tokens + (asked or min(OUTPUT_TOKENS_STEP, output_max or per_minute))
    least = wanted if asked is not None else input_tokens + min(OUTPUT_TOKENS_MIN, output_max or OUTPUT_TOKENS_MIN)
    if least > per_minute:
        raise LimitExceeded(f"This needs more tokens than your tier has in a minute ({per_minute}).")
    return Cost(limit, min(wanted, per_minute), least)


def _hold(ask: Ask, taken: Taken, alone: bool, tier: Tier, input_tokens: int, output_max: int | None) -> Hold:
    if taken.joined:
        # Part of what was counted already: there is nothing to give back, and its record says what it was given.
        return Hold(Grant(ask.key, ask.slot, 0, 0, output_max or 0, alone))
    if tier.tokens_per_minute is None:
        return Hold(Grant(ask.key, ask.slot, 0, 0, output_max or 0, alone), ask, taken)
    tokens = taken.shares[-1]
    left = max(1, tokens.granted - input_tokens)
    more = max(0, (output_max or UNBOUNDED_TOKENS) - left)
    grant = Grant(ask.key, ask.slot, tokens.granted, tokens.window, left, alone, more, tier.tokens_per_minute)
    return Hold(grant, ask, taken)
