"""What containers ask for: each says why, and those that carry streams ask for what streams were measured to take."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from loadtests.capacity.redis_cost import MEASURED
from scripts.kubernetes import EDGE_PROCESSES, NGINX_MIB, values
from tests.support.launched import HOME
from tests.support.manifests import KUBERNETES, container, named, overlay, pod_of, rendered, sluice_pod

CAPACITY = json.loads((HOME / "deploy/capacity.json").read_text())
WRITTEN = [path for folder in ("base", "components") for path in sorted((KUBERNETES / folder).rglob("*.yaml"))]
SIZED = [path for path in WRITTEN if re.search(r"^ *resources:\n", path.read_text(), re.MULTILINE)]
UNITS = {"Mi": 1, "Gi": 1024}


def cores(one: Any) -> float:
    return int(one["resources"]["requests"]["cpu"].removesuffix("m")) / 1000


def memory_mib(one: Any) -> int:
    number, unit = re.fullmatch(r"(\d+)(Mi|Gi)", one["resources"]["limits"]["memory"]).groups()  # type: ignore[union-attr]
    return int(number) * UNITS[unit]


def cores_of(streams: float) -> float:
    """NGINX's, as measured."""
    return streams * float(CAPACITY["tokens_per_second"] * CAPACITY["nginx_cpu_us_per_token"]) / 1e6


@pytest.mark.parametrize("path", SIZED, ids=lambda path: str(path.relative_to(KUBERNETES)))
def test_what_a_container_asks_for_has_a_reason_beside_it(path: Path) -> None:
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines):
        # Not a kustomization's list of files.
        if line.strip() == "resources:" and line.startswith("    "):
            assert any(next_.strip().startswith("# ") for next_ in lines[number + 1 : number + 3]), (path, number)


def test_an_edge_asks_for_the_cpu_of_as_many_pods_as_it_says() -> None:
    text = (KUBERNETES / "components/edge/deployment.yaml").read_text()
    (pods,) = map(int, re.findall(r"the CPU for all of (\d+) pods", text))
    edge = container(pod_of(named(rendered("tests/combinations/scaled"), "Deployment", "sluice-edge")), "nginx")
    taken = cores_of(pods * CAPACITY["hpa_target_streams_per_pod"])
    assert taken <= cores(edge)
    # One pod more would be too many.
    assert taken + cores_of(CAPACITY["hpa_target_streams_per_pod"]) > cores(edge) * 0.99
    conf = named(rendered("tests/combinations/scaled"), "ConfigMap", "sluice-edge")["data"]["nginx.conf"]
    assert f"worker_processes {EDGE_PROCESSES};" in conf
    assert cores(edge) <= EDGE_PROCESSES


def test_nginx_has_twice_the_memory_of_the_streams_that_it_may_carry() -> None:
    in_pod = container(sluice_pod(overlay("production")), "nginx")
    edge = container(pod_of(named(rendered("tests/combinations/scaled"), "Deployment", "sluice-edge")), "nginx")
    for one, streams in ((in_pod, CAPACITY["nginx_streams_max"]), (edge, int(values()["edge_streams"]))):
        assert memory_mib(one) >= 2 * (streams * CAPACITY["nginx_kib_per_stream"] / 1024 + NGINX_MIB)


@pytest.mark.parametrize(("name", "where"), [("redis", "staging"), ("redis-sentinel", "production")])
def test_redis_writes_so_many_tokens_with_what_it_asks_for(name: str, where: str) -> None:
    text = (KUBERNETES / f"components/{name}/statefulset.yaml").read_text()
    (tokens, cost) = re.findall(r"([\d,]+) tokens a second, at ([\d.]+) µs each", text)[0]
    assert float(cost) == MEASURED.cpu_us_per_token
    redis = container(pod_of(named(overlay(where), "StatefulSet", "sluice-redis")), "redis")
    assert int(tokens.replace(",", "")) == pytest.approx(cores(redis) * 1e6 / MEASURED.cpu_us_per_token, rel=0.02)
