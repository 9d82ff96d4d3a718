"""Dashboards as Grafana reads them, and their queries as Grafana would send them."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "grafana" / "dashboards"


def load() -> dict[str, dict[str, Any]]:
    """The committed ones, by uid."""
    found = [json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))]
    return {board["uid"]: board for board in found}


def panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    """Those that show something; rows only part them."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


@dataclass(frozen=True)
class Target:
    """One query of a panel or a mark."""

    board: str
    title: str
    expression: str

    def sent(self, **values: str) -> str:
        """With each variable replaced by a value, or by what matches all."""
        known = {"__rate_interval": "30s", "namespace": ".*", "job": ".+", "instance": ".+", "model": ".+"} | values
        return re.sub(r"\$(\w+)", lambda found: known[found[1]], self.expression)


def targets(board: dict[str, Any]) -> Iterator[Target]:
    for panel in panels(board):
        for target in panel["targets"]:
            yield Target(board["uid"], panel["title"], target["expr"])
    for mark in board["annotations"]["list"]:
        yield Target(board["uid"], f"mark: {mark['name']}", mark["expr"])


def variables(board: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {variable["name"]: variable for variable in board["templating"]["list"]}
