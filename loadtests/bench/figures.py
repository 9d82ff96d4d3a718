"""What one run of `load` reports, as typed values."""

import msgspec


class Percentiles(msgspec.Struct, frozen=True):
    """Of `count` values, in ms; -1 without values."""

    count: int
    p50: float
    p99: float
    p999: float


class Figures(msgspec.Struct, frozen=True):
    """Errors count from the first stream on, everything else within the window.

    `lag_ms` is how late the generator itself may have been, `start_lag_ms` how late streams began; of the open model,
    `scheduled` streams were to begin, and `waiting` had not at the end.
    """

    window_seconds: float
    cpu_seconds: float
    tokens: int
    opened: int
    finished: int
    streams_seen: int
    streams_stalled: int
    ttft_ms: Percentiles
    gap_ms: Percentiles
    delay_ms: Percentiles
    lag_ms: Percentiles
    start_lag_ms: Percentiles
    in_flight_mean: float
    scheduled: int
    waiting: int
    refused: int
    truncated: int
    failed: int
    stuck: int
    malformed: int
    misordered: int
    http_errors: dict[str, int]

    def errors(self) -> dict[str, int]:
        """What went wrong, by kind; empty when nothing did."""
        kinds = {
            "refused": self.refused,
            "truncated": self.truncated,
            "ended in an error": self.failed,
            "stuck": self.stuck,
            "malformed": self.malformed,
            "tokens lost or out of order": self.misordered,
            **{f"HTTP {status}": count for status, count in self.http_errors.items()},
        }
        return {kind: count for kind, count in kinds.items() if count}

    @property
    def stalled_percent(self) -> float:
        return 100 * self.streams_stalled / max(1, self.streams_seen)
