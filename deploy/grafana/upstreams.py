"""Where tokens come from: each upstream's answers, its breaker, its queue, and what was done when it failed."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.grafana.board import board
from deploy.grafana.panels import THIRD, YELLOW, Query, graph
from deploy.grafana.queries import of, quantile, rate, total, worst

BREAKER = {"0": "closed", "1": "half open", "2": "open"}


def upstreams() -> Dashboard:
    """Each upstream by its model and its place in the model's list."""
    return board(
        "upstreams",
        "Upstreams",
        "Each upstream is called by its model and its place in the model's list of SLUICE_CONFIG, from 0.",
        {
            "Answers": [
                graph(
                    "Attempts, by outcome",
                    "given_up: nobody wanted the answer any more, or another upstream was faster.",
                    "ops",
                    Query(
                        total(rate("sluice_upstream_attempts_total"), "upstream", "outcome"), "{{upstream}} {{outcome}}"
                    ),
                    stacked=True,
                ),
                graph(
                    "Breakers",
                    "The worst of all workers. Open: it is not asked any more.",
                    "short",
                    Query(worst(of("sluice_breaker_state"), "upstream"), "{{upstream}}"),
                    stepped=True,
                    states=BREAKER,
                ),
                graph(
                    "First token, p50",
                    "From asking the upstream.",
                    "s",
                    Query(quantile(0.5, "sluice_upstream_first_token_seconds", "upstream"), "{{upstream}}"),
                ),
                graph(
                    "First token, p95",
                    "From asking the upstream.",
                    "s",
                    Query(quantile(0.95, "sluice_upstream_first_token_seconds", "upstream"), "{{upstream}}"),
                ),
            ],
            "Load": [
                graph(
                    "Requests that run",
                    "Bounded by concurrency_max.",
                    "short",
                    Query(total(of("sluice_upstream_active_requests"), "upstream"), "{{upstream}}"),
                    span=THIRD,
                ),
                graph(
                    "Requests that wait",
                    "For a place at the upstream.",
                    "short",
                    Query(total(of("sluice_upstream_queue_depth"), "upstream"), "{{upstream}}"),
                    span=THIRD,
                ),
                graph(
                    "How long they wait, p95",
                    "One in twenty waited longer.",
                    "s",
                    Query(quantile(0.95, "sluice_upstream_queue_wait_seconds", "upstream"), "{{upstream}}"),
                    span=THIRD,
                    limits={None: "green", 5: YELLOW},
                ),
            ],
            "After a failure": [
                graph(
                    "Retries, by reason",
                    "The same upstream again.",
                    "ops",
                    Query(total(rate("sluice_retries_total"), "upstream", "reason"), "{{upstream}} {{reason}}"),
                    span=THIRD,
                ),
                graph(
                    "Failovers, by reason",
                    "Another upstream.",
                    "ops",
                    Query(total(rate("sluice_failovers_total"), "model", "reason"), "{{model}} {{reason}}"),
                    span=THIRD,
                ),
                graph(
                    "Rescues, by way",
                    "Answers that went on after a failure in the middle.",
                    "ops",
                    Query(total(rate("sluice_rescues_total"), "way"), "{{way}}"),
                    span=THIRD,
                ),
                graph(
                    "Tokens, by model",
                    "As upstreams count them.",
                    "cps",
                    Query(total(rate("sluice_tokens_total"), "model", "direction"), "{{model}} {{direction}}"),
                ),
                graph(
                    "Cost per hour, by model",
                    "By the prices of SLUICE_CONFIG, in their currency.",
                    "short",
                    Query(f"{total(rate('sluice_cost_total'), 'model')} * 3600", "{{model}}"),
                ),
            ],
        },
    )
