"""The answer as Markdown, for people, with the verdict first."""

from collections.abc import Sequence
from typing import Any

from loadtests.capacity.objectives import Objectives
from loadtests.capacity.point import Point
from loadtests.capacity.result import Answer
from loadtests.capacity.sweep import PRECISION, Role, Sweep

NOTHING = "–"
HEADINGS = (
    "model", "streams", "seed", "in flight", "tokens/s", "TTFT p50 / p99 ms", "gap p50 / p99 / p99.9 ms", "in time %",
    "without a pause %", "complete %", "CPU µs/token", "NGINX µs/token", "generator busy %", "missed", "counts",
)  # fmt: skip


def markdown(found: Sweep, answer: Answer, due: Objectives) -> str:
    """Verdict, number, how it was come by, and every point."""
    return "\n".join(
        [
            f"# {answer.title}: {'VALID' if answer.valid else 'INVALID'}",
            "",
            *[f"- {reason}" for reason in answer.reasons],
            *([""] if answer.reasons else []),
            *_facts(found, answer),
            "",
            *_table(found, due),
            "",
            *DEFINITIONS,
            "",
        ]
    )


DEFINITIONS = (
    "In time: the first token came within the bound, counted from when the stream was due. Without a pause: no gap of "
    "the stream was over the bound. Percentiles that so few values cannot tell are left out. Closed: a stream begins "
    "when another has ended. Open: streams begin at random moments (Poisson), whatever the server does. The warm-up, "
    "the ramp and what follows the window are in no figure. Counts: the search's points make the boundary; left out is "
    "what missed an objective once and not again, a first try what missed again, so that the second stands for it; "
    "disturbed is what a neighbour took the core from, so that it was measured again; not carried are loads of the "
    "open model that a seed missed, all of their seeds; carried are those of the number.",
)


def _facts(found: Sweep, answer: Answer) -> list[str]:
    document = answer.document
    bound, bends = document["objectives"], document["knee"]
    return [
        *_origins(found, answer),
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


def _origins(found: Sweep, answer: Answer) -> list[str]:
    """What the number is, and what the interval beside it: they are of two models, and seldom hold each other."""
    low, high = answer.document["streams_per_worker_interval"]
    boundary = (
        f"- Boundary of the closed model: {answer.document['knee']['objectives']} streams, 95 % interval {low:g} to "
        f"{high:g}. It is not the number's."
    )
    if found.confirmed is None:
        return ["- No number: no load was carried in the open model.", boundary]
    missed = sorted({point.streams for point in found.not_carried}, reverse=True)
    told = f" {', '.join(map(str, missed))} did not." if missed else " It was the first that was tried."
    return [
        f"- The number, {found.confirmed}, is of the open model: the largest load, tried from the lower end of the "
        f"interval down in steps of {100 * PRECISION:g} %, that kept every objective in each of "
        f"{len(found.carried)} repetitions.{told}",
        boundary,
    ]


def _pod(document: dict[str, Any]) -> str:
    return (
        f"- A pod of {document['workers_per_pod']} workers: {document['streams_per_pod']} streams; the autoscaler acts "
        f"at {document['hpa_target_streams_per_pod']}, NGINX lets {document['nginx_streams_max']} through."
    )


def _table(found: Sweep, due: Objectives) -> list[str]:
    rows = [list(HEADINGS), ["---"] * len(HEADINGS), *(_cells(role, point, due) for role, point in found.everything())]
    return ["| " + " | ".join(cells) + " |" for cells in rows]


def _cells(role: Role, point: Point, due: Objectives) -> list[str]:
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
        role,
    ]


def _several(values: dict[str, float], names: Sequence[str]) -> str:
    return " / ".join(f"{values[name]:.1f}" if name in values else NOTHING for name in names)


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.1f}"
