"""What is asked of a caller's account and what comes of it: plain values, and the arithmetic of a sliding window.

Two numbers a limit, however many requests: what the running window has, and what the one before it had, of which the
share counts that a window ending now still covers. So a boundary lets no second burst through, as it would where
counting begins anew, and no window as such ever has more than its limit.
"""

import math
from typing import NamedTuple

import msgspec

ACCEPTED, NO_SLOT = -1, -2
# The name of the one limit that does not count requests begins with this.
TOKENS = "tokens"


class Limit(msgspec.Struct, frozen=True, gc=False):
    """At most `most` within any `window_ms`; `name` tells it from the account's other limits."""

    name: str
    window_ms: int
    most: int


class Cost(NamedTuple):
    """What a request takes of one limit: `wanted` where there is room, and no less than `least`."""

    limit: Limit
    wanted: int = 1
    least: int = 1


class Ask(NamedTuple):
    """All that one request takes, to be had together or not at all.

    Args:
        key: whose account.
        slot: names what runs while the request does, for `slot_ms` unless it is renewed; empty takes none.
        slots_max: most slots of the account at one time; 0 for any number.
        look: take nothing of it, and say whether it could be had.
    """

    key: str
    costs: tuple[Cost, ...]
    slot: str = ""
    slots_max: int = 0
    slot_ms: int = 0
    look: bool = False


class Share(NamedTuple):
    """What came of one cost.

    Args:
        granted: between `least` and `wanted`; 0 where it was refused.
        used: of the limit, afterwards.
        window: the window's number, for giving back.
        retry_ms: when `least` could be had, if nobody else takes any; 0 where it can.
    """

    granted: int
    used: int
    window: int
    retry_ms: int


class Taken(NamedTuple):
    """The answer to an `Ask`.

    Args:
        refused: the place of the first cost that was refused, `NO_SLOT`, or `ACCEPTED`.
        joined: the slot was held already: the request is part of one that was counted, and cost nothing.
        slots: held now.
    """

    refused: int
    joined: bool
    slots: int
    shares: tuple[Share, ...]


class Return(NamedTuple):
    """What is given back of an account: some of a limit, or a slot.

    Args:
        window: in which it was taken; what was taken in windows that are over no longer counts.
        amount: how much less was used than was taken; negative for more.
    """

    key: str
    name: str
    window_ms: int
    window: int
    amount: int
    slot: str = ""


Window = tuple[int, int, int]
"""Number of the window, its count, and that of the window before it."""


def rolled(window: Window, window_ms: int, now_ms: int) -> Window:
    """The window as it is now."""
    number, current, _ = window
    now = now_ms // window_ms
    if now <= number:  # also where the clock was set back
        return window
    return (now, 0, current) if now == number + 1 else (now, 0, 0)


def share(window: Window, cost: Cost, now_ms: int) -> Share:
    """What a cost gets of a window that is `rolled`."""
    number, current, previous = window
    limit, wanted, least = cost
    elapsed = min(max(now_ms - number * limit.window_ms, 0), limit.window_ms)
    counted = current + previous * (1 - elapsed / limit.window_ms)
    granted = min(wanted, math.floor(limit.most - counted))
    if granted >= least:
        return Share(granted, math.ceil(counted) + granted, number, 0)
    return Share(0, math.ceil(counted), number, _retry_ms(window, cost, elapsed))


def _retry_ms(window: Window, cost: Cost, elapsed: int) -> int:
    """Milliseconds until `least` fits. The redis script has the same."""
    _, current, previous = window
    limit, _, least = cost
    if current + least <= limit.most:
        return max(1, math.ceil(limit.window_ms * (1 - (limit.most - current - least) / previous)) - elapsed)
    behind = max(0.0, 1 - (limit.most - least) / current) if current else 0.0
    return limit.window_ms - elapsed + math.ceil(limit.window_ms * behind)


def returned(window: Window, back: Return) -> Window:
    """The window without what is given back."""
    number, current, previous = window
    if back.window == number:
        return number, max(0, current - back.amount), previous
    if back.window == number - 1:
        return number, current, max(0, previous - back.amount)
    return window
