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


PAIR_HEAD = """## Two generators on one server

Locust and the generator in C load the same worker at the same time, ten streams a second each, begun at random moments.
They share no code. Their p50, p95 and the p99 of gaps agree within 10 % or 3 ms; the slowest first tokens and gaps are
a handful of moments, which are each one's own.

| who measured | streams | first token p50 | p95 | p99 | gap p50 | p99 | p99.9 | when and where |
|---|---:|---:|---:|---:|---:|---:|---:|---|
"""


def row(
    what: str, waits: dict[str, int], streams: int, connections: int, log: str, given_up: int, silence: float, more: str
) -> None:
    """Put one test's figures into the table."""
    cut = sum(count for reason, count in waits.items() if reason.startswith("cut") or reason == "silence")
    taken = log.count('"took a stream over"')
    figures = [streams, connections, waits.get("reconnect drain", 0), cut, waits.get("503", 0), taken, given_up]
    _put(HEAD, [what, *map(str, figures), f"{silence:.1f} s", more])


def generator_row(who: str, streams: int, first_token_ms: list[float], gap_ms: list[float]) -> None:
    """Put what one of the two generators saw into their table."""
    _put(PAIR_HEAD, [who, str(streams), *(f"{value:.1f} ms" for value in [*first_token_ms, *gap_ms])])


def _put(head: str, cells: list[str]) -> None:
    """Into the table below `head`, in place of the row with the same first cell; the other table stays as it is."""
    text = TABLE.read_text() if TABLE.exists() else ""
    tables = {each: _rows(text, each) for each in (HEAD, PAIR_HEAD)}
    tables[head][cells[0]] = f"| {' | '.join([*cells, f'{datetime.now(UTC):%Y-%m-%d}, {_machine()}'])} |"
    written = [each + "\n".join(rows[name] for name in sorted(rows)) + "\n" for each, rows in tables.items() if rows]
    TABLE.write_text("\n".join(written))


def _rows(text: str, head: str) -> dict[str, str]:
    """The rows of one table, by their first cell."""
    _, _, below = text.partition(head.splitlines()[0] + "\n")
    section, _, _ = below.partition("\n## ")
    _, _, rows = section.partition("|---")
    lines = [line for line in rows.splitlines()[1:] if line.startswith("| ")]
    return {line.removeprefix("| ").split(" | ")[0]: line for line in lines}


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
