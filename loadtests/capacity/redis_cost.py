"""What the stream log costs Redis: `python -m loadtests.capacity.redis_cost` measures it on a server of its own."""

import contextlib
import os
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from loadtests.bench.build import build
from loadtests.bench.generator import Demand
from loadtests.bench.measurement import Bench
from loadtests.bench.ports import free_ports
from loadtests.bench.processes import choose_cores, started
from loadtests.bench.surfaces import SURFACES

DEMAND = Demand(streams=200, rate=20, tokens=100, seconds=8)
# Tries, a tenth of a second apart, until a new server answers.
STARTS_MAX = 100


class RedisCost(NamedTuple):
    """Of one token, or of one stream beside its tokens."""

    cpu_us_per_token: float
    memory_bytes_per_token: float
    memory_bytes_per_stream: float
    wire_bytes_per_token: float


# What it said of 200 streams at 20 tokens/s on the machine of deploy/capacity.json, with Redis 7.0.
MEASURED = RedisCost(
    cpu_us_per_token=13.8, memory_bytes_per_token=93.7, memory_bytes_per_stream=1232, wire_bytes_per_token=166.3
)


@contextlib.contextmanager
def server(core: int, folder: Path) -> Iterator["redis.Redis"]:
    """A Redis on that core, empty and without persistence."""
    (port,) = free_ports(1)
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with started(command, core, folder / "redis.log"):
        client = redis.Redis(
            port=port, retry=Retry(ConstantBackoff(0.1), STARTS_MAX), retry_on_error=[redis.ConnectionError]
        )
        client.ping()
        yield client


def measure() -> RedisCost:
    """One run; Redis shares the core of origin and generator."""
    cores = choose_cores()
    with tempfile.TemporaryDirectory(prefix="sluice-redis-") as state, server(cores.generator, Path(state)) as client:
        port = client.connection_pool.connection_kwargs["port"]
        os.environ["SLUICE_STREAM_LOG"] = f"redis://127.0.0.1:{port}/0"
        bench = Bench(build(), Path(state), cores, SURFACES["openai"])
        with bench.running("sluice", DEMAND.tokens, DEMAND.rate, "redis") as bed:
            before = client.info()
            row = bed.row(DEMAND)
            after = client.info()
        return _cost(client, before, after, row.figures.tokens)


def _cost(client: "redis.Redis", before: dict[str, Any], after: dict[str, Any], tokens: int) -> RedisCost:
    cpu = sum(after[name] - before[name] for name in ("used_cpu_sys", "used_cpu_user"))
    names = ("total_net_input_bytes", "total_net_output_bytes")
    texts = [client.memory_usage(key, samples=0) or 0 for key in client.scan_iter("sluice:*:s:*")]
    states = [client.memory_usage(key, samples=0) or 0 for key in client.scan_iter("sluice:*:h:*")]
    whole = sorted(texts)[len(texts) // 2 :]  # those that had ended, or nearly
    return RedisCost(
        cpu_us_per_token=1e6 * cpu / tokens,
        memory_bytes_per_token=statistics.median(whole) / DEMAND.tokens,
        memory_bytes_per_stream=statistics.median(states),
        wire_bytes_per_token=sum(after[name] - before[name] for name in names) / tokens,
    )


if __name__ == "__main__":
    for name, value in measure()._asdict().items():
        print(f"{name} = {value:.1f}")
