"""What an answer says of the caller's limits: `RateLimit`, `RateLimit-Policy`, and the older `X-RateLimit-*`.

https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/
"""

from functools import lru_cache
from typing import NamedTuple

from app.limits.account import ACCEPTED, TOKENS, Ask, Cost, Limit, Share, Taken
from app.scope import Headers


def limit_headers(ask: Ask, taken: Taken) -> Headers:
    """The headers of an answer to a request that took this, or was refused."""
    said = _said(tuple([cost.limit for cost in ask.costs]), ask.slots_max)
    left = [max(0, cost.limit.most - got.used) for cost, got in zip(ask.costs, taken.shares, strict=True)]
    if taken.refused == ACCEPTED:
        counted = left if not ask.slots_max else [*left, max(0, ask.slots_max - taken.slots)]
        remaining = said.remaining % tuple(counted)
    else:
        remaining = _with_times(ask, taken)
    headers = [(b"ratelimit-policy", said.policy), (b"ratelimit", remaining)]
    if said.requests:
        # These have one limit: the request limit of which the least is left.
        place = min(said.requests, key=lambda place: left[place] / ask.costs[place].limit.most)
        headers.append((b"x-ratelimit-limit", b"%d" % ask.costs[place].limit.most))
        headers.append((b"x-ratelimit-remaining", b"%d" % left[place]))
    return headers


def _with_times(ask: Ask, taken: Taken) -> bytes:
    """What is left, and when there is more."""
    left = [_left(cost, got) for cost, got in zip(ask.costs, taken.shares, strict=True)]
    if ask.slots_max:
        left.append(b'"streams";r=%d' % max(0, ask.slots_max - taken.slots))
    return b", ".join(left)


def _left(cost: Cost, got: Share) -> bytes:
    text = b'"%b";r=%d' % (cost.limit.name.encode(), max(0, cost.limit.most - got.used))
    return text if not got.retry_ms else b"%b;t=%d" % (text, -(-got.retry_ms // 1000))


class _Said(NamedTuple):
    """What is the same for all callers of a tier: the policy, a format for what is left, and which limits are on
    requests."""

    policy: bytes
    remaining: bytes
    requests: tuple[int, ...]


@lru_cache(maxsize=1024)
def _said(limits: tuple[Limit, ...], slots_max: int) -> _Said:
    policy = [_quota(limit) for limit in limits]
    remaining = [b'"%b";r=%%d' % limit.name.encode() for limit in limits]
    if slots_max:
        policy.append(b'"streams";q=%d;qu="concurrent-streams"' % slots_max)
        remaining.append(b'"streams";r=%d')
    requests = tuple(place for place, limit in enumerate(limits) if not limit.name.startswith(TOKENS))
    return _Said(b", ".join(policy), b", ".join(remaining), requests)


def _quota(limit: Limit) -> bytes:
    unit = b';qu="tokens"' if limit.name.startswith(TOKENS) else b""
    return b'"%b";q=%d;w=%d%b' % (limit.name.encode(), limit.most, limit.window_ms // 1000, unit)
