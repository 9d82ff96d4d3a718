"""What became of one generation and what it took: told once, whatever became of its readers."""

from typing import Any, NamedTuple

from app.streams.grant import Grant


class Account(NamedTuple):
    """Of one generation on one worker.

    Args:
        outcome: `completed`, the code of its error, or `moved` when another worker goes on with it.
        upstream: who was asked last; None when nobody was.
        input_tokens, output_tokens: of all attempts, by the upstreams' count where they say, else by ours.
        cost: of the same; None where no price is configured.
        grant: what the stream took of its principal's account.
        trace: the trace of the request that began it.
        first_token_seconds: None when there was none.
        rescued: an upstream failed in the middle of the answer.
    """

    stream_id: str
    model: str
    surface: str
    principal: str
    outcome: str
    upstream: str | None
    attempts: int
    input_tokens: int
    output_tokens: int
    cost: float | None
    first_token_seconds: float | None
    seconds: float
    grant: Grant | None = None
    rescued: bool = False
    trace: str | None = None

    def fields(self) -> dict[str, Any]:
        """For the log."""
        first = self.first_token_seconds
        return {
            "stream": self.stream_id,
            **({} if self.trace is None else {"trace_id": self.trace}),
            "model": self.model,
            "surface": self.surface,
            "outcome": self.outcome,
            "upstream": self.upstream,
            "attempts": self.attempts,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            **({} if self.cost is None else {"cost": self.cost}),
            **({} if first is None else {"first_token_ms": round(first * 1000, 1)}),
            "duration_ms": round(self.seconds * 1000, 1),
        }
