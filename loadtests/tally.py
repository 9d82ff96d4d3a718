"""What the processes of one Locust test tell of themselves, and whether the test as a whole can be believed.

Each tells of itself every few seconds; what counts is what it told last. A test of one process is one of many with one.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

# Of the arrivals that were asked for, beside what chance takes or adds.
ACHIEVED_SHARE_MIN = 0.98
# Three deviations of a Poisson process.
DEVIATIONS_MAX = 3.0
# Locust's workers report every 3 s. One that was last heard of so long before the end was gone by then.
UNHEARD_SECONDS_MAX = 15.0


class Report(NamedTuple):
    """Of one process.

    Args:
        complaints: why its figures cannot be believed.
        seconds: how long its test took so far.
        begun: streams that it began, of those that it was to begin.
        told: streams that are over, in whatever way.
        ended: those of them that were over before the test was.
    """

    complaints: list[str]
    seconds: float
    begun: int
    told: int
    ended: int

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> "Report":
        """As another process sent it."""
        return cls(**{name: said[name] for name in cls._fields})


class Tally:
    """Of the test that runs, or ran last.

    Args:
        generators: processes that take part.
        per_second: streams that all of them together are to begin; 0 where users begin them as they can.
    """

    def __init__(self, generators: int, per_second: float) -> None:
        self._generators = generators
        self._per_second = per_second
        self._reports: dict[str, tuple[Report, float]] = {}
        # Of the test, not of a process; in order.
        self._more: dict[str, None] = {}
        self.ended_at: float | None = None

    def complain(self, text: str) -> None:
        """Something that is nobody's figure is wrong."""
        self._more[text] = None

    def withdraw(self, text: str) -> None:
        """It is not."""
        self._more.pop(text, None)

    def hear(self, name: str, report: Report, at: float) -> None:
        """A process tells of itself."""
        self._reports[name] = report, at

    def complaints(self) -> list[str]:
        """Why the figures cannot be believed; nothing when they can."""
        reports = {name: report for name, (report, _) in self._reports.items()}
        own = [
            f"{name}: {text}" if len(reports) > 1 else text
            for name, report in reports.items()
            for text in report.complaints
        ]
        return [*self._more, *own, *self._of_generators(), *self._of_arrivals(), *self._of_streams()]

    def _of_generators(self) -> list[str]:
        found = []
        # One more takes users from the others, but arrivals were shared without it.
        if len(self._reports) < self._generators or (self._per_second and len(self._reports) > self._generators):
            found.append(f"{len(self._reports)} generators told of themselves where {self._generators} began")
        for name, (_, at) in self._reports.items():
            if self.ended_at is not None and (away := self.ended_at - at) > UNHEARD_SECONDS_MAX:
                found.append(f"{name}: was last heard of {away:.0f} s before the end")
        return found

    def _of_arrivals(self) -> list[str]:
        """Of all together: each may begin its share, and the shares be of another whole."""
        if not self._per_second or not self._reports:
            return []
        reports = [report for report, _ in self._reports.values()]
        due = self._per_second * max(report.seconds for report in reports)
        begun = sum(report.begun for report in reports)
        chance = DEVIATIONS_MAX * due**0.5
        if begun < ACHIEVED_SHARE_MIN * due - chance:
            return [f"{begun} streams began where {due:.0f} were due: too few users, or a busy generator"]
        if begun > (2 - ACHIEVED_SHARE_MIN) * due + chance:
            return [f"{begun} streams began where {due:.0f} were due: generators that do not share the arrivals"]
        return []

    def _of_streams(self) -> list[str]:
        told = sum(report.told for report, _ in self._reports.values())
        ended = sum(report.ended for report, _ in self._reports.values())
        if not told:
            return ["nothing was measured: no stream began"]
        if not ended:
            return [f"nothing was measured: none of {told} streams was over before the test"]
        return []
