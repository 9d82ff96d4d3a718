"""Writes deploy/METRICS.md's tables: every metric, its labels' values, how streams end, and the buckets.

`python -m scripts.metrics_reference`; with `--check`, only says whether the tables are up to date.
"""

import sys

from app.observability.metrics import ALL, LABELS, OUTCOMES, Buckets
from scripts.regions import main, table

DOCUMENT = "deploy/METRICS.md"


def metrics_table() -> str:
    rows = [
        [f"`{each.name}`", each.kind, ", ".join(f"`{label}`" for label in each.labels), each.help]
        for each in ALL.values()
    ]
    return table(["name", "kind", "labels", "what it is"], rows)


def buckets_table() -> str:
    users: dict[Buckets, list[str]] = {}
    for each in ALL.values():
        if each.kind == "histogram":
            users.setdefault(each.buckets, []).append(f"`{each.name}`")
    rows = [
        [", ".join(names), " ".join(f"{bound:g}" for bound in buckets.bounds), buckets.reason]
        for buckets, names in users.items()
    ]
    return table(["of", "upper bounds", "why these"], rows)


def regions() -> dict[str, str]:
    return {
        "metrics": metrics_table(),
        "labels": table(["label", "values"], [[f"`{label}`", words] for label, words in LABELS.items()]),
        "outcomes": table(["outcome", "meaning"], [[f"`{outcome}`", words] for outcome, words in OUTCOMES.items()]),
        "buckets": buckets_table(),
    }


if __name__ == "__main__":
    sys.exit(main(DOCUMENT, regions()))
