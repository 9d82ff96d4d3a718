"""What pods bear for the choice of those that go: the number of their streams, written seldom, and by nobody else."""

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from deploy import deletion_cost
from deploy.deletion_cost import Refused, needs_writing, one_round
from tests.support import combinations
from tests.support.asgi import until
from tests.support.fake_cluster import FakeCluster
from tests.support.launched import HOME
from tests.support.manifests import (
    Manifest,
    combination,
    containers,
    named,
    of_kind,
    pod_of,
    sluice_pod,
    workloads,
)

SECONDS_MAX = 60.0


@asynccontextmanager
async def cluster(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeCluster]:
    async with FakeCluster(folder) as found:
        for name, value in found.environment.items():
            monkeypatch.setenv(name, value)
        yield found


@asynccontextmanager
async def running(fake: FakeCluster, folder: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """The program, as its container runs it."""
    beat = folder / "beat"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "deploy.deletion_cost", str(fake.account), str(beat)),
        cwd=HOME,
        env=os.environ | fake.environment,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        await until(beat.exists, SECONDS_MAX)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def lines(process: asyncio.subprocess.Process) -> list[dict[str, Any]]:
    """What it logged, to its end."""
    assert process.stdout is not None
    return [json.loads(line) for line in (await process.stdout.read()).splitlines()]


async def test_each_pod_bears_the_number_of_its_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with cluster(tmp_path, monkeypatch) as fake:
        await fake.add("full", 500)
        await fake.add("draining", 20, draining=30)
        await one_round(fake.account)
        assert {name: fake.cost(name) for name in fake.pods} == {"full": "500", "draining": "50"}
        # From the server's memory.
        assert [query["resourceVersion"] for query in fake.queries] == ["0"]


async def test_nothing_but_the_annotation_is_patched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with cluster(tmp_path, monkeypatch) as fake:
        await fake.add("one", 100)
        fake.pods["one"]["metadata"]["annotations"] = {"somebodys": "own"}
        before = json.loads(json.dumps(fake.pods["one"]))
        await one_round(fake.account)
        before["metadata"]["annotations"][deletion_cost.ANNOTATION] = "100"
        assert fake.pods["one"] == before


async def test_a_number_that_is_nearly_right_is_not_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with cluster(tmp_path, monkeypatch) as fake:
        await fake.add("idle", 3)
        await fake.add("busy", 200)
        await one_round(fake.account)
        await one_round(fake.account)
        assert [name for name, _ in fake.patches] == ["busy"]


@pytest.mark.parametrize(
    ("streams", "cost", "written"),
    [
        (10, 0, False),
        (11, 0, True),
        (0, 11, True),
        (0, 10, False),
        (110, 100, False),
        (111, 100, True),
        (89, 100, True),
    ],
)
def test_a_number_is_written_when_it_is_off_by_ten_and_a_tenth(streams: int, cost: int, written: bool) -> None:
    assert needs_writing(streams, cost) is written


async def test_pods_that_go_first_or_are_going_anyway_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with cluster(tmp_path, monkeypatch) as fake:
        await fake.add("starting", 100, ready=False)
        await fake.add("going", 100)
        fake.pods["going"]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        await fake.add("others", 100)
        fake.pods["others"]["metadata"]["labels"]["app.kubernetes.io/component"] = "edge"
        await one_round(fake.account)
        assert fake.patches == []


async def test_an_exporter_that_says_nothing_of_streams_is_no_pod_without_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with cluster(tmp_path, monkeypatch) as fake:
        await fake.add("mute", "# nothing yet\n")
        fake.pods["mute"]["metadata"]["annotations"] = {deletion_cost.ANNOTATION: "300"}
        await fake.add("garbled", 'sluice_active_streams{draining="false"} many\n')
        await fake.add("well", 40)
        await one_round(fake.account)
        assert [name for name, _ in fake.patches] == ["well"]


async def test_another_servers_certificate_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other").mkdir()
    async with cluster(tmp_path, monkeypatch) as fake, FakeCluster(tmp_path / "other") as other:
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(other.port))
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await one_round(fake.account)
        assert other.queries == []


async def test_a_server_that_forbids_it_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with cluster(tmp_path, monkeypatch) as fake:
        fake.refuse = 403
        with pytest.raises(Refused, match=r"GET /api/v1/namespaces/sluice/pods: 403 .*pods is forbidden"):
            await one_round(fake.account)


async def test_a_server_that_hangs_is_waited_for_in_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deletion_cost, "REQUEST_SECONDS_MAX", 0.5)
    async with cluster(tmp_path, monkeypatch) as fake:
        fake.answers.clear()
        # A round has a bound too, which must not be what ends it.
        async with asyncio.timeout(deletion_cost.ROUND_SECONDS_MAX / 3):
            with pytest.raises(TimeoutError):
                await one_round(fake.account)


