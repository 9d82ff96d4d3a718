"""Every overlay and every legal combination of components builds, and is what Kubernetes and its extensions take."""

import copy
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from app.version import VERSION
from scripts.kubernetes_golden import FOLDERS
from scripts.kustomize import BuildError, build
from tests.support import combinations, container_policies, kubernetes_schemas, reference_policies
from tests.support.launched import HOME
from tests.support.manifests import (
    CLUSTER_SCOPED,
    KUBERNETES,
    OVERLAYS,
    Manifest,
    combination,
    containers,
    named,
    of_kind,
    overlay,
    pod_of,
    rendered,
    workloads,
)
from tests.support.pod_security import violations

# The last five; what we need of 1.33 (native sidecars) is stable there.
VERSIONS = ("1.33", "1.34", "1.35", "1.36", "1.37")
# Of a combination without an overlay: it has no images of its own.
NOT_OF_COMBINATIONS = {"latest-tag"}


def check(manifests: tuple[Manifest, ...], versions: tuple[str, ...] = VERSIONS) -> None:
    """Unknown fields are errors, for our own kinds as for those of extensions."""
    for manifest in manifests:
        for version in versions:
            kubernetes_schemas.check(manifest, version)


def everything_wrong(manifests: tuple[Manifest, ...]) -> list[str]:
    """By every policy."""
    wrong = [
        f"{name}: {finding}"
        for name in [*container_policies.OF_CONTAINERS, *container_policies.OF_PODS]
        for finding in container_policies.findings(name, manifests)
    ]
    for name, policy in reference_policies.REFERENCES.items():
        wrong += [f"{name}: {finding}" for finding in policy(manifests)]
    for workload in workloads(manifests):
        wrong += [f"restricted: {violation}" for violation in violations(pod_of(workload))]
    return wrong


def check_combination(manifests: tuple[Manifest, ...], versions: tuple[str, ...] = VERSIONS) -> None:
    """By schemas and policies."""
    check(manifests, versions)
    wrong = everything_wrong(manifests)
    assert [finding for finding in wrong if finding.split(":")[0] not in NOT_OF_COMBINATIONS] == []


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_is_what_five_versions_of_kubernetes_take(name: str) -> None:
    check(overlay(name))


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_builds_to_the_same_bytes_again(name: str) -> None:
    folder = KUBERNETES / "overlays" / name
    assert build(folder) == build(folder)


