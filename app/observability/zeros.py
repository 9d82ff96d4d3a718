"""Series that are there from a worker's start on: of one that appears with its first event, no rate sees that event."""

from collections.abc import Iterable
from itertools import product

from app.observability import metrics
from app.observability.figures import figures

# Ninety series each: where there are many models, each of them matters less.
MODELS_IN_FULL = 20
OF_MODELS = (
    metrics.FIRST_TOKEN_SECONDS,
    metrics.TOKEN_GAP_SECONDS,
    metrics.TOKEN_SECONDS,
    metrics.GAP_SECONDS_MAX,
    metrics.STREAM_SECONDS,
)
WORDS = {
    metrics.REFUSED.name: (
        *("draining", "forbidden", "invalid_request", "log_unavailable", "model_not_found", "not_found"),
        *("overloaded", "rate_limited", "unauthorized"),
    ),
    metrics.READERS.name: ("completed", "client_cancelled", "drain", "max_age", "slow_reader", "server_error"),
    metrics.RESUMES.name: ("ok", "past_end", "gone"),
    metrics.ADMISSION_SHED.name: ("queue_full", "timeout", "lag"),
    metrics.TAKEOVERS.name: ("continued", "ended"),
    metrics.RESCUES.name: ("continue", "splice", "reset"),
}


def begin_at_zero(models: Iterable[str], upstreams: Iterable[str]) -> None:
    """Make the series that rules look at: those without labels, and those of what is configured."""
    for metric in metrics.ALL.values():
        if metric.place == "workers" and not metric.labels:
            if metric.kind == "counter":
                figures.add(metric, 0)
            elif metric.kind == "histogram":
                figures.tally(metric)
    for number, model in enumerate(models):
        _begin_model(model, all_outcomes=number < MODELS_IN_FULL)
    for upstream in upstreams:
        figures.add(metrics.ATTEMPTS, 0, upstream, "ok")
        figures.tally(metrics.UPSTREAM_FIRST_TOKEN, upstream)
        figures.tally(metrics.UPSTREAM_WAIT, upstream)
    for name, words in WORDS.items():
        for word in words:
            figures.add(metrics.ALL[name], 0, word)


def _begin_model(model: str, all_outcomes: bool) -> None:
    for surface, outcome in product(metrics.SURFACES, metrics.OUTCOMES if all_outcomes else ("completed",)):
        figures.add(metrics.STREAMS, 0, model, surface, outcome)
    for direction in ("input", "output"):
        figures.add(metrics.TOKENS, 0, model, direction)
    figures.add(metrics.COST, 0, model)
    for metric in OF_MODELS:
        figures.tally(metric, model)
