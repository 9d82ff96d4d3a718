"""The comparison as a table: each system's figures, and its ratios to the first."""

from pathlib import Path
from typing import Any

# What README shows; written by a run that can be believed.
FILE = Path(__file__).resolve().parents[1] / "comparison.json"


def markdown(document: dict[str, Any]) -> str:
    """The table, with each system's ratio to the first."""
    first = document["systems"][0]
    head = ["", "CPU µs/token", "×", "added TTFT p50 ms", "KiB/stream", "streams on one core", "×"]
    rows = [
        [
            each["name"] + (f" {document['litellm']}" if each["system"] == "litellm" else ""),
            f"{each['cpu_us_per_token']:.0f}{'' if each['kept'] else '*'}",
            ratio(each["cpu_us_per_token"], first["cpu_us_per_token"]),
            "–" if each["added_ttft_p50_ms"] is None else f"{each['added_ttft_p50_ms']:.1f}",
            f"{each['kib_per_stream']:.0f}",
            f"{_over(each)}{each['streams_carried']:.0f}" if each["streams_carried"] else each["streams_told"],
            (_over(each) if first["streams_carried"] else "")
            + ratio(each["streams_carried"], first["streams_carried"]),
        ]
        for each in document["systems"]
    ]
    table = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    lines = ["| " + " | ".join(cells) + " |" for cells in table]
    note = (
        f"CPU, TTFT and memory at {document['streams']} streams (*: more than keeps the objectives); streams on one "
        f"core by the objectives of the profile `{document['profile']}`. {_version(document)}{document['machine']}, "
        f"{document['measured_at']}."
    )
    return "\n".join([*lines, "", note, ""])


def _version(document: dict[str, Any]) -> str:
    known = document.get("versions")  # a file of an older run has none
    return f"Sluice {known['sluice']}, commit {known['commit']}; NGINX {known['nginx']}; " if known else ""


def _over(system: dict[str, Any]) -> str:
    """Before a number that was the most that could be tried."""
    return "over " if system["streams_more"] else ""


def ratio(value: float | None, base: float | None) -> str:
    """How many times the first."""
    return f"{value / base:.2f}" if value is not None and base else "–"
