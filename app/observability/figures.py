"""What this process has done, in plain numbers that cost next to nothing; `figure_files.py` takes them once a second.

One for each process, as a logger is: whoever has something to count imports `figures`. Counters only ever rise. A
metric has a bounded number of label sets whatever its callers do; beyond them everything is `other`.
"""

from bisect import bisect_right
from collections.abc import Container, Iterable

from app.observability.metrics import ALL, Declared

# The name of a metric and the values of its labels.
Key = tuple[str, ...]

OTHER = "other"
# More than a large configuration has; a defect that makes labels of what clients send ends here.
SERIES_MAX = 10_000


class Tally:
    """A histogram: how many values fell under each bound, and their sum; settled when somebody looks.

    `add` takes a value, `extend` many. They are a list's own: to sort a second's worth of values at once costs a tenth
    of finding each one's place.
    """

    __slots__ = ("_bounds", "_counts", "_new", "_total", "add", "extend")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0
        self._new: list[float] = []
        self.add, self.extend = self._new.append, self._new.extend

    @property
    def counts(self) -> list[int]:
        self.settle()
        return self._counts

    @property
    def total(self) -> float:
        self.settle()
        return self._total

    def add_zeros(self, count: int) -> None:
        """As many values of nothing."""
        self._counts[0] += count

    def settle(self) -> None:
        """Count what was added."""
        new = self._new
        if not new:
            return
        self._total += sum(new)
        new.sort()
        below = 0
        for index, bound in enumerate(self._bounds):
            upto = bisect_right(new, bound, below)
            self._counts[index] += upto - below
            below = upto
        self._counts[-1] += len(new) - below
        new.clear()


class Figures:
    """See the module."""

    def __init__(self) -> None:
        self.counts: dict[Key, float] = {}
        self.gauges: dict[Key, float] = {}
        self.tallies: dict[Key, Tally] = {}
        self._allowed: dict[str, frozenset[str]] = {}
        self._series: dict[str, int] = {}
        # What those that got no series are counted as: a tenant without one of its own comes with every request.
        self._instead: dict[Key, Key] = {}

    def allow(self, label: str, values: Iterable[str]) -> None:
        """Let a label have these values; from now on all others are `other`."""
        self._allowed[label] = frozenset(values)
        self._instead.clear()

    def add(self, metric: Declared, amount: float = 1, *labels: str) -> None:
        """Count."""
        key = (metric.name, *labels)
        if key not in self.counts:
            key = self._admitted(key, self.counts)
            self.counts.setdefault(key, 0)
        self.counts[key] += amount

    def reach(self, metric: Declared, total: float, *labels: str) -> None:
        """Say where a counter is that somebody else counts."""
        self.add(metric, max(0.0, total - self.value(metric, *labels)), *labels)

    def set(self, metric: Declared, value: float, *labels: str) -> None:
        """Say what a gauge shows."""
        key = (metric.name, *labels)
        if key not in self.gauges:
            key = self._admitted(key, self.gauges)
        self.gauges[key] = value

    def tally(self, metric: Declared, *labels: str) -> Tally:
        """The histogram, for those who add to it often enough to keep it."""
        key = (metric.name, *labels)
        found = self.tallies.get(key)
        if found is None:
            key = self._admitted(key, self.tallies)
            found = self.tallies.setdefault(key, Tally(metric.buckets.bounds))
        return found

    def observe(self, metric: Declared, value: float, *labels: str) -> None:
        """Add a value to a histogram."""
        # Looked up here at once: all but the first are found.
        (self.tallies.get((metric.name, *labels)) or self.tally(metric, *labels)).add(value)

    def settle(self) -> None:
        """Count what was added to histograms; called every second, since until then each value takes its memory."""
        for tally in self.tallies.values():
            tally.settle()

    def value(self, metric: Declared, *labels: str) -> float:
        """What was counted, or was said last; of a histogram, how many values it has."""
        key = (metric.name, *labels)
        if metric.kind == "histogram":
            return sum(self.tally(metric, *labels).counts)
        return (self.counts if metric.kind == "counter" else self.gauges).get(key, 0)

    def _admitted(self, key: Key, known: Container[Key]) -> Key:
        """What a series that is not known yet is counted as."""
        instead = self._instead.get(key)
        if instead is None:
            instead = self._judged(key, known)
            if instead != key:
                if len(self._instead) >= SERIES_MAX:
                    self._instead.clear()  # of labels made by clients there is no end
                self._instead[key] = instead
        return instead

    def _judged(self, key: Key, known: Container[Key]) -> Key:
        name, *values = key
        labels = ALL[name].labels
        allowed = [
            value if value in self._allowed.get(label, (value,)) else OTHER
            for label, value in zip(labels, values, strict=True)
        ]
        key = (name, *allowed)
        if key in known:
            return key
        count = self._series.get(name, 0)
        if count >= SERIES_MAX:
            return (name, *[OTHER] * len(values))
        self._series[name] = count + 1
        return key


def declared(key: Key) -> Declared:
    """The metric of a key."""
    return ALL[key[0]]


figures = Figures()
