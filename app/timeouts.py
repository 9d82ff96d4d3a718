"""The ledger of waits: reads `deploy/timeouts.yaml`, and knows which wait must be shorter than which.

Each class of outage at a deployment is one of these inequalities broken between two files.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

import yaml

LEDGER = Path(__file__).resolve().parent.parent / "deploy" / "timeouts.yaml"

Waits = Mapping[str, float]
# What it is in words, and how it is reckoned.
Term = tuple[str, Callable[[Waits], float]]


class TimeoutsError(ValueError):
    """An inequality does not hold; the message is one line that names both sides."""


@cache
def ledger() -> dict[str, float]:
    """Seconds by name."""
    entries = yaml.safe_load(LEDGER.read_text())
    return {name: float(entry["seconds"]) for name, entry in entries.items()}


def _sum(*names: str) -> Term:
    return " + ".join(names), lambda waits: sum(waits[name] for name in names)


def _times(factor: float, name: str) -> Term:
    return f"{factor:g} x {name}", lambda waits: factor * waits[name]


# (shorter, longer, what happens otherwise)
INEQUALITIES = (
    (_times(3, "beat_seconds"), _sum("lease_seconds"), "one late renewal loses all streams of a worker"),
    (_times(4, "heartbeat_seconds"), _sum("nginx_read_seconds"), "NGINX cuts streams that are only silent"),
    (
        _sum("admission_seconds"),
        # The other half is for a place at an upstream.
        _times(0.5, "heartbeat_seconds"),
        "streams begin to answer 200 before it is known whether there is a place for them",
    ),
    (_sum("stream_seconds_max"), _sum("nginx_read_seconds"), "NGINX cuts JSON answers that take their time"),
    (_sum("nginx_upstream_keepalive_seconds"), _sum("keepalive_seconds"), "requests meet closing connections: 502"),
    (_sum("drain_spread_seconds"), _sum("drain_seconds"), "a worker stops before it has sent all readers away"),
    (
        _sum("drain_seconds", "successor_seconds", "farewell_seconds", "cancel_seconds"),
        _sum("kill_seconds"),
        "Gunicorn kills workers that still drain",
    ),
    (
        _sum("stream_seconds_max", "grace_seconds"),
        _sum("stream_ttl_seconds"),
        "the log forgets streams that readers still follow",
    ),
    (_sum("send_seconds"), _sum("nginx_send_seconds"), "NGINX cuts slow readers before the app can tell them"),
    (_sum("stream_seconds_max", "farewell_seconds"), _sum("nginx_shutdown_seconds"), "a reload of NGINX cuts streams"),
    (_sum("kill_seconds"), _sum("gunicorn_stop_seconds"), "whoever stops Gunicorn kills it while it still drains"),
    (_sum("stream_seconds_max", "trace_flush_seconds"), _sum("trace_decision_seconds"), "long traces are lost by half"),
    (_sum("endpoints_seconds"), _sum("nginx_quit_seconds"), "a pod refuses connections that are still sent to it"),
    (_sum("nginx_quit_seconds"), _sum("pre_stop_seconds"), "a pod's app drains while NGINX still accepts"),
    (_sum("pre_stop_seconds", "kill_seconds"), _sum("pod_grace_seconds"), "the kubelet kills pods that still drain"),
)

# What stands around us is as long as it is where we are deployed, so these do not keep anybody from starting.
AROUND = (
    (_times(2, "heartbeat_seconds"), _sum("load_balancer_idle_seconds"), "load balancers cut streams that are silent"),
    (
        _sum("load_balancer_idle_seconds"),
        _sum("nginx_client_keepalive_seconds"),
        "load balancers' requests meet connections that NGINX is closing: 502",
    ),
    (_sum("pod_grace_seconds"), _sum("node_grace_seconds"), "a node that is removed kills pods that still drain"),
)


def check(overrides: Waits, inequalities: Sequence[tuple[Term, Term, str]] = INEQUALITIES) -> None:
    """Check every inequality, with `overrides` in the place of the ledger's values.

    Raises:
        TimeoutsError: the first that does not hold.
    """
    waits = ledger() | dict(overrides)
    for (shorter, left), (longer, right), consequence in inequalities:
        if not left(waits) < right(waits):
            raise TimeoutsError(
                f"{shorter} ({left(waits):g} s) must be less than {longer} ({right(waits):g} s): else {consequence}"
            )
