"""Makes `rules/` from the objectives (`slo.yaml`) and the direct alerts (`alerts.yaml`): plain Prometheus rule files.

Numbers of other files come in here: waits of the ledger and the measured capacity. `make generate` writes the files.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from app.capacity import capacity
from app.timeouts import ledger
from deploy.prometheus.objectives import RANGE, Burn, Objective, Objectives, load, minutes

FOLDER = Path(__file__).parent
PLACEHOLDER = re.compile(r"\$\{(\w+)\}")
HEAD = "# Written by `make generate` from deploy/prometheus/{source}; do not edit.\n\n"

Rule = dict[str, Any]


def numbers() -> dict[str, float]:
    """What direct alerts may name: the ledger's waits and the numbers of streams."""
    known = capacity()
    streams = {name: getattr(known, name) for name in ("streams_per_worker", "streams_per_pod", "utilisation_target")}
    return ledger() | streams


def files(known: Mapping[str, float] | None = None) -> dict[str, str]:
    """The rule files by name; `known` stands in for the committed numbers."""
    objectives = load()
    direct = yaml.safe_load((FOLDER / "alerts.yaml").read_text())
    return {
        "slo.yaml": _text("slo.yaml", [_recorded(objectives), _burning(objectives)]),
        "alerts.yaml": _text("alerts.yaml", _direct(direct, objectives, numbers() if known is None else known)),
    }


class _Dumper(yaml.SafeDumper):
    """Plain text for readers: no references to what stands elsewhere, and expressions of several lines as such."""

    def ignore_aliases(self, _: Any) -> bool:
        return True


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
)


def _text(source: str, groups: list[Rule]) -> str:
    body = yaml.dump({"groups": groups}, Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)
    return HEAD.format(source=source) + body


def _recorded(objectives: Objectives) -> Rule:
    """Rates over the base range, and averages of these over each window.

    From the raw counters, three days of every pod would be read again at each evaluation.
    """
    rules: list[Rule] = []
    for objective in objectives.objectives:
        events = objective.events.replace(RANGE, f"[{objectives.base_range}]").strip()
        errors = objective.errors.replace(RANGE, f"[{objectives.base_range}]").strip()
        labels = {"slo": objective.name}
        rules += [
            {"record": "sluice:slo_events:rate5m", "expr": events, "labels": labels},
            # Without a single error there is no such series, and the ratio would be unknown instead of 0.
            {"record": "sluice:slo_errors:rate5m", "expr": f"({errors}) or 0 * ({events})", "labels": labels},
        ]
    for window in [*objectives.windows, f"{objectives.budget_days}d"]:
        rules += _window(window, objectives.base_range)
    return {"name": "sluice-slo-recorded", "rules": rules}


def _window(window: str, base: str) -> list[Rule]:
    rules: list[Rule] = []
    if window != base:
        rules = [
            {"record": f"sluice:slo_{kind}:rate{window}", "expr": f"avg_over_time(sluice:slo_{kind}:rate5m[{window}])"}
            for kind in ("events", "errors")
        ]
    # Without an event there is no ratio, rather than 0 / 0.
    ratio = f"sluice:slo_errors:rate{window} / (sluice:slo_events:rate{window} > 0)"
    return [*rules, {"record": f"sluice:slo_errors:ratio_rate{window}", "expr": ratio}]


def _burning(objectives: Objectives) -> Rule:
    return {
        "name": "sluice-slo-burning",
        "rules": [
            _burn(objectives, objective, burn) for objective in objectives.objectives for burn in objectives.burns
        ],
    }


def _burn(objectives: Objectives, objective: Objective, burn: Burn) -> Rule:
    chosen = f'{{slo="{objective.name}"}}'
    limit = f"{burn.factor:g} * {objective.budget:g}"
    per_window = f"{minutes(burn.long) * 60}"
    share = "{{ $value | humanizePercentage }}"
    hours_max = objectives.budget_days * 24 / burn.factor
    return {
        "alert": objective.alert,
        "expr": (
            f"sluice:slo_errors:ratio_rate{burn.long}{chosen} > {limit}\n"
            f"and sluice:slo_errors:ratio_rate{burn.short}{chosen} > {limit}\n"
            # A handful of events says nothing of a share.
            f"and sluice:slo_events:rate{burn.long}{chosen} * {per_window} >= {objectives.events_min}"
        ),
        "for": burn.hold,
        "labels": {"severity": burn.severity, "slo": objective.name, "window": burn.long},
        "annotations": _annotations(
            objectives,
            objective.alert,
            objective.dashboard,
            objective.summary,
            f"{share} of {objective.noun} in the last {burn.long}; {objective.budget * 100:g} % may. "
            f"At this pace the budget of {objectives.budget_days} days lasts at most {hours_max:.0f} hours.",
        ),
    }


def _direct(groups: list[Rule], objectives: Objectives, known: Mapping[str, float]) -> list[Rule]:
    return [
        {"name": group["name"], "rules": [_direct_rule(rule, objectives, known) for rule in group["rules"]]}
        for group in groups
    ]


def _direct_rule(rule: Rule, objectives: Objectives, known: Mapping[str, float]) -> Rule:
    def filled(text: str) -> str:
        return PLACEHOLDER.sub(lambda found: f"{known[found[1]]:g}", text).strip()

    made: Rule = {"alert": rule["alert"], "expr": filled(rule["expr"])}
    if "for" in rule:
        made["for"] = rule["for"]
    made["labels"] = {"severity": rule["severity"]}
    texts = filled(rule["summary"]), filled(rule["description"])
    made["annotations"] = _annotations(objectives, rule["alert"], rule["dashboard"], *texts)
    return made


def _annotations(objectives: Objectives, alert: str, dashboard: str, summary: str, description: str) -> dict[str, str]:
    """The links follow from the names, so that none can point nowhere."""
    return {
        "summary": summary,
        "description": " ".join(description.split()),
        "runbook_url": f"{objectives.runbooks_url}/{alert}.md",
        "dashboard_url": f"{objectives.dashboards_url}/sluice-{dashboard}",
    }
