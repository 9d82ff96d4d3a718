"""Rows of a table, as a measurement makes them."""

from typing import Any

import msgspec

from loadtests.bench.figures import Figures, Percentiles
from loadtests.bench.measurement import Row


def figures(**changes: Any) -> Figures:
    """15 s of 200 streams at 20 tokens/s each without a fault, with `changes`."""
    sound = Figures(
        window_seconds=15.0,
        cpu_seconds=1.5,
        tokens=59_900,
        opened=600,
        finished=600,
        streams_seen=800,
        streams_stalled=2,
        ttft_ms=Percentiles(600, 0.5, 1.5, 2.0),
        gap_ms=Percentiles(59_300, 50.0, 51.25, 54.0),
        delay_ms=Percentiles(59_900, 0.1, 0.4, 1.0),
        lag_ms=Percentiles(15_000, 0.1, 0.5, 2.0),
        start_lag_ms=Percentiles(600, 0.1, 0.6, 1.0),
        in_flight_mean=199.8,
        scheduled=0,
        waiting=0,
        refused=0,
        truncated=0,
        failed=0,
        stuck=0,
        malformed=0,
        misordered=0,
        http_errors={},
    )
    return msgspec.structs.replace(sound, **changes)


def origin_row(**changes: Any) -> Row:
    """What the origin alone shows."""
    row = Row(
        system="origin",
        name="origin, no gateway",
        streams=200,
        offered_tokens=60_000.0,
        figures=figures(),
        generator_core_busy_percent=30.0,
        neighbours_percent=None,
        gunicorn_cpu_us_per_token=None,
        nginx_cpu_us_per_token=None,
        redis_cpu_us_per_token=None,
        gunicorn_kib_per_stream=None,
        nginx_kib_per_stream=None,
    )
    return msgspec.structs.replace(row, **changes)


def yardstick_row(**changes: Any) -> Row:
    """What NGINX alone shows."""
    return origin_row(**{"system": "yardstick", "name": "NGINX alone", "nginx_cpu_us_per_token": 20.0} | changes)


def sluice_row(**changes: Any) -> Row:
    """What a gateway within its limits shows."""
    row = origin_row(
        system="sluice",
        name="Sluice",
        figures=figures(ttft_ms=Percentiles(600, 2.75, 6.0, 8.0)),
        neighbours_percent=2.5,
        gunicorn_cpu_us_per_token=52.25,
        gunicorn_kib_per_stream=40.5,
    )
    return msgspec.structs.replace(row, **changes)


def unseen_row(**changes: Any) -> Row:
    """The same gateway without figures and lines, as cheap as it has to be."""
    row = {"system": "unseen", "name": "Sluice, no figures or lines", "gunicorn_cpu_us_per_token": 48.25}
    return sluice_row(**row | changes)
