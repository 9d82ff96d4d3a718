"""One pod, or a few, in full: workers, event loops, the stream log, and the figures themselves."""

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from deploy.grafana.board import board
from deploy.grafana.panels import GREEN, RED, THIRD, YELLOW, Query, graph, number, spread
from deploy.grafana.queries import buckets, of, quantile, rate, total


def pod() -> Dashboard:
    """Choose the instance above."""
    return board(
        "pod",
        "Pod",
        "One instance in full. Choose it above; with all of them the figures are those of their sum.",
        {"Now": _now(), "Workers": _workers(), "Stream log": _log(), "Draining, and the figures themselves": _rest()},
    )


def _now() -> list[Builder[Panel]]:
    return [
        number(
            "Version",
            "What runs, by its label.",
            "short",
            Query(total(of("sluice_build_info"), "version", "python"), "{{version}} on Python {{python}}"),
            named=True,
        ),
        number(
            "Workers missing",
            "Configured, less those that give figures; fewer than none while one drains.",
            "short",
            Query(f"{total(of('sluice_workers'))} - {total(of('sluice_workers_alive'))}", "workers"),
            limits={None: GREEN, 1: RED},
        ),
        number(
            "Log answers",
            "0: a worker's stream log does not answer.",
            "short",
            Query(f"min({of('sluice_log_available')})", "log"),
            limits={None: RED, 1: GREEN},
        ),
        number(
            "Oldest heartbeat",
            "Of a worker's event loop; Gunicorn aborts one after 30 s.",
            "s",
            Query(f"max({of('sluice_worker_heartbeat_age_seconds')})", "heartbeat"),
            limits={None: GREEN, 5: YELLOW, 15: RED},
        ),
    ]


def _workers() -> list[Builder[Panel]]:
    return [
        spread(
            "Event loop lag",
            "How late timers run: all streams of the worker wait as long.",
            "s",
            Query(buckets("sluice_event_loop_lag_seconds"), "{{le}}"),
        ),
        graph(
            "CPU",
            "Of all workers; each uses one core at most.",
            "short",
            Query(total(rate("sluice_worker_cpu_seconds_total"), "instance"), "{{instance}}"),
        ),
        graph(
            "Memory, by worker",
            "Resident, shared pages included.",
            "bytes",
            Query(total(of("sluice_worker_resident_bytes"), "instance", "worker"), "{{instance}} {{worker}}"),
            span=THIRD,
        ),
        graph(
            "Open files, by worker",
            "Against what a worker may open.",
            "short",
            Query(total(of("sluice_worker_open_files"), "instance", "worker"), "{{instance}} {{worker}}"),
            Query(f"min({of('sluice_worker_max_files')})", "limit"),
            span=THIRD,
        ),
        graph(
            "Worker starts",
            "After a reload, a rollout, max_requests, or a death.",
            "ops",
            Query(total(rate("sluice_worker_starts_total"), "instance"), "{{instance}}"),
            span=THIRD,
        ),
    ]


def _log() -> list[Builder[Panel]]:
    return [
        graph(
            "Commit",
            "One append for all streams of a worker that said something.",
            "s",
            *(Query(quantile(share, "sluice_log_commit_seconds"), f"p{share * 100:g}") for share in (0.5, 0.95, 0.99)),
            span=THIRD,
            limits={None: GREEN, 1: RED},
        ),
        graph(
            "Size of the log",
            "Where the limit is 0, the log does not know it.",
            "bytes",
            Query(total(of("sluice_log_used_bytes"), "instance"), "{{instance}} used"),
            Query(total(of("sluice_log_max_bytes"), "instance"), "{{instance}} limit"),
            span=THIRD,
        ),
        graph(
            "Delivered without an id",
            "Events while the log was away: nobody can resume behind them yet.",
            "eps",
            Query(total(rate("sluice_log_unlogged_events_total"), "instance"), "{{instance}}"),
            span=THIRD,
        ),
    ]


def _rest() -> list[Builder[Panel]]:
    return [
        graph(
            "Draining",
            "Workers that drain, and their streams.",
            "short",
            Query(total(of("sluice_draining_workers")), "workers"),
            Query(total(of("sluice_active_streams", 'draining="true"')), "streams"),
            span=THIRD,
        ),
        graph(
            "Streams that outlived a drain",
            "Released for another worker at the deadline.",
            "ops",
            Query(total(rate("sluice_drain_released_streams_total"), "instance"), "{{instance}}"),
            span=THIRD,
        ),
        graph(
            "Limits counted alone",
            "Requests for which the shared store of limits did not answer.",
            "reqps",
            Query(total(rate("sluice_limiter_fallbacks_total"), "instance"), "{{instance}}"),
            span=THIRD,
        ),
        graph(
            "Log lines dropped",
            "Nobody took them.",
            "cps",
            Query(total(rate("sluice_log_lines_dropped_total"), "instance"), "{{instance}}"),
            span=THIRD,
        ),
        graph(
            "Metric files",
            "Bounded by the workers, however many have come and gone.",
            "short",
            Query(total(of("sluice_metric_files"), "instance"), "{{instance}}"),
            span=THIRD,
        ),
        graph(
            "Metric files skipped or full",
            "At each scrape: files that were damaged, workers whose figures found no room.",
            "cps",
            Query(total(rate("sluice_metric_files_skipped_total"), "instance"), "{{instance}}: damaged"),
            Query(total(rate("sluice_metric_files_full_total"), "instance"), "{{instance}}: no room"),
            span=THIRD,
        ),
    ]
