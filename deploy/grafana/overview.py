"""The first dashboard: are the promises kept, how much is asked, how fast is the answer."""

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from deploy.grafana.board import board
from deploy.grafana.panels import GREEN, RED, THIRD, YELLOW, Query, graph, number
from deploy.grafana.queries import of, quantile, rate, recorded, total
from deploy.prometheus.objectives import Burn, Objective, load

STAT = 4


def overview() -> Dashboard:
    """Begin here."""
    objectives = load()
    budgets = [_budget(objective, objectives.budget_days) for objective in objectives.objectives]
    burns = [_burn(burn, objectives.objectives) for burn in objectives.burns if burn.severity == "page"]
    return board(
        "overview",
        "Overview",
        "Whether the promises of deploy/prometheus/slo.yaml are kept, and what is going on. Begin here.",
        {
            "Promises": [*budgets, _running(), *burns],
            "What is asked": _asked(),
            "How fast": _fast(),
            "What it takes": _taken(),
        },
    )


def _budget(objective: Objective, days: int) -> Builder[Panel]:
    errors = recorded(f"sluice:slo_errors:ratio_rate{days}d", objective.name)
    return number(
        f"Budget left: {objective.name}",
        f"Of {objective.noun}, {objective.budget * 100:g} % may be in {days} days. What is left of that.",
        "percentunit",
        Query(f"1 - {errors} / {objective.budget:g}", "{{namespace}} {{job}}"),
        span=STAT,
        limits={None: RED, 0: YELLOW, 0.25: GREEN},
    )


def _running() -> Builder[Panel]:
    return number(
        "Streams running",
        "Generations that workers own now.",
        "short",
        Query(total(of("sluice_active_streams")), "streams"),
        span=STAT,
    )


def _burn(burn: Burn, objectives: tuple[Objective, ...]) -> Builder[Panel]:
    window, limit = burn.long, burn.factor
    return graph(
        f"Burn rate, {window}",
        f"How many times too fast the budget is used, over {window}. A page comes at {limit:g}.",
        "short",
        *(
            Query(f"{recorded(f'sluice:slo_errors:ratio_rate{window}', each.name)} / {each.budget:g}", each.name)
            for each in objectives
        ),
        limits={None: GREEN, limit: RED},
    )


def _asked() -> list[Builder[Panel]]:
    return [
        graph(
            "Streams that ended, by outcome",
            "completed and spliced are good; client_cancelled, rejected and moved do not count.",
            "ops",
            Query(total(rate("sluice_streams_total"), "outcome"), "{{outcome}}"),
            span=THIRD,
            stacked=True,
        ),
        graph(
            "Requests, by status",
            "All answers, also those without a stream. 499: the caller left first.",
            "reqps",
            Query(total(rate("sluice_requests_total"), "code"), "{{code}}"),
            span=THIRD,
            stacked=True,
        ),
        graph(
            "Refused before they began",
            "Requests for a stream that got an error in its place, by the error's code.",
            "reqps",
            Query(total(rate("sluice_refused_total"), "reason"), "{{reason}}"),
            span=THIRD,
            stacked=True,
        ),
        graph(
            "Streams running and read",
            "Generations, and connections that read one; draining: their worker is about to stop.",
            "short",
            Query(total(of("sluice_active_streams"), "draining"), "streams, draining {{draining}}"),
            Query(total(of("sluice_active_readers"), "draining"), "readers, draining {{draining}}"),
        ),
        graph(
            "Tokens",
            "As upstreams count them, when a stream ends.",
            "cps",
            Query(total(rate("sluice_tokens_total"), "direction"), "{{direction}}"),
        ),
    ]


def _fast() -> list[Builder[Panel]]:
    return [
        _quantiles("First token", "From the request to the first token.", "sluice_time_to_first_token_seconds"),
        _quantiles("Time per token", "Mean of each stream.", "sluice_time_per_output_token_seconds"),
        _quantiles("Longest silence", "The largest gap of each stream.", "sluice_stream_max_gap_seconds"),
    ]


def _quantiles(title: str, description: str, name: str) -> Builder[Panel]:
    shares = [Query(quantile(share, name), f"p{share * 100:g}") for share in (0.5, 0.95, 0.99)]
    return graph(title, description, "s", *shares, span=THIRD)


def _taken() -> list[Builder[Panel]]:
    return [
        graph(
            "Streams, by tenant",
            "Only tenants that SLUICE_METRICS_TENANTS names; all the others are `other`.",
            "ops",
            Query(total(rate("sluice_tenant_streams_total"), "tenant"), "{{tenant}}"),
            span=THIRD,
            stacked=True,
        ),
        graph(
            "Tokens, by tenant",
            "In and out together.",
            "cps",
            Query(total(rate("sluice_tenant_tokens_total"), "tenant"), "{{tenant}}"),
            span=THIRD,
            stacked=True,
        ),
        graph(
            "Cost per hour",
            "By the prices of SLUICE_CONFIG, in their currency.",
            "short",
            Query(f"{total(rate('sluice_cost_total'), 'model')} * 3600", "{{model}}"),
            span=THIRD,
            stacked=True,
        ),
    ]
