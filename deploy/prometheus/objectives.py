"""The objectives of `slo.yaml`, read and checked: a rule that could never fire must not be made."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).with_name("slo.yaml")
# Where an expression has its range, which the rules fill in.
RANGE = "$range"
MINUTES = {"m": 1, "h": 60, "d": 24 * 60}


class ObjectivesError(ValueError):
    """An objective cannot be what it says; the message is one line that names it."""


@dataclass(frozen=True)
class Burn:
    """Two windows that must both burn the budget `factor` times as fast as it lasts."""

    long: str
    short: str
    factor: float
    hold: str
    severity: str


@dataclass(frozen=True)
class Objective:
    """One promise: of `events` of a kind, at most `budget` are `errors`."""

    name: str
    alert: str
    objective: float
    noun: str
    errors: str
    events: str
    summary: str
    dashboard: str

    @property
    def budget(self) -> float:
        """The share that may go wrong. Rounded, since 1 - 0.995 is not 0.005 to a machine."""
        return round(1 - self.objective, 6)


@dataclass(frozen=True)
class Objectives:
    """All of `slo.yaml`."""

    runbooks_url: str
    dashboards_url: str
    budget_days: int
    base_range: str
    events_min: int
    burns: tuple[Burn, ...]
    objectives: tuple[Objective, ...]

    @property
    def windows(self) -> list[str]:
        """Every window that a burn looks at, the shortest first."""
        return sorted({window for burn in self.burns for window in (burn.long, burn.short)}, key=minutes)


def minutes(window: str) -> int:
    """A Prometheus duration of one unit, in minutes."""
    found = re.fullmatch(r"(\d+)([mhd])", window)
    if found is None:
        raise ObjectivesError(f"slo.yaml: {window!r} should be a number of m, h or d")
    return int(found[1]) * MINUTES[found[2]]


def load(file: Path = FILE) -> Objectives:
    """The objectives of a file.

    Raises:
        ObjectivesError: one of them cannot hold, or cannot be missed.
    """
    document: dict[str, Any] = yaml.safe_load(file.read_text())
    objectives = Objectives(
        **document["links"],
        **document["budget"],
        burns=tuple(Burn(**entry) for entry in document["burns"]),
        objectives=tuple(Objective(name=name, **entry) for name, entry in document["objectives"].items()),
    )
    for burn in objectives.burns:
        if minutes(burn.short) >= minutes(burn.long):
            raise ObjectivesError(f"slo.yaml: the short window {burn.short} is not shorter than {burn.long}")
    for objective in objectives.objectives:
        _check(objective, objectives.burns)
    return objectives


def _check(objective: Objective, burns: tuple[Burn, ...]) -> None:
    if not 0 < objective.objective < 1:
        raise ObjectivesError(f"slo.yaml: {objective.name}: an objective is between 0 and 1, not {objective.objective}")
    for expression in (objective.errors, objective.events):
        if RANGE not in expression:
            raise ObjectivesError(f"slo.yaml: {objective.name}: no {RANGE} in {expression!r}")
    for burn in burns:
        # No more than everything can go wrong: beyond that, nothing would ever be said.
        if burn.factor * objective.budget >= 1:
            raise ObjectivesError(
                f"slo.yaml: {objective.name}: {burn.factor} times a budget of {objective.budget} is never reached"
            )
