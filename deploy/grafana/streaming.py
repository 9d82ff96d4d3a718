"""How streams feel to those who read them, and what becomes of connections."""

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from deploy.grafana.board import board, choice
from deploy.grafana.panels import THIRD, Query, graph, spread
from deploy.grafana.queries import CHOSEN, buckets, of, quantile, rate, total

MODEL = 'model=~"$model"'


def streaming() -> Dashboard:
    """The quality of streams."""
    models = f"label_values(sluice_time_to_first_token_seconds_count{{{CHOSEN}}}, model)"
    return board(
        "streaming",
        "Streaming quality",
        "First tokens, pace and silences as heatmaps; and what became of connections: resumes, takeovers, resets.",
        {"As heatmaps": _heatmaps(), "By model": _models(), "Connections": _connections()},
        choice("model", "Model", models),
    )


def _heatmaps() -> list[Builder[Panel]]:
    return [
        spread(
            "First token",
            "From the request to the first token. Two bands: two models, or a queue.",
            "s",
            Query(_chosen("sluice_time_to_first_token_seconds"), "{{le}}"),
        ),
        spread(
            "Between two tokens",
            "Every gap of every stream.",
            "s",
            Query(_chosen("sluice_inter_token_latency_seconds"), "{{le}}"),
        ),
        spread(
            "Time per token",
            "The mean of each stream, once.",
            "s",
            Query(_chosen("sluice_time_per_output_token_seconds"), "{{le}}"),
        ),
        spread(
            "Longest silence",
            "The largest gap of each stream.",
            "s",
            Query(_chosen("sluice_stream_max_gap_seconds"), "{{le}}"),
        ),
    ]


def _chosen(name: str) -> str:
    return buckets(name).replace(CHOSEN, f"{CHOSEN},{MODEL}")


def _models() -> list[Builder[Panel]]:
    return [
        _slowest("First token, p95", "One stream in twenty waited longer.", "sluice_time_to_first_token_seconds"),
        _slowest("Time per token, p95", "One stream in twenty was slower.", "sluice_time_per_output_token_seconds"),
        _slowest("Duration, p95", "From the request to the end.", "sluice_stream_duration_seconds"),
        graph(
            "Ended without a token",
            "Generations that said nothing, by how they ended. They are in no figure of speed.",
            "ops",
            Query(total(rate("sluice_no_first_token_total", MODEL), "model", "outcome"), "{{model}} {{outcome}}"),
            stacked=True,
        ),
        graph(
            "Streams, by surface",
            "Through which API they were asked for.",
            "ops",
            Query(total(rate("sluice_streams_total", MODEL), "surface"), "{{surface}}"),
            stacked=True,
        ),
    ]


def _slowest(title: str, description: str, name: str) -> Builder[Panel]:
    expression = quantile(0.95, name, "model").replace(CHOSEN, f"{CHOSEN},{MODEL}")
    return graph(title, description, "s", Query(expression, "{{model}}"), span=THIRD)


def _connections() -> list[Builder[Panel]]:
    return [
        graph(
            "Connections that ended, by outcome",
            "drain, max_age and reauthenticate are asked to come back.",
            "ops",
            Query(total(rate("sluice_readers_total"), "outcome"), "{{outcome}}"),
            span=THIRD,
            stacked=True,
        ),
        graph(
            "Resumes and takeovers",
            "Readers that came back, and streams that another worker went on with.",
            "ops",
            Query(total(rate("sluice_resumes_total"), "result"), "resume: {{result}}"),
            Query(total(rate("sluice_takeovers_total"), "result"), "takeover: {{result}}"),
            span=THIRD,
        ),
        graph(
            "Resets",
            "Answers that began again: what readers had seen was void.",
            "ops",
            Query(total(rate("sluice_resets_total"), "reason"), "{{reason}}"),
            span=THIRD,
        ),
        graph(
            "Events",
            "Of streams, as they are delivered: tokens, ends, notices.",
            "eps",
            Query(total(rate("sluice_events_total")), "events"),
            span=THIRD,
        ),
        graph(
            "Heartbeats",
            "Many: upstreams are silent for long.",
            "ops",
            Query(total(rate("sluice_heartbeats_total")), "heartbeats"),
            span=THIRD,
        ),
        graph(
            "Readers",
            "Open connections that read a stream.",
            "short",
            Query(total(of("sluice_active_readers"), "draining"), "draining {{draining}}"),
            span=THIRD,
        ),
    ]
