"""One fault: what goes wrong at a model's upstreams, who asks, and what has to come of it."""

from dataclasses import dataclass, field
from typing import Any, Literal

from tests.support.upstream_script import Script

Client = Literal["SDK", "SDK batch", "native", "native batch"]
# A server that nobody runs, one that never takes a connection, and the scripted one.
Place = Literal["scripted", "nobody", "hangs"]

# Codes of errors that are not counted as an upstream's; metrics have fewer words than callers.
COUNTED = {
    "upstream_truncated": "upstream_truncated",
    "upstream_timeout": "upstream_timeout",
    "upstream_stalled": "stalled",
    "upstream_rejected": "rejected",
    "content_filter": "rejected",
    "context_length_exceeded": "rejected",
}
HEALTHY = Script()
WHOLE = HEALTHY.text


@dataclass(frozen=True)
class Case:
    """Expectations come from here and from the scripts; everything that is compared to them is seen from outside.

    Args:
        name: what goes wrong.
        first, second: how the upstreams answer, in turn; no second one: it is alone.
        client: who asks: the OpenAI SDK, or a client of the native surface.
        model: keys of the model's part of the models file.
        upstream, other: keys of the first and the second upstream.
        end: `done`, or the code of the error.
        status: of the answer.
        text: what the client has at the end.
        asked: requests that each upstream's own process counted.
        seconds: bounds of the time taken.
        resets: how often the client was told to forget what it had.
        body: more fields of the request.
        heartbeat: whether one must have been seen.
    """

    name: str
    first: Script | tuple[Script, ...] = HEALTHY
    second: Script | tuple[Script, ...] | None = HEALTHY
    client: Client = "SDK"
    place: Place = "scripted"
    second_place: Place = "scripted"
    model: dict[str, Any] = field(default_factory=dict)
    upstream: dict[str, Any] = field(default_factory=dict)
    other: dict[str, Any] = field(default_factory=dict)
    end: str = "done"
    status: int = 200
    text: str = WHOLE
    asked: tuple[int, int] = (1, 1)
    seconds: tuple[float, float] = (0, 4)
    resets: int = 0
    retry_after: str | None = None
    body: dict[str, Any] = field(default_factory=dict)
    heartbeat: bool = False
    outcome: str = ""

    @property
    def label(self) -> str:
        """The outcome that the log must have."""
        return self.outcome or ("completed" if self.end == "done" else self.end)

    @property
    def counted(self) -> str:
        """The outcome that metrics must have."""
        if self.end != "done":
            return COUNTED.get(self.end, "upstream_error")
        first = self.first[0] if isinstance(self.first, tuple) else self.first
        failed_behind = first.die_after or first.stall_after or first.error_at
        # What is held back was not said yet, and a thought is no part of the answer.
        return "spliced" if failed_behind and "hold_tokens" not in self.model and not first.reasoning else "completed"
