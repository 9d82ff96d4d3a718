"""Writes the table of alerts in deploy/runbooks/README.md from the rules."""

import yaml

from deploy.prometheus import rules
from scripts.regions import table

DOCUMENT = "deploy/runbooks/README.md"


def regions() -> dict[str, str]:
    """Each alert once, though an objective's come in four windows, of which the fastest wakes somebody."""
    found: dict[str, list[str]] = {}
    for text in rules.files().values():
        for group in yaml.safe_load(text)["groups"]:
            for rule in group["rules"]:
                if "alert" in rule and rule["alert"] not in found:
                    name = rule["alert"]
                    found[name] = [f"[{name}]({name}.md)", rule["labels"]["severity"], rule["annotations"]["summary"]]
    return {"alerts": table(["alert", "severity", "what"], list(found.values()))}