async def test_the_program_goes_on_when_the_server_refuses_and_stops_when_it_is_told_to(tmp_path: Path) -> None:
    async with FakeCluster(tmp_path) as fake:
        fake.refuse = 500
        async with running(fake, tmp_path) as process:
            assert process.returncode is None
            process.send_signal(signal.SIGTERM)
            said = await asyncio.wait_for(lines(process), SECONDS_MAX)
            assert await process.wait() == 0
    assert [line["event"] for line in said] == ["pods not listed", "told to stop"]
    assert "500" in said[0]["reason"]


async def test_the_program_writes_and_says_so_and_never_says_the_token(tmp_path: Path) -> None:
    async with FakeCluster(tmp_path) as fake:
        await fake.add("full", 500)
        async with running(fake, tmp_path) as process:
            assert fake.cost("full") == "500"
            process.send_signal(signal.SIGTERM)
            said = await asyncio.wait_for(lines(process), SECONDS_MAX)
    assert [(line["event"], line.get("pod"), line.get("streams")) for line in said] == [
        ("deletion cost written", "full", 500),
        ("told to stop", None, None),
    ]
    assert (fake.account / "token").read_text().strip() not in json.dumps(said)


# The component


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, ...]:
    chosen = combinations.completed(("pod-deletion-cost", "network-policies"))
    return combination(tmp_path_factory.mktemp("built"), chosen)


def test_one_pod_alone_has_a_token_and_it_is_good_for_two_verbs(built: tuple[Manifest, ...]) -> None:
    with_token = [one["metadata"]["name"] for one in workloads(built) if pod_of(one)["automountServiceAccountToken"]]
    assert with_token == ["sluice-deletion-cost"]
    (role,) = of_kind(built, "Role", "ClusterRole")
    assert role["rules"] == [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "patch"]}]
    (binding,) = of_kind(built, "RoleBinding", "ClusterRoleBinding")
    account = pod_of(named(built, "Deployment", "sluice-deletion-cost"))["serviceAccountName"]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": account, "namespace": "sluice"}]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]


def test_it_looks_for_the_pods_that_there_are_by_the_port_that_they_have(built: tuple[Manifest, ...]) -> None:
    labels: Mapping[str, str] = named(built, "Deployment", "sluice")["spec"]["template"]["metadata"]["labels"]
    assert dict(one.split("=") for one in deletion_cost.SELECTOR.split(",")).items() <= labels.items()
    names = {port["name"] for one in containers(sluice_pod(built)) for port in one.get("ports", [])}
    assert deletion_cost.PORT_NAME in names


def test_the_policies_let_it_ask_exporters_and_nobody_ask_it(built: tuple[Manifest, ...]) -> None:
    own = named(built, "NetworkPolicy", "sluice-deletion-cost")["spec"]
    assert own["ingress"] == []
    ports = [port for one in containers(sluice_pod(built)) for port in one.get("ports", [])]
    (exporter,) = [port["containerPort"] for port in ports if port["name"] == deletion_cost.PORT_NAME]
    labels = named(built, "Deployment", "sluice-deletion-cost")["spec"]["template"]["metadata"]["labels"]
    (rule,) = [
        rule for rule in named(built, "NetworkPolicy", "sluice")["spec"]["ingress"] if _ports(rule) == {exporter}
    ]
    assert any(_takes(peer, labels) for peer in rule["from"])
    # As its own policy has to: what may be asked by one may not be forbidden to ask by the other.
    pods = named(built, "Deployment", "sluice")["spec"]["template"]["metadata"]["labels"]
    (asks,) = [rule for rule in own["egress"] if any(_takes(peer, pods) for peer in rule.get("to", []))]
    assert _ports(asks) == {exporter}
    # And the API server, which is no pod.
    assert any({443, 6443} <= _ports(rule) for rule in own["egress"] if "to" not in rule)


def _takes(peer: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    return "podSelector" in peer and peer["podSelector"]["matchLabels"].items() <= labels.items()


def _ports(rule: Mapping[str, Any]) -> set[int | str]:
    return {port["port"] for port in rule["ports"]}


def test_its_probes_look_for_the_file_that_it_touches(built: tuple[Manifest, ...]) -> None:
    (container,) = pod_of(named(built, "Deployment", "sluice-deletion-cost"))["containers"]
    module, account, beat = container["args"]
    assert module == deletion_cost.__spec__.name
    assert account == "/var/run/secrets/kubernetes.io/serviceaccount"
    for probe in ("startupProbe", "livenessProbe"):
        found = re.search(rf"find {beat} -mmin -(\d+) ", container[probe]["exec"]["command"][-1])
        assert found is not None
        # A file as old as a round, and one that took its longest, is young enough.
        assert int(found[1]) * 60 > deletion_cost.ROUND_SECONDS + deletion_cost.ROUND_SECONDS_MAX
