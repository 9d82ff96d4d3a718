"""Rules and dashboards, as files that Prometheus and Grafana read."""

from pathlib import Path

from deploy.prometheus import rules
from scripts.regions import HOME


def files() -> dict[Path, str]:
    """What each should hold."""
    return {HOME / "deploy/prometheus/rules" / name: text for name, text in rules.files().items()}
