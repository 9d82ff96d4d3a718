"""What an answer says of the caller's limits: `RateLimit`, `RateLimit-Policy`, and the older `X-RateLimit-*`.

https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/
"""

from functools import lru_cache

from app.limits.account import TOKENS, Ask, Cost, Limit, Share, Taken
from app.scope import Headers


def limit_headers(ask: Ask, taken: Taken) -> Headers:
    """The headers of an answer to a request that took this, or was refused."""
    headers = [(b"ratelimit-policy", _policy(tuple(cost.limit for cost in ask.costs), ask.slots_max))]
    left = [_left(cost, got) for cost, got in zip(ask.costs, taken.shares, strict=True)]
    if ask.slots_max:
        left.append(b'"streams";r=%d' % max(0, ask.slots_max - taken.slots))
    headers.append((b"ratelimit", b", ".join(left)))
    requests = [pair for pair in zip(ask.costs, taken.shares, strict=True) if not pair[0].limit.name.startswith(TOKENS)]
    if requests:
        # These have one limit: the request limit of which the least is left.
        cost, got = min(requests, key=_share_left)
        headers.append((b"x-ratelimit-limit", b"%d" % cost.limit.most))
        headers.append((b"x-ratelimit-remaining", b"%d" % max(0, cost.limit.most - got.used)))
    return headers


def _left(cost: Cost, got: Share) -> bytes:
    text = b'"%b";r=%d' % (cost.limit.name.encode(), max(0, cost.limit.most - got.used))
    return text if not got.retry_ms else b"%b;t=%d" % (text, -(-got.retry_ms // 1000))


def _share_left(pair: tuple[Cost, Share]) -> float:
    cost, got = pair
    return (cost.limit.most - got.used) / cost.limit.most


@lru_cache(maxsize=1024)
def _policy(limits: tuple[Limit, ...], slots_max: int) -> bytes:
    """The same for all callers of a tier."""
    parts = [_quota(limit) for limit in limits]
    if slots_max:
        parts.append(b'"streams";q=%d;qu="concurrent-streams"' % slots_max)
    return b", ".join(parts)


def _quota(limit: Limit) -> bytes:
    unit = b';qu="tokens"' if limit.name.startswith(TOKENS) else b""
    return b'"%b";q=%d;w=%d%b' % (limit.name.encode(), limit.most, limit.window_ms // 1000, unit)
