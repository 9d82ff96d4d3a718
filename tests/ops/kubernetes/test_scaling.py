"""What autoscalers ask is declared and means what it should; what they aim at is what was measured."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.observability.metrics import ALL
from app.timeouts import ledger
from tests.support import combinations
from tests.support.launched import HOME
from tests.support.manifests import (
    KUBERNETES,
    Manifest,
    combination,
    container,
    of_kind,
    overlay,
    sluice_pod,
    workloads,
)
from tests.support.promql import grouped_by, selectors

CAPACITY = json.loads((HOME / "deploy/capacity.json").read_text())
ADAPTER = yaml.safe_load((KUBERNETES / "components/autoscaling-hpa/prometheus-adapter.yaml").read_text())
EXTERNAL = {rule["name"]["as"]: rule for rule in ADAPTER["rules"]["external"]}
# What the operator of Prometheus gives every series of a PodMonitor.
OF_TARGETS = {"namespace", "pod", "container", "endpoint", "instance", "job"}
PROMTOOL_SECONDS_MAX = 60
KEDA = combinations.completed(("autoscaling-keda", "monitoring"))


@pytest.fixture(scope="module")
def keda(tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, ...]:
    return combination(tmp_path_factory.mktemp("keda"), KEDA)


def asked_of_adapter(namespace: str) -> dict[str, str]:
    """Each query, as the adapter fills it in."""
    return {
        name: rule["metricsQuery"].replace("<<.LabelMatchers>>", f'namespace="{namespace}"')
        for name, rule in EXTERNAL.items()
    }


def triggers(manifests: tuple[Manifest, ...]) -> list[dict[str, Any]]:
    (scaler,) = of_kind(manifests, "ScaledObject")
    found: list[dict[str, Any]] = scaler["spec"]["triggers"]
    return found


def undeclared(expression: str) -> Iterator[str]:
    """Names and labels of an expression that no process of ours says."""
    for name, matchers in selectors(expression):
        is_bucket = name.endswith("_bucket")
        metric = ALL.get(name.removesuffix("_bucket"))
        if metric is None or is_bucket != (metric.kind == "histogram"):
            yield name
            continue
        known = {*metric.labels, *OF_TARGETS, *(["le"] if is_bucket else [])}
        asked = {label for label, _ in matchers} | grouped_by(expression)
        yield from (f"{name}: {label}" for label in sorted(asked - known))


def test_every_series_and_label_that_an_autoscaler_asks_for_is_declared(keda: tuple[Manifest, ...]) -> None:
    asked = [*asked_of_adapter("sluice").values(), *(rule["seriesQuery"] for rule in EXTERNAL.values())]
    asked += [trigger["metadata"]["query"] for trigger in triggers(keda)]
    assert len(asked) == 6
    for expression in asked:
        assert selectors(expression) != [], expression
        assert list(undeclared(expression)) == [], expression


@pytest.mark.parametrize(
    ("expression", "wrong"),
    [
        ("sluice_active_stream", "sluice_active_stream"),
        ("sluice_active_streams_bucket", "sluice_active_streams_bucket"),
        ("sluice_admission_wait_seconds", "sluice_admission_wait_seconds"),
        ('sluice_active_streams{drains="false"}', "sluice_active_streams: drains"),
        ("sum by (worker) (sluice_active_streams)", "sluice_active_streams: worker"),
    ],
)
def test_a_series_or_label_that_nobody_says_is_found(expression: str, wrong: str) -> None:
    assert list(undeclared(expression)) == [wrong]


def test_both_autoscalers_ask_the_same(keda: tuple[Manifest, ...]) -> None:
    asked = [trigger["metadata"]["query"] for trigger in triggers(keda)]
    assert asked == list(asked_of_adapter("sluice").values())


@pytest.mark.parametrize("namespace", ["sluice", "sluice-staging"])
def test_keda_asks_for_the_streams_of_its_own_namespace(namespace: str, tmp_path: Path) -> None:
    asked = [trigger["metadata"]["query"] for trigger in triggers(combination(tmp_path, KEDA, namespace))]
    assert asked == list(asked_of_adapter(namespace).values())


def test_keda_that_was_told_no_namespace_asks_for_nobody_elses_streams_and_learns_so() -> None:
    scaler = yaml.safe_load((KUBERNETES / "components/autoscaling-keda/scaledobject.yaml").read_text())
    for trigger in triggers((scaler,)):
        # No namespace has capital letters.
        assert 'namespace="NOT-FILLED-IN"' in trigger["metadata"]["query"]
        assert trigger["metadata"]["ignoreNullValues"] == "false"


def test_pods_are_taken_away_one_by_one_and_not_for_a_pause_between_two_waves(keda: tuple[Manifest, ...]) -> None:
    """Each that goes sends its readers to the others."""
    folder = KUBERNETES / "components/autoscaling-hpa"
    hpa = yaml.safe_load((folder / "horizontalpodautoscaler.yaml").read_text())
    (scaler,) = of_kind(keda, "ScaledObject")
    waits = ledger()
    for behaviour in (
        hpa["spec"]["behavior"],
        scaler["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"],
    ):
        down = behaviour["scaleDown"]
        assert down["selectPolicy"] == "Min"
        assert [policy["value"] for policy in down["policies"] if policy["type"] == "Pods"] == [1]
        assert min(policy["periodSeconds"] for policy in down["policies"]) >= 2 * waits["drain_seconds"]
        assert down["stabilizationWindowSeconds"] >= waits["stream_seconds_max"]


def test_the_autoscaler_asks_for_metrics_that_the_adapter_makes() -> None:
    (scaler,) = of_kind(overlay("production"), "HorizontalPodAutoscaler")
    assert [metric["external"]["metric"]["name"] for metric in scaler["spec"]["metrics"]] == list(EXTERNAL)


def test_targets_are_what_was_measured(keda: tuple[Manifest, ...]) -> None:
    (scaler,) = of_kind(overlay("production"), "HorizontalPodAutoscaler")
    streams, wait = [metric["external"]["target"] for metric in scaler["spec"]["metrics"]]
    assert streams == {"type": "AverageValue", "averageValue": str(CAPACITY["hpa_target_streams_per_pod"])}
    assert wait == {"type": "Value", "value": "1"}
    of_keda, wait_of_keda = triggers(keda)
    assert of_keda["metadata"]["threshold"] == streams["averageValue"]
    # An average over pods, unless another type is named.
    assert of_keda.get("metricType", "AverageValue") == streams["type"]
    assert (wait_of_keda["metricType"], wait_of_keda["metadata"]["threshold"]) == (wait["type"], wait["value"])


def test_a_pod_asks_for_the_cpu_that_so_many_streams_were_measured_to_take() -> None:
    pod = sluice_pod(overlay("production"))
    tokens_per_second = CAPACITY["streams_per_pod"] * CAPACITY["tokens_per_second"]
    for name, cost in (("app", "cpu_us_per_token"), ("nginx", "nginx_cpu_us_per_token")):
        asked = int(re.fullmatch(r"(\d+)m", container(pod, name)["resources"]["requests"]["cpu"])[1])  # type: ignore[index]
        measured = tokens_per_second * CAPACITY[cost] / 1000
        assert measured <= asked < measured + 100, name


def test_series_of_pods_get_the_job_and_the_namespace_that_everybody_asks_for() -> None:
    (monitor,) = of_kind(overlay("production"), "PodMonitor")
    label = monitor["spec"]["jobLabel"]
    watched = [
        one
        for one in workloads(overlay("production"))
        if monitor["spec"]["selector"]["matchLabels"].items() <= one["spec"]["template"]["metadata"]["labels"].items()
    ]
    assert [one["spec"]["template"]["metadata"]["labels"][label] for one in watched] == ["sluice"]
    (rules,) = of_kind(overlay("production"), "PrometheusRule")
    jobs = {
        value
        for group in rules["spec"]["groups"]
        for rule in group["rules"]
        for _, matchers in selectors(rule["expr"])
        for name, value in matchers
        if name == "job"
    }
    assert jobs == {"sluice"}
    for endpoint in monitor["spec"]["podMetricsEndpoints"]:
        assert "relabelings" not in endpoint
        assert endpoint["path"] == "/metrics"


SERIES = [
    ('sluice_active_streams{namespace="sluice",pod="a",draining="false"}', "300x20"),
    ('sluice_active_streams{namespace="sluice",pod="a",draining="true"}', "40x20"),
    ('sluice_active_streams{namespace="sluice",pod="b",draining="false"}', "500x20"),
    ('sluice_active_streams{namespace="others",pod="c",draining="false"}', "900x20"),
]
# All wait between 1 and 2 s, three requests a second, evenly: nine of ten for 1.9 s at most.
WAITED = [("1", "0x20"), ("2", "0+45x20"), ("+Inf", "0+45x20")]
NOBODY = [("1", "7x20"), ("2", "7x20"), ("+Inf", "7x20")]


def waits(buckets: list[tuple[str, str]]) -> list[tuple[str, str]]:
    name = "sluice_admission_wait_seconds_bucket"
    return [(f'{name}{{namespace="sluice",pod="a",le="{le}"}}', values) for le, values in buckets]


@pytest.mark.parametrize(
    ("metric", "series", "value"),
    [
        ("sluice_streams_serving", SERIES, 800.0),
        ("sluice_admission_wait_p90_seconds", waits(WAITED), 1.9),
        # Nobody came in the last minute, and nobody ever did.
        ("sluice_admission_wait_p90_seconds", waits(NOBODY), 0.0),
        ("sluice_admission_wait_p90_seconds", SERIES, 0.0),
    ],
)
def test_prometheus_answers_with_what_is_meant(
    metric: str, series: list[tuple[str, str]], value: float, tmp_path: Path
) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is missing")
    case = {
        "interval": "15s",
        "input_series": [{"series": name, "values": values} for name, values in series],
        "promql_expr_test": [
            {
                "expr": asked_of_adapter("sluice")[metric],
                "eval_time": "4m",
                "exp_samples": [{"labels": "{}", "value": value}],
            }
        ],
    }
    (tmp_path / "case.yaml").write_text(yaml.safe_dump({"tests": [case]}))
    done = subprocess.run(
        ["promtool", "test", "rules", "case.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PROMTOOL_SECONDS_MAX,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_without_a_series_the_number_of_streams_is_unknown_and_not_none() -> None:
    """An autoscaler that took an outage of Prometheus' targets for no streams would take the pods away."""
    expression = asked_of_adapter("sluice")["sluice_streams_serving"]
    assert "vector(" not in expression
    assert " or " not in expression
