"""`make plan STREAMS=… GROWTH=…`: what a number of concurrent streams takes, each figure with its formula.

By calculation from deploy/capacity.json and what the log costs Redis: nothing is measured here, and nobody has seen
1000 times the load. The steps at which the shape must change are what such a calculation is good for.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from app.capacity import FILE
from app.timeouts import ledger
from loadtests.capacity.limits import GROWTH_PER_MINUTE, READY_SECONDS, hpa_target, utilisation_target
from loadtests.capacity.redis_cost import MEASURED, RedisCost

FACTORS = (1, 10, 1000)
# Redis runs its commands on one core, and answers late when that is busy: by queueing, five times as late at 80 %.
REDIS_CORE_SHARE_MAX = 0.6
# A server that holds more takes minutes to give a new replica its copy.
REDIS_GIB_MAX = 24
# Of a 10 Gbit/s network card.
REDIS_GBIT_MAX = 5.0
# A cluster's streams are spread over as many buckets, each of which one server holds (app/streams/redis/topology.py).
REDIS_CLUSTER_SERVERS_MAX = 16
# Two: one may die, or be replaced.
REPLICAS_MIN = 2
# Where the autoscalers of k8s/components have the target.
HPA_TARGET = "spec.metrics[0].external.target.averageValue"
KEDA_TARGET = "spec.triggers[0].metadata.threshold"
# Against a target that is wrong, not for growth: that is what the plan is for.
REPLICAS_MAX_FACTOR = 2


class Needs(NamedTuple):
    """What so many streams take."""

    streams: int
    replicas: int
    tokens_per_second: float
    gateway_cores: float
    gateway_gib: float
    requests_per_second: float
    redis_cores: float
    redis_gib: float
    redis_gbit: float
    redis_servers: int

    @property
    def redis_shape(self) -> str:
        """What kind of Redis that is."""
        if self.redis_servers == 1:
            return "one server and a replica, with Sentinels"
        if self.redis_servers <= REDIS_CLUSTER_SERVERS_MAX:
            return f"a cluster of {self.redis_servers} masters, each with a replica"
        cells = math.ceil(self.redis_servers / REDIS_CLUSTER_SERVERS_MAX)
        return f"{cells} cells, each with its own pods and its own cluster of up to 16 masters"


def utilisation(document: dict[str, Any], growth: float) -> float:
    """That of capacity.json where the growth is the one that it assumes."""
    return float(document["utilisation_target"]) if growth == GROWTH_PER_MINUTE else utilisation_target(growth)


def needs(streams: int, growth: float, document: dict[str, Any], cost: RedisCost = MEASURED) -> Needs:
    """Every figure of the plan for this many streams."""
    pod = document["streams_per_pod"]
    replicas = max(REPLICAS_MIN, math.ceil(streams / hpa_target(pod, utilisation(document, growth))))
    if (replicas - 1) * pod < streams:
        replicas += 1
    tokens = streams * document["tokens_per_second"]
    begun = tokens / document["tokens_per_stream"]
    kept = streams + begun * ledger()["stream_ttl_seconds"]
    stream_bytes = cost.memory_bytes_per_stream + document["tokens_per_stream"] * cost.memory_bytes_per_token
    cores = tokens * cost.cpu_us_per_token / 1e6
    gib, gbit = kept * stream_bytes / 2**30, tokens * cost.wire_bytes_per_token * 8 / 1e9
    servers = max(cores / REDIS_CORE_SHARE_MAX, gib / REDIS_GIB_MAX, gbit / REDIS_GBIT_MAX)
    per_token = sum(document[name] or 0.0 for name in ("cpu_us_per_token", "nginx_cpu_us_per_token"))
    per_stream = sum(document[name] or 0.0 for name in ("kib_per_stream", "nginx_kib_per_stream"))
    return Needs(
        streams=streams,
        replicas=replicas,
        tokens_per_second=tokens,
        gateway_cores=tokens * per_token / 1e6,
        gateway_gib=streams * per_stream / 2**20,
        requests_per_second=begun,
        redis_cores=cores,
        redis_gib=gib,
        redis_gbit=gbit,
        redis_servers=max(1, math.ceil(servers)),
    )


def rows(
    plans: Sequence[Needs], growth: float, document: dict[str, Any], cost: RedisCost = MEASURED
) -> list[list[str]]:
    """The table: a quantity, its formula, and its value at each factor."""
    pod, share = document["streams_per_pod"], utilisation(document, growth)
    target, ttl = hpa_target(pod, share), ledger()["stream_ttl_seconds"]
    pace, length = document["tokens_per_second"], document["tokens_per_stream"]
    workers, admitted = document["workers_per_pod"], document["admission_streams_per_worker"]

    def row(name: str, formula: str, values: Sequence[str]) -> list[str]:
        return [name, formula, *values]

    return [
        row("streams at a time", "yours", [f"{plan.streams:,}" for plan in plans]),
        row(
            "replicas",
            f"⌈streams / {target}⌉, and one more where all but one pod ({pod} each) would not do",
            [f"{plan.replicas:,}" for plan in plans],
        ),
        row("tokens/s", f"streams × {pace:g}", [f"{plan.tokens_per_second:,.0f}" for plan in plans]),
        row("requests/s", f"tokens/s / {length}", [f"{plan.requests_per_second:,.0f}" for plan in plans]),
        row(
            "cores that work, NGINX included",
            f"tokens/s × ({document['cpu_us_per_token']} + {document['nginx_cpu_us_per_token']}) µs",
            [f"{plan.gateway_cores:,.1f}" for plan in plans],
        ),
        row(
            "memory of streams, GiB",
            f"streams × ({document['kib_per_stream']} + {document['nginx_kib_per_stream']}) KiB",
            [f"{plan.gateway_gib:,.2f}" for plan in plans],
        ),
        row(
            "upstream connections",
            f"streams; `concurrency_max` at least {admitted} in each of {workers} workers a pod",
            [f"{plan.streams:,}" for plan in plans],
        ),
        row(
            "Redis, cores",
            f"tokens/s × {cost.cpu_us_per_token:g} µs",
            [f"{plan.redis_cores:,.2f}" for plan in plans],
        ),
        row(
            "Redis, GiB",
            f"(streams + requests/s × {ttl:g} s) × ({cost.memory_bytes_per_stream:g} + {length} × "
            f"{cost.memory_bytes_per_token:g}) bytes",
            [f"{plan.redis_gib:,.1f}" for plan in plans],
        ),
        row(
            "Redis, Gbit/s",
            f"tokens/s × {cost.wire_bytes_per_token:g} bytes × 8, and as much again for each replica",
            [f"{plan.redis_gbit:,.2f}" for plan in plans],
        ),
        row(
            "Redis, servers that write",
            f"the most of cores / {REDIS_CORE_SHARE_MAX:g}, GiB / {REDIS_GIB_MAX}, Gbit/s / {REDIS_GBIT_MAX:g}",
            [f"{plan.redis_servers:,}" for plan in plans],
        ),
        row("Redis, as", "16 buckets at most in one cluster", [plan.redis_shape for plan in plans]),
    ]


def markdown(streams: int, growth: float, document: dict[str, Any]) -> str:
    """The plan."""
    plans = [needs(streams * factor, growth, document) for factor in FACTORS]
    head = ["", "formula", *(f"{factor}×" for factor in FACTORS)]
    table = [head, ["---"] * len(head), *rows(plans, growth, document)]
    share = utilisation(document, growth)
    first = plans[0]
    unsure = document["status"] != "measured"
    lines = [
        f"# A plan for {streams:,} streams",
        "",
        *(["**capacity.json is provisional: run `make capacity` on a quiet machine first.**", ""] if unsure else []),
        f"One worker carries {document['streams_per_worker']} streams that begin at random (of streams that begin only "
        f"when another ends, the boundary's 95 % interval is {document['streams_per_worker_interval'][0]:g} to "
        f"{document['streams_per_worker_interval'][1]:g}), a pod of "
        f"{document['workers_per_pod']} workers {document['streams_per_pod']}. The load may grow by {100 * growth:g} % "
        f"a minute while a pod needs {READY_SECONDS:g} s to be ready, so pods are added at 1 / (1 + {growth:g} / 60 × "
        f"{READY_SECONDS:g}) = {100 * share:.0f} % of that.",
        "",
        *("| " + " | ".join(cells) + " |" for cells in table),
        "",
        "```yaml",
        f"# HPA: {HPA_TARGET}; KEDA: {KEDA_TARGET}",
        f"averageValue: {hpa_target(document['streams_per_pod'], share)}",
        f"minReplicas: {REPLICAS_MIN}",
        f"maxReplicas: {first.replicas * REPLICAS_MAX_FACTOR}",
        "# Of each pod",
        f"SLUICE_STREAMS_MAX: {document['admission_streams_per_worker']}",
        f"SLUICE_EDGE_STREAMS_MAX: {document['nginx_streams_max']}",
        "```",
        "",
        *where_it_breaks(growth, document),
        "",
    ]
    return "\n".join(lines)


def where_it_breaks(growth: float, document: dict[str, Any]) -> list[str]:
    """The loads beyond which the shape must change, and into what."""
    one = _largest(1, growth, document)
    cluster = _largest(REDIS_CLUSTER_SERVERS_MAX, growth, document)
    return [
        f"- One Redis is enough up to about {one:,} streams; for more with a shorter `SLUICE_STREAM_TTL_SECONDS`, "
        "where it is memory that runs out.",
        f"- Beyond, a Redis cluster (`redis+cluster://…`), up to about {cluster:,} streams: streams are spread over "
        "16 buckets, and no command crosses two.",
        "- Beyond that, cells: whole installations, each with its own pods and Redis. Whoever begins a stream is sent "
        "to a cell by principal or region, and there again to resume it, since no cell reads another's log.",
    ]


def _largest(servers: int, growth: float, document: dict[str, Any]) -> int:
    """The most streams that so many Redis servers do for, to two digits."""
    low, high = 1, 10**9
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if needs(middle, growth, document).redis_servers <= servers else (low, middle)
    digits = 10 ** max(0, len(str(low)) - 2)
    return int(low // digits * digits)


def main(words: Sequence[str] | None = None) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.capacity.plan", description=__doc__)
    parser.add_argument("--streams", type=int, required=True, help="at a time, at the peak")
    parser.add_argument("--growth", type=float, default=GROWTH_PER_MINUTE, help="share by which they may grow a minute")
    options = parser.parse_args(words)
    if options.streams < 1 or options.growth < 0:
        parser.error("--streams is at least 1, --growth at least 0")
    sys.stdout.write(markdown(options.streams, options.growth, json.loads(FILE.read_text())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
