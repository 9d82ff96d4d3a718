"""Accounts in the memory of one process: the whole of it in a single-worker setup, and the fallback of the others."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic

from app.limits.account import ACCEPTED, NO_SLOT, Ask, Return, Share, Taken, Window, returned, rolled, share

# Each is some hundred bytes; whoever was not seen for longest is forgotten, and begins with all limits unused.
ACCOUNTS_MAX = 50_000
TICKETS_MAX = 50_000


@dataclass
class Account:
    """One caller's windows by the limit's name, and until when each slot is held."""

    windows: dict[str, Window] = field(default_factory=dict)
    slots: dict[str, int] = field(default_factory=dict)


class MemoryCounters:
    """`Counters`; never waits and never fails."""

    def __init__(self) -> None:
        self._accounts: OrderedDict[str, Account] = OrderedDict()
        self._tickets: OrderedDict[str, tuple[bytes, float]] = OrderedDict()

    async def take(self, ask: Ask) -> Taken:
        return self.take_now(ask)

    def take_now(self, ask: Ask) -> Taken:
        """As `take`."""
        now_ms = _now_ms()
        account = self._account(ask.key)
        windows = [
            rolled(account.windows.get(cost.limit.name, (0, 0, 0)), cost.limit.window_ms, now_ms) for cost in ask.costs
        ]
        shares = tuple(share(window, cost, now_ms) for window, cost in zip(windows, ask.costs, strict=True))
        refused = _first_refused(shares)
        if ask.slot:
            if account.slots.get(ask.slot, 0) > now_ms:
                return Taken(ACCEPTED, True, len(account.slots), shares)
            if 0 < ask.slots_max <= len(account.slots):
                _drop_lapsed(account.slots, now_ms)  # only now: each look at all of them costs as much as there are
            if refused == ACCEPTED and 0 < ask.slots_max <= len(account.slots):
                refused = NO_SLOT
        if refused == ACCEPTED and not ask.look:
            for (number, current, previous), cost, got in zip(windows, ask.costs, shares, strict=True):
                account.windows[cost.limit.name] = (number, current + got.granted, previous)
            if ask.slot:
                account.slots[ask.slot] = now_ms + ask.slot_ms
        return Taken(refused, False, len(account.slots), shares)

    async def give_back(self, returns: Sequence[Return]) -> None:
        self.give_back_now(returns)

    def give_back_now(self, returns: Sequence[Return]) -> None:
        """As `give_back`."""
        now_ms = _now_ms()
        for back in returns:
            account = self._accounts.get(back.key)
            if account is None:
                continue
            if back.slot:
                account.slots.pop(back.slot, None)
            if back.amount and (window := account.windows.get(back.name)) is not None:
                account.windows[back.name] = returned(rolled(window, back.window_ms, now_ms), back)

    async def renew(self, slots: Sequence[tuple[str, str]], slot_ms: int) -> None:
        self.renew_now(slots, slot_ms)

    def renew_now(self, slots: Sequence[tuple[str, str]], slot_ms: int) -> None:
        """As `renew`."""
        until_ms = _now_ms() + slot_ms
        for key, slot in slots:
            self._account(key).slots[slot] = until_ms

    async def keep_ticket(self, digest: str, value: bytes, seconds: float) -> None:
        self._tickets[digest] = (value, monotonic() + seconds)
        if len(self._tickets) > TICKETS_MAX:
            self._tickets.popitem(last=False)

    async def find_ticket(self, digest: str) -> bytes | None:
        value, until = self._tickets.get(digest, (b"", 0.0))
        return value if until > monotonic() else None

    async def tidy(self) -> None:
        now = monotonic()
        for digest in [digest for digest, (_, until) in self._tickets.items() if until <= now]:
            del self._tickets[digest]

    async def aclose(self) -> None:
        self._accounts.clear()
        self._tickets.clear()

    def _account(self, key: str) -> Account:
        account = self._accounts.get(key)
        if account is None:
            account = self._accounts[key] = Account()
            if len(self._accounts) > ACCOUNTS_MAX:
                self._accounts.popitem(last=False)
        else:
            self._accounts.move_to_end(key)
        return account


def _first_refused(shares: Sequence[Share]) -> int:
    return next((place for place, got in enumerate(shares) if not got.granted), ACCEPTED)


def _drop_lapsed(slots: dict[str, int], now_ms: int) -> None:
    for slot in [slot for slot, until_ms in slots.items() if until_ms <= now_ms]:
        del slots[slot]


def _now_ms() -> int:
    return int(monotonic() * 1000)
