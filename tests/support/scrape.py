"""A scrape of the exporter, as Prometheus takes one."""

import time
import urllib.request
from collections.abc import Callable, Iterable

from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families

POLL_SECONDS = 0.1
Sample = tuple[str, frozenset[tuple[str, str]]]


class Scrape:
    """What one said."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self.types: dict[str, str] = {}
        self.samples: dict[Sample, float] = {}
        for family in families:
            self.types[family.name] = family.type
            for sample in family.samples:
                self.samples[sample.name, frozenset(sample.labels.items())] = float(sample.value)

    def value(self, name: str, **labels: str) -> float:
        """The sum of the series that have these labels, whatever others they have; 0 without any."""
        wanted = labels.items()
        return sum(value for (each, has), value in self.samples.items() if each == name and wanted <= dict(has).items())

    def names(self) -> set[str]:
        return {name for name, _ in self.samples}

    @property
    def counters(self) -> dict[Sample, float]:
        """Everything that may only rise: counters, and the parts of histograms."""
        endings = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}
        return {
            (name, labels): value
            for (name, labels), value in self.samples.items()
            if any(name == family + ending for family, kind in self.types.items() for ending in endings.get(kind, ()))
        }

    def fallen_since(self, before: "Scrape") -> dict[Sample, tuple[float, float]]:
        """Counters that are lower than they were, or gone."""
        now = self.counters
        return {
            sample: (value, now.get(sample, 0.0))
            for sample, value in before.counters.items()
            if now.get(sample, 0.0) < value
        }

    def risen_since(self, before: "Scrape", name: str, **labels: str) -> float:
        """By how much a counter has risen."""
        return self.value(name, **labels) - before.value(name, **labels)


def scrape(url: str) -> Scrape:
    """Ask the exporter at `url`, in OpenMetrics."""
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    with urllib.request.urlopen(urllib.request.Request(f"{url}/metrics", headers=accept), timeout=30) as answer:
        assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
        return Scrape(text_string_to_metric_families(answer.read().decode()))  # type: ignore[no-untyped-call]


def scrape_until(url: str, holds: Callable[[Scrape], bool], seconds: float = 20.0) -> Scrape:
    """Scrape until it `holds`: workers bring their figures once a second."""
    deadline = time.monotonic() + seconds
    while not holds(found := scrape(url)):
        assert time.monotonic() < deadline, [
            (each, found.samples[each]) for each in found.samples if found.samples[each]
        ]
        time.sleep(POLL_SECONDS)
    return found


def scrape_risen(url: str, before: Scrape, name: str, rise: float = 1, **labels: str) -> Scrape:
    """Scrape until a counter has risen by as much, or more."""
    due = before.value(name, **labels) + rise
    return scrape_until(url, lambda found: found.value(name, **labels) >= due)
