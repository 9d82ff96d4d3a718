"""The figures as a Markdown table for people and as JSON for programs."""

import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from loadtests.bench.figures import Percentiles
from loadtests.bench.measurement import Row
from loadtests.bench.verdict import added_ttft_ms, faults, nginx_costs, seen_us

NOTHING = "–"
# What README shows, a table of each file; written by runs that can be believed.
RESULTS = Path(__file__).with_name("results")
HEADINGS = (
    "",
    "streams",
    "CPU µs/token",
    "× NGINX alone",
    "NGINX µs/token",
    "Redis µs/token",
    "TTFT p50 / p99 ms",
    "added TTFT p50 ms",
    "gap p50 / p99 / p99.9 ms",
    "delay p50 / p99 ms",
    "stalled %",
    "KiB/stream",
    "NGINX KiB/stream",
    "errors",
)


def machine() -> str:
    """What the figures were taken on: they mean little without it."""
    return f"{_processor()}, Linux {platform.release()}, Python {platform.python_version()}"


def markdown(title: str, rows: Sequence[Row]) -> str:
    """A heading, the table, and under it why rows cannot be believed, if any."""
    table = [list(HEADINGS), [":---", *["---:"] * (len(HEADINGS) - 1)], *(_cells(row, rows) for row in rows)]
    lines = ["| " + " | ".join(cells) + " |" for cells in table]
    notes = [
        f"Figures and lines take {seen:.1f} µs of a token at {row.streams} streams."
        for row in rows
        if (seen := seen_us(row, rows)) is not None
    ]
    notes += [f"Not valid: {row.name}, {row.streams} streams: {fault}." for row in rows for fault in faults(row)]
    return "\n".join([f"# {title}", "", machine(), "", *lines, *([""] if notes else []), *notes, ""])


def write(folder: Path, title: str, command: str, rows: Sequence[Row]) -> str:
    """Leaves bench.md and bench.json in `folder`; the Markdown."""
    text = markdown(title, rows)
    (folder / "bench.md").write_text(text)
    (folder / "bench.json").write_bytes(as_json(title, command, rows))
    return text


def as_json(title: str, command: str, rows: Sequence[Row]) -> bytes:
    """The figures for programs."""
    document = {
        "title": title,
        "command": command,
        "measured_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "machine": machine(),
        "rows": [
            {
                **msgspec.to_builtins(row),
                "added_ttft_p50_ms": added_ttft_ms(row, rows),
                "nginx_costs": nginx_costs(row, rows),
                "seen_us_per_token": seen_us(row, rows),
                "faults": faults(row),
            }
            for row in rows
        ],
    }
    return msgspec.json.format(msgspec.json.encode(document)) + b"\n"


def _cells(row: Row, rows: Sequence[Row]) -> list[str]:
    figures = row.figures
    return [
        row.name,
        str(row.streams),
        _number(row.gunicorn_cpu_us_per_token) + spread(row.gunicorn_cpu_us_of_rounds),
        _number(nginx_costs(row, rows)),
        _number(row.nginx_cpu_us_per_token),
        _number(row.redis_cpu_us_per_token),
        _percentiles(figures.ttft_ms, "p50", "p99"),
        _number(added_ttft_ms(row, rows), digits=2),
        _percentiles(figures.gap_ms, "p50", "p99", "p999"),
        _percentiles(figures.delay_ms, "p50", "p99"),
        f"{figures.stalled_percent:.1f}",
        _number(row.gunicorn_kib_per_stream),
        _number(row.nginx_kib_per_stream),
        str(sum(figures.errors().values())),
    ]


def spread(of_rounds: Sequence[float]) -> str:
    """From what to what, to stand behind the middle of several rounds; nothing for a single one."""
    return f" ({of_rounds[0]:.0f} to {of_rounds[-1]:.0f})" if len(of_rounds) > 1 else ""


def _number(value: float | None, digits: int = 1) -> str:
    return NOTHING if value is None else f"{value:.{digits}f}"


def _percentiles(values: Percentiles, *names: str) -> str:
    return " / ".join(f"{getattr(values, name):.2f}" for name in names) if values.count else NOTHING


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
