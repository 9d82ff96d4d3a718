"""Writes README's figures: what a worker carries, what a token costs and how others compare, from the files that the
measurements left.

`make capacity`, `make bench ARGS=--write` and `make compare` write those when they can be believed; nobody writes
figures by hand.
"""

import json
import sys
from typing import Any

from app.capacity import FILE as CAPACITY
from loadtests.bench.report import RESULTS, spread
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
        [
            "streams of one worker, on one core with its share of NGINX, that begin at random",
            f"**{known['streams_per_worker']}**",
        ],
        ["of streams that begin only when another ends: the boundary's 95 % interval", f"{low:g} to {high:g}"],
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
        f"generator: {known['generator']}. [Every point](deploy/capacity.md).",
        "provisional": "An estimate, not yet a measurement: " + "; ".join(known["verdict"]["reasons"]) + ".",
    }
    return table(["`make capacity`", ""], rows) + f"\n\n{said[known['status']]}"


def comparison_table() -> str:
    """How others compare, in one run."""
    if not COMPARISON.exists():
        return MISSING.format(command="make compare")
    return markdown(json.loads(COMPARISON.read_text())).strip()


def bench_tables() -> str:
    """What a token costs, with one thing more or less switched on: a table of each run."""
    files = sorted(RESULTS.glob("*.json"))
    if not files:
        return MISSING.format(command="make bench ARGS=--write")
    return "\n\n".join(bench_table(json.loads(file.read_text())) for file in files)


def bench_table(known: dict[str, Any]) -> str:
    """One run, its command and its date."""
    head = [
        "",
        "streams",
        "CPU µs/token",
        "× NGINX alone",
        "NGINX µs/token",
        "Redis µs/token",
        "added TTFT p50",
        "gap p99.9",
        "stalled",
        "KiB/stream",
    ]
    rows = [
        [
            row["name"],
            str(row["streams"]),
            _figure(row["gunicorn_cpu_us_per_token"]) + spread(row["gunicorn_cpu_us_of_rounds"]),
            _figure(row["nginx_costs"]),
            _figure(row["nginx_cpu_us_per_token"]),
            _figure(row["redis_cpu_us_per_token"]),
            _figure(row["added_ttft_p50_ms"], " ms"),
            _figure(row["figures"]["gap_ms"]["p999"], " ms"),
            f"{100 * row['figures']['streams_stalled'] / max(1, row['figures']['streams_seen']):.1f} %",
            _figure(row["gunicorn_kib_per_stream"]),
        ]
        for row in known["rows"]
    ]
    note = f"`{known['command']}`, {known['measured_at'][:10]}: {known['title']}; {known['machine']}."
    return table(head, rows) + f"\n\n{note}"


def _figure(value: float | None, unit: str = "") -> str:
    # Adding zero takes the sign from what is rounded to -0.0, as a difference of two equal figures may be.
    return "–" if value is None else f"{round(value, 1) + 0.0:.1f}{unit}"


def regions() -> dict[str, str]:
    return {"bench": bench_tables(), "capacity": capacity_table(), "comparison": comparison_table()}


if __name__ == "__main__":
    sys.exit(main(DOCUMENT, regions()))
