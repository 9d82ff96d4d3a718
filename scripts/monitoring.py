"""Rules and dashboards, as files that Prometheus and Grafana read."""

from pathlib import Path

from deploy.grafana import dashboards
from deploy.prometheus import rules
from scripts.regions import HOME


def files() -> dict[Path, str]:
    """What each should hold."""
    made = {"deploy/prometheus/rules": rules.files(), "deploy/grafana/dashboards": dashboards.files()}
    return {HOME / folder / name: text for folder, texts in made.items() for name, text in texts.items()}
