"""The rows of `make bench` that have the whole product in them: what is on there, and that all of it is measured."""

import contextlib
import http.client
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtests.bench import ours
from loadtests.bench.build import build
from loadtests.bench.caller import HEADER
from loadtests.bench.generator import Demand
from loadtests.bench.measurement import Bench
from loadtests.bench.processes import choose_cores
from loadtests.bench.surfaces import SURFACES
from loadtests.bench.system import Site, System
from loadtests.bench.systems import SYSTEMS
from tests.support.collector import Collector

ROUTE = SURFACES["openai"]
DEMAND = Demand(streams=4, rate=20, tokens=10, seconds=1.0)


def ask(port: int, header: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    name, _, value = header.partition(": ")
    connection.request("POST", ROUTE.path, ROUTE.body, {"Content-Type": "application/json", name: value})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer


@pytest.mark.parametrize(("name", "in_redis"), [("everything", False), ("everything-redis", True)])
def test_the_row_of_the_whole_product_has_nginx_keys_limits_traces_and_its_log(
    name: str, in_redis: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector = Collector()
    monkeypatch.setattr(ours, "Collector", lambda: collector)
    running: list[System] = []

    @contextlib.contextmanager
    def kept(site: Site, origin_port: int) -> Iterator[System]:
        with SYSTEMS[name][1](site, origin_port) as system:
            running.append(system)
            yield system

    bench = Bench(build(), tmp_path, choose_cores(), ROUTE, {name: (SYSTEMS[name][0], kept)})
    with bench.running(name, DEMAND.tokens, DEMAND.rate, name) as bed:
        row = bed.row(DEMAND)
        unknown, known = (ask(running[0].port, header) for header in ("X-Nobody: me", HEADER))

    assert row.figures.errors() == {}
    assert row.figures.tokens > 0
    costs = (row.gunicorn_cpu_us_per_token, row.nginx_cpu_us_per_token, row.redis_cpu_us_per_token)
    assert [cost is not None for cost in costs] == [True, True, in_redis]
    assert unknown.status == 401
    assert (known.status, known.headers["x-ratelimit-limit"]) == (200, str(10**9))
    assert {span.kind for span in collector.spans} >= {"server"}
