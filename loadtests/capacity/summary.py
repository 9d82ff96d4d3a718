"""The answer as Markdown, for people, with the verdict first."""

from collections.abc import Sequence
from typing import Any

from loadtests.capacity.objectives import Objectives
from loadtests.capacity.point import Point
from loadtests.capacity.result import Answer
from loadtests.capacity.sweep import Sweep

NOTHING = "–"
HEADINGS = (
    "model", "streams", "seed", "in flight", "tokens/s", "TTFT p50 / p99 ms", "gap p50 / p99 / p99.9 ms",
    "in time %", "without a pause %", "complete %", "CPU µs/token", "NGINX µs/token", "generator busy %", "missed",
)  # fmt: skip


def markdown(found: Sweep, answer: Answer, due: Objectives) -> str:
    """Verdict, number, how it was come by, and every point."""
    return "\n".join(
        [
            f"# {answer.title}: {'VALID' if answer.valid else 'INVALID'}",
            "",
            *[f"- {reason}" for reason in answer.reasons],
            *([""] if answer.reasons else []),
            *_facts(answer),
            *_left_out(found.dropped, due),
            "",
            *_table(sorted(found.points, key=lambda point: point.streams) + found.confirmations, due),
            "",
            *DEFINITIONS,
            "",
        ]
    )


DEFINITIONS = (
    "In time: the first token came within the bound, counted from when the stream was due. Without a pause: no gap of "
    "the stream was over the bound. Percentiles that so few values cannot tell are left out. Closed: a stream begins "
    "when another has ended. Open: streams begin at random moments (Poisson), whatever the server does. The warm-up, "
    "the ramp and what follows the window are in no figure.",
)


def _facts(answer: Answer) -> list[str]:
    document = answer.document
    low, high = document["streams_per_worker_interval"]
    bound, bends = document["objectives"], document["knee"]
    return [
        f"- Boundary: {bends['objectives']} streams, 95 % interval {low:g} to {high:g}; the number is the largest load "
        "at or below the interval that the open model carried with every seed.",
        f"- Objectives ({bound['profile']}): first token within {bound['ttft_ms_max']:g} ms for "
        f"{100 * bound['ttft_share']:g} % of streams, no gap over {bound['gap_ms_max']:g} ms in "
        f"{100 * bound['gap_share']:g} %, "
        f"{100 * bound['complete_share']:g} % complete; {document['tokens_per_second']:g} tokens/s, "
        f"{document['tokens_per_stream']} a stream.",
        f"- Knee: objectives {bends['objectives']} (this one decides), scalability law {_number(bends['usl'])}, "
        f"bend of the curve {_number(bends['curve'])}.",
        f"- Cost at that load: {_number(document['cpu_us_per_token'])} µs of CPU a token and "
        f"{_number(document['nginx_cpu_us_per_token'])} in NGINX, {_number(document['kib_per_stream'])} KiB a stream "
        f"and {_number(document['nginx_kib_per_stream'])} in NGINX.",
        *([] if answer.target else [_pod(document)]),
        f"- {document['machine']}. Generator: {document['generator']}.",
        f"- {document['measured_at']}, `{document['command']}`; "
        + ", ".join(f"{name} {version}" for name, version in document["versions"].items()),
    ]


def _left_out(dropped: Sequence[Point], due: Objectives) -> list[str]:
    told = ", ".join(f"{each.streams} with seed {each.seed} ({', '.join(each.misses(due))})" for each in dropped)
    return [f"- Left out, since they missed an objective once and not again: {told}."] if dropped else []


def _pod(document: dict[str, Any]) -> str:
    return (
        f"- A pod of {document['workers_per_pod']} workers: {document['streams_per_pod']} streams; the autoscaler acts "
        f"at {document['hpa_target_streams_per_pod']}, NGINX lets {document['nginx_streams_max']} through."
    )


def _table(points: Sequence[Point], due: Objectives) -> list[str]:
    rows = [list(HEADINGS), ["---"] * len(HEADINGS), *(_cells(point, due) for point in points)]
    return ["| " + " | ".join(cells) + " |" for cells in rows]


def _cells(point: Point, due: Objectives) -> list[str]:
    return [
        point.model,
        str(point.streams),
        str(point.seed),
        f"{point.health.in_flight_mean:.0f}",
        f"{point.tokens_per_second:.0f}",
        _several(point.ttft_ms, ("p50", "p99")),
        _several(point.gap_ms, ("p50", "p99", "p99.9")),
        *[f"{100 * point.kept[name].share:.2f}" for name in ("ttft", "gap", "complete")],
        _number(point.cost.cpu_us_per_token),
        _number(point.cost.nginx_cpu_us_per_token),
        _number(point.health.generator_busy_percent),
        ", ".join(point.misses(due)) or NOTHING,
    ]


def _several(values: dict[str, float], names: Sequence[str]) -> str:
    return " / ".join(f"{values[name]:.1f}" if name in values else NOTHING for name in names)


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.1f}"
