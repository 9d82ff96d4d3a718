"""Writes the tables of objectives and burn rates in deploy/OBSERVING.md from deploy/prometheus/slo.yaml."""

from deploy.prometheus.objectives import load
from scripts.regions import table

DOCUMENT = "deploy/OBSERVING.md"


def regions() -> dict[str, str]:
    found = load()
    objectives = [
        [f"`{each.name}`", f"{each.objective * 100:g} %", each.noun, f"[{each.alert}](runbooks/{each.alert}.md)"]
        for each in found.objectives
    ]
    burns = [
        [burn.long, burn.short, f"{burn.factor:g}", f"{found.budget_days * 24 / burn.factor:.0f} h", burn.severity]
        for burn in found.burns
    ]
    return {
        "objectives": table(["objective", f"of {found.budget_days} days", "what is bad", "alert"], objectives),
        "burns": table(["long window", "short", "budget's pace, times", "all of it is gone after", "severity"], burns),
    }
