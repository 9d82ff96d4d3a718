"""The table of what `make soak` saw: one row a test, replaced by each run of it."""

import os
import platform
from datetime import UTC, datetime
from pathlib import Path

import psutil

from tests.support.fire import Fire

TABLE = Path(__file__).parent / "RESULTS.md"
HEAD = """# What `make soak` saw

Each row is the last run of one test that passed: every text byte for byte the simulator's, every index once, every id
once, nothing left behind. Written by `make soak`.

- moved: connections that were told to reconnect; cut: those that were not
- 503: requests that were refused, and came again
- taken over: how often a stream got another producer
- given up: streams that had a fourth producer killed under them, and ended with the error `producer_lost`
- silence: the longest wait of a client for its next event
- memory: what the largest worker had more than a fresh one in the end

| what | streams | connections | moved | cut | 503 | taken over | given up | silence | memory | when and where |
|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|
"""


def row(
    what: str, waits: dict[str, int], streams: int, connections: int, log: str, given_up: int, silence: float, more: str
) -> None:
    """Put one test's figures into the table."""
    cut = sum(count for reason, count in waits.items() if reason.startswith("cut") or reason == "silence")
    taken = log.count('"took a stream over"')
    figures = [streams, connections, waits.get("reconnect drain", 0), cut, waits.get("503", 0), taken, given_up]
    cells = [what, *map(str, figures), f"{silence:.1f} s", more, f"{datetime.now(UTC):%Y-%m-%d}, {_machine()}"]
    lines = TABLE.read_text().splitlines() if TABLE.exists() else []
    rows = {line.split(" | ")[0]: line for line in lines if line.startswith("| ") and not line.startswith("| what")}
    rows[f"| {what}"] = f"| {' | '.join(cells)} |"
    TABLE.write_text(HEAD + "\n".join(rows[name] for name in sorted(rows)) + "\n")


def fire_row(what: str, fire: Fire) -> None:
    """The same of a fire."""
    waits = fire.waits
    connections = sum(journal.connections for journal in fire.journals)
    silence = max(journal.silence_seconds_max for journal in fire.journals)
    more = f"{fire.more_private_bytes / 1e6:+.0f} MB"
    row(what, waits, len(fire.journals), connections, fire.chain.log, len(fire.given_up), silence, more)


def _machine() -> str:
    memory = psutil.virtual_memory().total / 2**30
    return f"{len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB, Python {platform.python_version()}"
