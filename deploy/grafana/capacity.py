"""How full it is, against the number of streams that was measured."""

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from app.capacity import Capacity
from app.capacity import capacity as measured
from deploy.grafana.board import board
from deploy.grafana.panels import GREEN, RED, THIRD, YELLOW, Query, graph, number
from deploy.grafana.queries import mean, of, quantile, rate, total


def capacity() -> Dashboard:
    """How many streams run, and how many could."""
    known = measured()
    return board(
        "capacity",
        "Capacity",
        f"Streams against deploy/capacity.json: {known.streams_per_worker} a worker with every objective kept.",
        {"How full": _full(known), "Waiting and refused": _waiting(), "Spread and cost": _spread()},
    )


def _full(known: Capacity) -> list[Builder[Panel]]:
    active = total(of("sluice_active_streams"))
    workers = total(of("sluice_workers"))
    return [
        number(
            "In use",
            "Streams that run, of those that the workers were measured to carry.",
            "percentunit",
            Query(f"{active} / ({known.streams_per_worker} * {workers})", "in use"),
            limits={None: GREEN, known.utilisation_target: YELLOW, 0.9: RED},
        ),
        number(
            "Streams that could still begin",
            "Measured capacity less what runs.",
            "short",
            Query(f"{known.streams_per_worker} * {workers} - {active}", "streams"),
            limits={None: RED, 1: GREEN},
        ),
        number(
            "Pods that the load asks for",
            f"At {known.hpa_target_streams_per_pod} streams a pod, the autoscaler's target.",
            "short",
            Query(f"ceil({active} / {known.hpa_target_streams_per_pod})", "pods"),
        ),
        number(
            "Pods that serve",
            "Exporters that answer.",
            "short",
            Query(f"count({of('sluice_build_info')})", "pods"),
        ),
        graph(
            "Streams against capacity",
            "When the streams reach the target, pods are added; at the admission limit, requests wait.",
            "short",
            Query(active, "streams"),
            Query(f"{known.streams_per_worker} * {workers}", "measured capacity"),
            Query(f"{known.hpa_target_streams_per_pod} * count({of('sluice_build_info')})", "autoscaler's target"),
            Query(total(of("sluice_streams_max")), "admission limit"),
            span=24,
        ),
    ]


def _waiting() -> list[Builder[Panel]]:
    return [
        graph(
            "Requests that wait to be admitted",
            "A queue that stays is a pod that is missing.",
            "short",
            Query(total(of("sluice_admission_queue_depth")), "requests"),
            span=THIRD,
        ),
        graph(
            "How long they wait",
            "Of those that were admitted.",
            "s",
            *(
                Query(quantile(share, "sluice_admission_wait_seconds"), f"p{share * 100:g}")
                for share in (0.5, 0.95, 0.99)
            ),
            span=THIRD,
        ),
        graph(
            "Found no place, by cause",
            "Each got 503 with a time to come back.",
            "reqps",
            Query(total(rate("sluice_admission_shed_total"), "cause"), "{{cause}}"),
            span=THIRD,
            stacked=True,
        ),
    ]


def _spread() -> list[Builder[Panel]]:
    by_pod = total(of("sluice_active_streams"), "instance")
    return [
        graph("Streams, by pod", "Each pod should have its share.", "short", Query(by_pod, "{{instance}}")),
        graph(
            "Fullest pod against the mean",
            "1: even. Above 1.5, new streams do not find the empty pods.",
            "short",
            Query(f"max({by_pod}) / avg({by_pod})", "fullest / mean"),
        ),
        graph(
            "CPU for an event",
            "All that the workers take, by events delivered. An idle pod has few events to share it.",
            "s",
            Query(
                f"{total(rate('sluice_worker_cpu_seconds_total'))} / {total(rate('sluice_events_total'))}", "CPU time"
            ),
            span=THIRD,
        ),
        graph(
            "CPU",
            "Of all workers; a worker uses one core at most.",
            "short",
            Query(total(rate("sluice_worker_cpu_seconds_total"), "instance"), "{{instance}}"),
            span=THIRD,
        ),
        graph(
            "Events in a commit",
            "More streams, more events in each: why a stream costs less where there are many.",
            "short",
            Query(mean("sluice_log_commit_events"), "mean"),
            span=THIRD,
        ),
    ]
