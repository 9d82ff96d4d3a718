"""What a client saw of one stream: when its tokens came, and how it ended. One line of the journal when it is over.

Times are in seconds of one clock, the caller's. Says nothing of how the stream was carried.
"""

import json
import os
import time
from enum import StrEnum
from pathlib import Path
from typing import Any

# A run in a container has the same process id as the one before it, and perhaps the same folder.
_BEGAN_MS = int(1000 * time.time())


class Outcome(StrEnum):
    """How it ended, as the client saw it. `http_503` and the like are made of the status."""

    FINISHED = "finished"
    FAILED = "failed"  # it said so itself, or its client could not read it
    TRUNCATED = "truncated"  # it ended without a word
    REFUSED = "refused"  # no connection, or none that lasted until the status
    SILENT = "silent"  # nothing came for longer than the client waits
    CANCELLED = "cancelled"  # the client left, as it had meant to
    REPEATED = "repeated"  # a token came twice, or one is missing: worse than any end
    RECONNECT = "reconnect"  # it was asked to come back, and may not, or did too often
    ENDLESS = "endless"  # it went on for longer than any answer may
    OPEN = "open"  # the test was over first


class Observation:
    """Tell it what happens, in order."""

    def __init__(self, scenario: str, scheduled: float, opened: float) -> None:
        self.scenario = scenario
        self.scheduled = scheduled
        self.opened = opened
        self.first_token: float | None = None
        self.ended: float | None = None
        self.gaps: list[float] = []
        self.tokens = 0
        self.resumes: list[float] = []
        self.heartbeats = 0
        self.resets = 0
        self.outcome = ""
        self.stream_id = ""
        self._last_token: float | None = None
        self._cut_at: float | None = None

    def token(self, at: float) -> None:
        """Something of the answer arrived."""
        self.tokens += 1
        if self.first_token is None:
            self.first_token = at
        if self._cut_at is not None:
            self.resumes.append(at - self._cut_at)
            self._cut_at = None
        elif self._last_token is not None:
            self.gaps.append(at - self._last_token)
        self._last_token = at

    def cut(self, at: float) -> None:
        """The connection is gone, and the client will come back: until the next token, this is no gap of the stream."""
        if self._cut_at is None:  # a client that is turned away has been without its stream since before
            self._cut_at = at

    def void(self, tokens: int) -> None:
        """So many tokens do not count: they will be told again."""
        self.tokens -= tokens

    def reset(self) -> None:
        """All that was said so far is void, and the answer begins again."""
        self.resets += 1
        self.void(self.tokens)

    def end(self, at: float, outcome: str) -> None:
        """It is over."""
        self.ended = at
        self.outcome = outcome

    @property
    def ttft(self) -> float | None:
        """From when it was due, not from when a busy client got round to it."""
        return None if self.first_token is None else self.first_token - self.scheduled

    @property
    def largest_gap(self) -> float | None:
        return max(self.gaps, default=None)

    def record(self) -> dict[str, Any]:
        """The line of the journal; times in ms."""
        return {
            "scenario": self.scenario,
            "stream_id": self.stream_id,
            "scheduled_ms": _ms(self.scheduled),
            "opened_ms": _ms(self.opened),
            "first_token_ms": _ms(self.first_token),
            "ended_ms": _ms(self.ended),
            "largest_gap_ms": _ms(self.largest_gap),
            "gaps_ms": [_ms(gap) for gap in self.gaps],
            "resumes_ms": [_ms(resume) for resume in self.resumes],
            "heartbeats": self.heartbeats,
            "resets": self.resets,
            "tokens": self.tokens,
            "outcome": self.outcome,
        }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(1000 * seconds, 3)


class Journal:
    """Appends to a file of its own in `folder`: processes that share one would mix their lines.

    Not a new file for each test: on the web page one process runs several, and the first would be lost.

    Args:
        index: of the process among those of its run.
    """

    def __init__(self, folder: Path, index: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / f"streams-{index}-{os.getpid()}-{_BEGAN_MS}.jsonl"
        self._file = self.file.open("a", encoding="utf-8")

    def write(self, observation: Observation) -> None:
        self._file.write(json.dumps(observation.record()) + "\n")

    def close(self) -> None:
        self._file.close()
