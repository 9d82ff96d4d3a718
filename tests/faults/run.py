"""Runs cases, and says of each what was seen and whether that is right."""

import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tests.faults.case import Case
from tests.faults.cases import HOST, KEY
from tests.faults.client import Got, ask
from tests.faults.rig import Rig, name

AT_ONCE = 6
LOG_SECONDS_MAX = 5.0
# Workers bring their figures once a second.
FIGURES_SECONDS_MAX = 20.0


@dataclass
class Row:
    """One line of the table; `wrong` says why it fails."""

    case: Case
    got: Got
    asked: tuple[int, int]
    generated: tuple[int, int]
    outcome: str
    wrong: list[str]


def run(cases: Sequence[Case]) -> list[Row]:
    """All cases, some at a time, each with a model of its own."""
    with Rig(cases) as rig, ThreadPoolExecutor(AT_ONCE) as pool:
        rows = list(pool.map(lambda at: _row(rig, at, cases[at]), range(len(cases))))
        counted = _counted(rig, len(cases))
    for at, row in enumerate(rows):
        if (outcomes := counted.get(name(at))) != {row.case.counted: 1}:
            row.wrong.append(f"counted as {outcomes}, not once as {row.case.counted}")
    return rows


def _counted(rig: Rig, models: int) -> dict[str, dict[str, float]]:
    """The figures, once there are some of every model."""
    deadline = time.monotonic() + FIGURES_SECONDS_MAX
    while len(counted := rig.counted()) < models and time.monotonic() < deadline:
        time.sleep(0.2)
    return counted


def _row(rig: Rig, at: int, case: Case) -> Row:
    rig.script(at)
    got = ask(rig.gunicorn.url, name(at), case)
    outcome = _outcome(rig, got.stream_id)
    row = Row(case, got, rig.asked(at), rig.generated(at), outcome, [])
    row.wrong = list(_wrong(row))
    return row


def _wrong(row: Row) -> "list[str]":
    case, got = row.case, row.got
    low, high = case.seconds
    # A clock that cuts a stream may cut it a token later or earlier: only its beginning is known.
    text_is_right = got.text.startswith(case.text) if "answer_seconds" in case.model else got.text == case.text
    checks = {
        f"end {got.end}, not {case.end}": got.end == case.end,
        f"status {got.status}, not {case.status}": got.status == case.status,
        f"text {got.text!r}, not {case.text!r}": text_is_right,
        f"asked {row.asked}, not {case.asked}": row.asked == case.asked,
        f"{got.seconds:.2f} s, not within {low} to {high} s": low <= got.seconds <= high,
        f"outcome {row.outcome!r}, not {case.label!r}": row.outcome == case.label,
        f"{got.resets} resets, not {case.resets}": got.resets == case.resets,
        f"Retry-After {got.retry_after}, not {case.retry_after}": not case.retry_after
        or got.retry_after == case.retry_after,
        "no heartbeat": got.heartbeats > 0 or not case.heartbeat,
        "told where the upstream is, or its key": not any(secret in got.raw for secret in (HOST, KEY, "Traceback")),
    }
    return [what for what, holds in checks.items() if not holds]


def _outcome(rig: Rig, stream_id: str) -> str:
    """The label in the log's line of this generation."""
    deadline = time.monotonic() + LOG_SECONDS_MAX
    while time.monotonic() < deadline:
        for line in rig.gunicorn.log.splitlines():
            if stream_id and stream_id in line and '"generation"' in line:
                return str(json.loads(line)["outcome"])
        time.sleep(0.05)
    return "not logged"
