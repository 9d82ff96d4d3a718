"""What a chain's terminal may show: lines of JSON, the words of `make run`, and the stacks of an aborted worker."""

import json
import re
from collections.abc import Iterator
from typing import Any

from app.observability.log_fields import FIELDS

# Each has been a defect of somebody's streams.
BAD = re.compile(
    "Traceback|Task was destroyed|never retrieved|never awaited|exit cancel scope|different Context|WORKER TIMEOUT"
    "|ResourceWarning|coredump|lines dropped|duty failed|stream task failed|stream log failed|generation failed"
)
# Of two workers that are aborted at once, each writes its stack in pieces.
_PIECE = re.compile(r"(\S+\", line )?\d+ in \S+$|[0-9a-fx]+ \(most recent call first\):$")
# NGINX's own, before it has opened its log.
_NGINX = re.compile(r"\d{4}/\d\d/\d\d [\d:]+ \[notice\] ")
_ABORTED = re.compile(
    r"Fatal Python error: Aborted|(Current )?[Tt]hread 0x|  File \"|  \.\.\.$|Extension modules: |  <"
    "|  Garbage-collecting$"
)


def wrong_lines(log: str, also_bad: str = "") -> Iterator[str]:
    """The lines that should not be there."""
    bad = re.compile(f"{BAD.pattern}|{also_bad}") if also_bad else BAD
    for line in _programs(log):
        if bad.search(line):
            yield f"in the log: {line[:2000]}"
        elif (fields := _fields(line)) is not None:
            # A pod's NGINX writes its access log there too, which nginx/README.md explains.
            if "upstream_status" not in fields and (unknown := fields.keys() - FIELDS.keys()):
                yield f"fields that deploy/LOGS.md does not explain, {sorted(unknown)}: {line[:300]}"
        elif line.strip() and not (_is_stack(line) or _NGINX.match(line)):
            yield f"not JSON: {line[:300]}"


def _programs(log: str) -> Iterator[str]:
    """Without what `make run` itself says when it begins and ends."""
    own = False
    for line in log.splitlines():
        if line.startswith("sluice is ready"):
            own = True
        elif line.startswith("{"):
            own = False
        if not own and not line.startswith("sluice: "):
            yield line


def _is_stack(line: str) -> bool:
    return bool(_ABORTED.match(line) or _PIECE.match(line))


def _fields(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