@pytest.mark.parametrize("name", OVERLAYS)
def test_nothing_is_wrong_with_an_overlay_by_any_policy(name: str) -> None:
    assert everything_wrong(overlay(name)) == []


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_has_a_namespace_that_takes_only_restricted_pods(name: str) -> None:
    (namespace,) = of_kind(overlay(name), "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    others = {one["metadata"]["namespace"] for one in overlay(name) if one["kind"] not in CLUSTER_SCOPED}
    assert others == {namespace["metadata"]["name"]}


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_images_of_an_overlay_are_those_of_this_version(name: str) -> None:
    ours = [one["image"] for workload in workloads(overlay(name)) for one in containers(pod_of(workload))]
    tags = {
        image.partition("@")[0].rpartition(":")[2] for image in ours if image.rpartition("/")[2].startswith("sluice")
    }
    assert tags == {VERSION}


@pytest.mark.parametrize("chosen", list(combinations.alone()), ids="+".join)
def test_nothing_is_wrong_with_a_component_and_what_it_needs_alone(chosen: tuple[str, ...], tmp_path: Path) -> None:
    """What it takes for granted would be there in all that is fuller."""
    check_combination(combination(tmp_path, chosen))


@pytest.mark.parametrize("chosen", list(combinations.fullest()), ids=lambda chosen: "+".join(chosen[:6]))
def test_everything_that_goes_together_builds_together(chosen: tuple[str, ...], tmp_path: Path) -> None:
    check_combination(combination(tmp_path, chosen))


def test_what_a_component_takes_for_granted_is_found_where_it_is_not(tmp_path: Path) -> None:
    """A policy that lets the edge in, by another name than the edge's."""
    built = copy.deepcopy(list(combination(tmp_path, ("network-policies",))))
    policy: Any = named(built, "NetworkPolicy", "sluice")
    policy["spec"]["ingress"][0]["from"].append({"podSelector": {"matchLabels": {"app": "edge"}}})
    with pytest.raises(AssertionError, match="dangling-networkpolicypeer"):
        check_combination(tuple(built))


@pytest.mark.parametrize("scaler", ["autoscaling-hpa", "autoscaling-keda"])
@pytest.mark.parametrize("log", ["redis", "redis-sentinel"])
def test_an_autoscaler_owns_the_number_of_pods_in_whatever_order(log: str, scaler: str, tmp_path: Path) -> None:
    for number, order in enumerate([(log, scaler), (scaler, log)]):
        built = combination(tmp_path / str(number), order)
        assert "replicas" not in named(built, "Deployment", "sluice")["spec"]


def sorted_deeply(value: object) -> object:
    """Lists without their order, as components add to them in turn."""
    if isinstance(value, dict):
        return {key: sorted_deeply(each) for key, each in value.items()}
    return sorted(map(sorted_deeply, value), key=str) if isinstance(value, list) else value


def test_in_the_opposite_order_components_build_the_same(tmp_path: Path) -> None:
    chosen = next(combinations.fullest())
    # But for this one: it says that what it needs is missing.
    backwards = [name for name in reversed(chosen) if name != "tls"]
    backwards.insert(backwards.index("gateway-api") + 1, "tls")
    built = [combination(tmp_path / "forwards", chosen), combination(tmp_path / "backwards", backwards)]
    assert sorted_deeply(list(built[0])) == sorted_deeply(list(built[1]))


@pytest.mark.parametrize("chosen", [("tls", "gateway-api"), ("tls",)], ids="+".join)
def test_tls_without_a_route_before_it_is_refused(chosen: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"no resource matches.*HTTPRoute"):
        combination(tmp_path, chosen)


def test_every_way_in_takes_bodies_as_long_as_sluice_does(tmp_path: Path) -> None:
    """The gateways' own NGINX would refuse what is above 1 MiB."""
    snippet = (HOME / "nginx/snippets/requests.conf").read_text()
    (taken,) = re.findall(r"^client_max_body_size (\w+);", snippet, re.MULTILINE)
    chosen = ("gateway-api", "gateway-api/nginx-gateway-fabric", "ingress-legacy")
    built = combination(tmp_path, chosen)
    assert named(built, "ClientSettingsPolicy", "sluice")["spec"]["body"]["maxSize"] == taken
    annotations = named(built, "Ingress", "sluice")["metadata"]["annotations"]
    assert annotations["nginx.ingress.kubernetes.io/proxy-body-size"] == taken


def test_every_component_says_what_it_is_in_a_few_lines() -> None:
    for name in combinations.components():
        text = (KUBERNETES / "components" / name / "README.md").read_text()
        assert text.startswith(f"# {name}\n"), name
        assert 3 <= len(text.splitlines()) <= 20, name


@pytest.mark.parametrize("kind", sorted(kubernetes_schemas.OF_EXTENSIONS))
def test_an_extension_s_manifest_is_looked_at_as_a_whole(kind: str) -> None:
    found = [one for folder in FOLDERS for one in of_kind(rendered(folder), kind)]
    assert found, "in no overlay and in none of the builds that are kept"
    check(tuple(found))
    metadata = found[0]["metadata"]
    damages: list[dict[str, Any]] = [
        {"apiVersion": f"{found[0]['apiVersion']}beta1"},
        {"status": {}},
        {"metadata": {**metadata, "label": {}}},
        {"metadata": {**metadata, "labels": {"app": 1}}},
    ]
    for damage in damages:
        with pytest.raises(jsonschema.ValidationError):
            check(({**found[0], **damage},))


def test_the_behaviour_that_keda_hands_on_is_an_autoscaler_s() -> None:
    (scaler,) = of_kind(rendered("tests/combinations/scaled"), "ScaledObject")
    damages: list[dict[str, Any]] = [
        {"scaleSideways": {}},
        {"scaleDown": {"policies": [{"type": "Pods", "value": "1"}]}},
    ]
    for damage in damages:
        damaged = copy.deepcopy(dict(scaler))
        damaged["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"].update(damage)
        with pytest.raises(jsonschema.ValidationError):
            check((damaged,))


def test_a_field_that_nobody_knows_is_refused() -> None:
    (route,) = of_kind(overlay("production"), "HTTPRoute")
    with pytest.raises(jsonschema.ValidationError, match="timeout"):
        check(({**route, "spec": {**route["spec"], "timeout": "1s"}},))
    (service, *_) = of_kind(overlay("dev"), "Service")
    with pytest.raises(jsonschema.ValidationError, match="port"):
        check(({**service, "spec": {**service["spec"], "port": 80}},))
