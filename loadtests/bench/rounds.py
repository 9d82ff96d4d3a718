"""Which of several rounds stands for a row: on a shared machine, one alone is what the neighbours left of it."""

from collections.abc import Sequence

import msgspec

from loadtests.bench.measurement import Row
from loadtests.bench.verdict import faults


def middle(same: Sequence[Row]) -> Row:
    """Of one row's rounds, the one whose tokens cost the median of those that can be believed, the lower of two.

    It says what a token cost in each of these. Where at most half can be believed, it is one that cannot.
    """
    believed = sorted((row for row in same if not faults(row)), key=_cost)
    if len(believed) <= len(same) / 2:
        return next(row for row in same if faults(row))
    row = believed[(len(believed) - 1) // 2]
    costs = [each.gunicorn_cpu_us_per_token for each in believed if each.gunicorn_cpu_us_per_token is not None]
    return msgspec.structs.replace(row, gunicorn_cpu_us_of_rounds=costs)


def _cost(row: Row) -> float:
    """CPU µs/token of the gateway, or else of NGINX alone; for the origin, of which it is not known, TTFT in ms."""
    return row.gunicorn_cpu_us_per_token or row.nginx_cpu_us_per_token or row.figures.ttft_ms.p50
