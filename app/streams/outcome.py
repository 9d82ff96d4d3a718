"""How a stream ended, in a word of `OUTCOMES`: for metrics and for its line in the log."""

from app.events import Done, Terminal

# Those that are not in here are an upstream's.
_OUTCOMES = {
    "cancelled": "client_cancelled",
    "upstream_truncated": "upstream_truncated",
    "upstream_timeout": "upstream_timeout",
    "upstream_stalled": "stalled",
    "upstream_unavailable": "shed",
    "overloaded": "shed",
    "draining": "shed",
    "limit_exceeded": "limit_cut",
    "log_unavailable": "log_unavailable",
    "log_full": "log_unavailable",
    "producer_lost": "producer_lost",
    "cursor_gone": "producer_lost",
    "invalid_request": "rejected",
    "model_not_found": "rejected",
    "upstream_rejected": "rejected",
    "content_filter": "rejected",
    "context_length_exceeded": "rejected",
    "internal_error": "internal_error",
}
# Of requests that never became a stream, those that would have if there were more of us.
OURS = frozenset({"shed", "log_unavailable", "internal_error"})


def outcome_of(end: Terminal, rescued: bool) -> str:
    """The outcome of a stream with this end.

    Args:
        rescued: an upstream failed in the middle of its answer.
    """
    if type(end) is Done:
        return "spliced" if rescued else "completed"
    return outcome_of_code(end.code)  # type: ignore[union-attr]


def outcome_of_code(code: str) -> str:
    """The same of an error's code."""
    return _OUTCOMES.get(code, "upstream_error")
