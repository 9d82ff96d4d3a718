"""What follows from the number: pods, limits, Redis."""

import json
import math
from typing import Any

import pytest

from app.capacity import FILE
from loadtests.capacity.limits import GROWTH_PER_MINUTE, READY_SECONDS, utilisation_target
from loadtests.capacity.plan import main, markdown, needs, where_it_breaks
from loadtests.capacity.redis_cost import RedisCost

DOCUMENT: dict[str, Any] = json.loads(FILE.read_text()) | {
    "status": "measured",
    "streams_per_worker": 400,
    "streams_per_pod": 800,
    "utilisation_target": 0.7,
    "admission_streams_per_worker": 400,
    "hpa_target_streams_per_pod": 560,
    "nginx_streams_max": 1000,
    "tokens_per_second": 20.0,
    "tokens_per_stream": 100,
    "cpu_us_per_token": 50.0,
    "nginx_cpu_us_per_token": 25.0,
    "kib_per_stream": 64.0,
    "nginx_kib_per_stream": 16.0,
}
COST = RedisCost(
    cpu_us_per_token=10, memory_bytes_per_token=100, memory_bytes_per_stream=1000, wire_bytes_per_token=200
)


def test_pods_carry_the_load_below_their_target_and_without_one_of_them() -> None:
    for streams in (1, 559, 560, 561, 1_121, 5_000, 123_456):
        plan = needs(streams, GROWTH_PER_MINUTE, DOCUMENT)

        assert plan.replicas >= 2
        assert streams / plan.replicas <= 560
        assert (plan.replicas - 1) * 800 >= streams


def test_the_figures_are_those_of_the_formulas() -> None:
    plan = needs(5_000, GROWTH_PER_MINUTE, DOCUMENT, COST)

    assert plan.tokens_per_second == 100_000
    assert plan.requests_per_second == 1_000
    assert plan.gateway_cores == pytest.approx(7.5)
    assert plan.gateway_gib == pytest.approx(5_000 * 80 / 1024 / 1024)
    assert plan.redis_cores == pytest.approx(1.0)
    assert plan.redis_gib == pytest.approx((5_000 + 1_000 * 3_600) * (1_000 + 100 * 100) / 2**30)
    assert plan.redis_gbit == pytest.approx(0.16)
    assert plan.redis_servers == max(math.ceil(1 / 0.6), math.ceil(plan.redis_gib / 24))


def test_faster_growth_asks_for_more_room() -> None:
    assert utilisation_target(1.0) == pytest.approx(1 / (1 + READY_SECONDS / 60))
    assert utilisation_target(0.0) == 1
    assert needs(50_000, 1.0, DOCUMENT).replicas > needs(50_000, 0.1, DOCUMENT).replicas


def test_the_shape_of_redis_changes_with_the_load() -> None:
    shapes = [needs(streams, GROWTH_PER_MINUTE, DOCUMENT).redis_shape for streams in (100, 20_000, 10_000_000)]

    assert shapes[0].startswith("one server")
    assert shapes[1].startswith("a cluster of")
    assert "cells" in shapes[2]


def test_it_says_where_one_redis_and_where_one_cluster_stops() -> None:
    one, cluster, _ = where_it_breaks(GROWTH_PER_MINUTE, DOCUMENT)
    limits = [int(text.split("about ")[1].split(" streams")[0].replace(",", "")) for text in (one, cluster)]

    for limit, servers in zip(limits, (1, 16), strict=True):
        assert needs(limit, GROWTH_PER_MINUTE, DOCUMENT).redis_servers <= servers
        assert needs(round(limit * 1.12), GROWTH_PER_MINUTE, DOCUMENT).redis_servers > servers


def test_the_plan_shows_formulas_and_values_for_three_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--streams", "5000"]) == 0
    text = capsys.readouterr().out

    assert "| replicas | ⌈streams /" in text
    assert "| streams at a time | yours | 5,000 | 50,000 | 5,000,000 |" in text
    for name in ("averageValue: ", "SLUICE_STREAMS_MAX: ", "SLUICE_EDGE_STREAMS_MAX: ", "maxReplicas: "):
        assert name in text


def test_a_provisional_number_is_said_to_be_one() -> None:
    assert "is provisional" in markdown(100, GROWTH_PER_MINUTE, DOCUMENT | {"status": "provisional"})
    assert "is provisional" not in markdown(100, GROWTH_PER_MINUTE, DOCUMENT)


def test_no_streams_are_no_plan(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--streams", "0"])
    assert "--streams is at least 1" in capsys.readouterr().err
