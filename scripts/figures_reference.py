"""Writes README's figures: what a worker carries and how others compare, from the files that the measurements left.

`make capacity` and `make compare` write those when they can be believed; nobody writes figures by hand.
"""

import json
import sys
from typing import Any

from app.capacity import FILE as CAPACITY
from loadtests.compare.table import FILE as COMPARISON
from loadtests.compare.table import markdown
from scripts.regions import main, table

DOCUMENT = "README.md"
MISSING = "Not measured yet: `{command}` on a quiet machine."


def capacity_table() -> str:
    """The number and what it rests on."""
    known: dict[str, Any] = json.loads(CAPACITY.read_text())
    low, high = known["streams_per_worker_interval"]
    bound = known["objectives"]
    rows = [
        ["streams of one worker, on one core with its share of NGINX", f"**{known['streams_per_worker']}**"],
        ["95 % interval of the boundary", f"{low:g} to {high:g}"],
        ["CPU a token, and in NGINX", f"{known['cpu_us_per_token']:g} µs, {known['nginx_cpu_us_per_token']:g} µs"],
        [
            "memory a stream, and in NGINX",
            f"{known['kib_per_stream']:g} KiB, {known['nginx_kib_per_stream']:g} KiB",
        ],
        [
            f"with {known['tokens_per_second']:g} tokens/s a stream and, for {100 * bound['gap_share']:g} % streams,",
            f"a first token within {bound['ttft_ms_max']:g} ms, no gap over {bound['gap_ms_max']:g} ms",
        ],
    ]
    said = {
        "measured": f"Measured by `{known['command']}` on {known['measured_at'][:10]}: {known['machine']}; "
        f"generator: {known['generator']}.",
        "provisional": "An estimate, not yet a measurement: " + "; ".join(known["verdict"]["reasons"]) + ".",
    }
    return table(["`make capacity`", ""], rows) + f"\n\n{said[known['status']]}"


def comparison_table() -> str:
    """How others compare, in one run."""
    if not COMPARISON.exists():
        return MISSING.format(command="make compare")
    return markdown(json.loads(COMPARISON.read_text())).strip()


def regions() -> dict[str, str]:
    return {"capacity": capacity_table(), "comparison": comparison_table()}


if __name__ == "__main__":
    sys.exit(main(DOCUMENT, regions()))
