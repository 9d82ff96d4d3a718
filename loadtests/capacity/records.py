"""One line for each stream, from whichever generator: what became of it, and when; in ms from the window's start."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from loadtests.capacity.objectives import Objectives

STILL_OPEN = "open"
FINISHED = "finished"


class Record(msgspec.Struct, frozen=True):
    """A stream that ended within the window, or was open at its end; None where something did not happen.

    `largest_gap_ms` is of gaps that ended within the window.
    """

    scheduled_ms: float
    opened_ms: float
    ended_ms: float | None
    first_token_ms: float | None
    largest_gap_ms: float | None
    tokens: int
    outcome: str

    @property
    def ttft_ms(self) -> float | None:
        """From the moment at which the stream was due, which a slow server does not move."""
        return None if self.first_token_ms is None else self.first_token_ms - self.scheduled_ms

    @property
    def life_ms(self) -> float | None:
        """How long it was open, from before the window if need be; None while it is."""
        return None if self.outcome == STILL_OPEN or self.ended_ms is None else self.ended_ms - self.opened_ms

    def milliseconds_within(self, window_ms: float) -> float:
        """How long it was open within the window."""
        ended = window_ms if self.outcome == STILL_OPEN or self.ended_ms is None else self.ended_ms
        return max(0.0, min(ended, window_ms) - max(self.opened_ms, 0.0))


class Kept(NamedTuple):
    """Of so many streams, how many kept an objective."""

    good: int
    total: int

    @property
    def share(self) -> float:
        """1 where nothing could be judged: what is missing is the verdict's business."""
        return self.good / self.total if self.total else 1.0


def read_records(file: Path) -> list[Record]:
    """All lines of a file."""
    decode = msgspec.json.Decoder(Record).decode_lines
    return decode(file.read_bytes())


def kept(records: Sequence[Record], due: Objectives, window_ms: float) -> dict[str, Kept]:
    """How many streams kept each objective, of those that can be judged by this window."""
    begun = [record for record in records if 0 <= record.scheduled_ms <= window_ms - due.ttft_ms_max]
    spoke = [record.largest_gap_ms for record in records if record.largest_gap_ms is not None]
    ended = [record.outcome for record in records if record.outcome != STILL_OPEN]
    in_time = [record for record in begun if record.ttft_ms is not None and record.ttft_ms <= due.ttft_ms_max]
    return {
        "ttft": Kept(len(in_time), len(begun)),
        "gap": Kept(sum(gap <= due.gap_ms_max for gap in spoke), len(spoke)),
        "complete": Kept(ended.count(FINISHED), len(ended)),
    }
