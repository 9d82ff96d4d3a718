"""Whether a row can be believed, and whether it keeps the limits."""

from collections.abc import Sequence

from loadtests.bench.measurement import Row

# Below this, tokens were held back somewhere: the load was not the one that the row names.
ACHIEVED_PERCENT_MIN = 98.0
# Above this, origin and load wait for each other, and their delays would be charged to the gateway.
GENERATOR_CORE_BUSY_PERCENT_MAX = 95.0
# Above this, something else ran on the gateway's core: it waited, and found its caches cold.
NEIGHBOURS_PERCENT_MAX = 10.0

# What a regression run (--assert) allows a gateway at LIMITED_STREAMS streams. A token's cost is told in that of NGINX
# alone in the same run: of one version 51 to 119 microseconds were seen on one machine within two hours, and ratios of
# 3.4 (busy) to 4.3 (idle). With keys, limits and traces it was 5.0 on an idle one: that row does not keep this limit.
LIMITED_STREAMS = 200
NGINX_COSTS_MAX = 4.5
ADDED_TTFT_P50_MS_MAX = 4.0
# What figures and log lines may add to a token, by the rows with and without them of one run.
SEEN_US_MAX = 4.0


def added_ttft_ms(row: Row, rows: Sequence[Row]) -> float | None:
    """What a gateway adds to the origin's own median TTFT at as many streams; None without that row."""
    for other in rows:
        if other.system == "origin" and other.streams == row.streams and row.system != "origin":
            return row.figures.ttft_ms.p50 - other.figures.ttft_ms.p50
    return None


def faults(row: Row) -> list[str]:
    """Why the row is not valid; nothing when it is."""
    found = [f"{count} × {kind}" for kind, count in row.figures.errors().items()]
    if row.achieved_percent < ACHIEVED_PERCENT_MIN:
        found.append(f"{row.achieved_percent:.1f} % of the tokens offered arrived, {ACHIEVED_PERCENT_MIN:g} % are due")
    if row.generator_core_busy_percent > GENERATOR_CORE_BUSY_PERCENT_MAX:
        found.append(f"the core of origin and load was {row.generator_core_busy_percent:.0f} % busy")
    if row.neighbours_percent is not None and row.neighbours_percent > NEIGHBOURS_PERCENT_MAX:
        found.append(f"others took {row.neighbours_percent:.0f} % of the gateway's core")
    return found


def nginx_costs(row: Row, rows: Sequence[Row]) -> float | None:
    """A gateway's CPU time per token in that of NGINX alone at as many streams; None without that row."""
    for other in rows:
        if other.system == "yardstick" and other.streams == row.streams and other.nginx_cpu_us_per_token:
            own = row.gunicorn_cpu_us_per_token
            return None if own is None else own / other.nginx_cpu_us_per_token
    return None


def seen_us(row: Row, rows: Sequence[Row]) -> float | None:
    """What figures and lines add to a token of Sluice's at as many streams; None for others, or without that row."""
    for other in rows:
        if (row.system, other.system, other.streams) == ("sluice", "unseen", row.streams):
            own, without = row.gunicorn_cpu_us_per_token, other.gunicorn_cpu_us_per_token
            return None if own is None or without is None else own - without
    return None


def broken_limits(rows: Sequence[Row]) -> list[str]:
    """Each limit that a gateway does not keep; that there was nothing to judge is one, too."""
    judged = [row for row in rows if row.gunicorn_cpu_us_per_token is not None and row.streams == LIMITED_STREAMS]
    if not judged:
        return [f"no gateway was measured at {LIMITED_STREAMS} streams"]
    found = []
    for row in judged:
        costs, added_ms = nginx_costs(row, rows), added_ttft_ms(row, rows)
        if costs is None or costs > NGINX_COSTS_MAX:
            found.append(f"{row.name}: {_shown(costs)} times NGINX alone for a token, at most {NGINX_COSTS_MAX:g}")
        if added_ms is None or added_ms > ADDED_TTFT_P50_MS_MAX:
            found.append(f"{row.name}: {_shown(added_ms)} ms added to TTFT p50, at most {ADDED_TTFT_P50_MS_MAX:g}")
        seen = seen_us(row, rows)
        if row.system == "sluice" and (seen is None or seen > SEEN_US_MAX):
            found.append(f"{row.name}: {_shown(seen)} µs of a token for figures and lines, at most {SEEN_US_MAX:g}")
    return found


def _shown(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"
