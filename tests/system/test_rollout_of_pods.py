"""Pods from what kubectl builds, without a cluster: rollouts, evictions and scaling down cut nothing."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from app.timeouts import ledger
from scripts.kubernetes_streams import generations_draining
from tests.support.asgi import until
from tests.support.deployment import Deployment, adapted
from tests.support.machine import carried, slowness
from tests.support.manifests import Manifest, container, named, overlay, settings, sluice_pod
from tests.support.rolling_traffic import Traffic
from tests.support.service import Service
from tests.support.staging import FACTOR, Load, deployed, refusals, statuses, under_load, wrong

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
# What is no loss: each client was told to come back, or its stream was complete.
ORDERLY = {"reconnect drain", "end"}
READERS = 100
LEAVE_SECONDS_MAX = 60.0


async def all_was_orderly(deployment: Deployment, service: Service, clients: Traffic, moved: float) -> None:
    """Every stream ends, whole, and nobody was cut, refused or killed.

    Args:
        moved: more than so many readers were sent to another pod.
    """
    pods = deployment.everybody
    await deployment.settled()
    await clients.finish()
    assert service.refused == []
    assert clients.reasons.keys() <= ORDERLY, refusals(pods)
    assert clients.reasons["reconnect drain"] > moved
    # Before the texts are asked for: a caller who wants thousands at once is told to wait.
    assert statuses(pods) == {"200"}
    await clients.check()
    left = [pod for pod in pods if pod.deleted_at]
    assert left != []
    assert [pod.killed for pod in left] == [[] for _ in left]
    assert wrong(pods) == []


def load(streams: int, stream_seconds: float) -> Load:
    """What a usual machine carries, or less."""
    slower = slowness()
    return Load(carried(streams, slower), 10 / slower, stream_seconds)


def wait_of(manifests: Sequence[Manifest], name: str) -> float:
    """As the app of these manifests takes it."""
    return float(settings(manifests).get(f"SLUICE_{name.upper()}", ledger()[name]))


async def roll(folder: Path, factor: float, load: Load) -> tuple[Traffic, str]:
    """Two pods by two others, under load; with what the pods logged."""
    async with under_load(folder, factor, load, pods=2) as (deployment, service, clients):
        await deployment.roll()
        # A third of all, twice.
        await all_was_orderly(deployment, service, clients, moved=load.streams / 6)
        return clients, deployment.log


async def shrink(folder: Path, factor: float, load: Load) -> tuple[Traffic, str]:
    """Three pods to one."""
    async with under_load(folder, factor, load, pods=3) as (deployment, service, clients):
        await deployment.shrink(1)
        assert len(deployment.pods) == 1
        # A third of all, then half.
        await all_was_orderly(deployment, service, clients, moved=load.streams / 3)
        return clients, deployment.log


async def evict(folder: Path, factor: float, load: Load) -> tuple[Traffic, str]:
    """One pod of two is killed in the middle of its drain: its grace is over before that begins."""
    async with under_load(folder, factor, load, pods=2) as (deployment, service, clients):
        evicted, stays = deployment.pods
        pause: float = container(evicted.spec, "app")["lifecycle"]["preStop"]["sleep"]["seconds"]
        await deployment.delete(evicted, grace_seconds=pause)
        assert "app" in evicted.killed
        await clients.finish()
        # Its streams went on in the other one, without its farewell for some.
        assert "took a stream over" in stays.log
        cut = {reason for reason in clients.reasons if reason.startswith("cut")}
        assert cut != set()
        assert clients.reasons.keys() <= ORDERLY | cut, refusals(deployment.everybody)
        # Who was cut came back; nobody was refused, or answered with an error.
        assert service.refused == []
        assert statuses(deployment.everybody) == {"200"}
        await clients.check()
        assert wrong([stays]) == []
        return clients, deployment.log


async def test_a_rollout_refuses_no_connection_and_loses_no_token(tmp_path: Path) -> None:
    await roll(tmp_path, FACTOR, load(streams=60, stream_seconds=12))


async def test_scaling_from_three_to_one_refuses_no_connection_and_loses_no_token(tmp_path: Path) -> None:
    await shrink(tmp_path, FACTOR, load(streams=60, stream_seconds=8))


async def test_an_eviction_without_time_loses_no_token(tmp_path: Path) -> None:
    await evict(tmp_path, FACTOR, load(streams=40, stream_seconds=8))


async def test_a_hundred_readers_of_a_pod_that_leaves_go_one_by_one(tmp_path: Path) -> None:
    """All at once they would be a storm on the pods that stay, one for each step of a rollout."""
    built = adapted(overlay("staging"), FACTOR)
    # What ships, undivided: a second is too short to be told from a moment, on a busy machine.
    waits = {name: wait_of(overlay("staging"), name) for name in ("drain_seconds", "drain_spread_seconds")}
    data: Any = named(built, "ConfigMap", "sluice-settings")["data"]
    data |= {f"SLUICE_{name.upper()}": str(seconds) for name, seconds in waits.items()}
    spread_seconds = waits["drain_spread_seconds"]
    async with (
        deployed(built, tmp_path, pods=1, factor=FACTOR) as (deployment, service, headers),
        Traffic(service.url, headers, streams=READERS, stream_seconds=600, posts_per_second=0.01) as clients,
    ):
        (leaves,) = deployment.pods
        await deployment.add(1)
        deployment.delete(leaves)
        await until(lambda: clients.reasons.get("reconnect drain", 0) >= READERS, LEAVE_SECONDS_MAX)
        # They are gone, and what they read is still produced there.
        assert await asyncio.to_thread(generations_draining, f"{leaves.address}:9464") == READERS
    moments = sorted(at for at, reason in clients.ends if reason == "reconnect drain")
    assert moments[-1] - moments[0] > 0.7 * spread_seconds
    # In no fifth of the time more than half; a fifth is expected.
    within = [sum(first <= at < first + spread_seconds / 5 for at in moments) for first in moments]
    assert max(within) < READERS / 2, within
    assert service.refused == []


async def test_a_container_that_a_kubelet_would_start_again_is_noticed(tmp_path: Path) -> None:
    """Or rollouts could end well with pods that no cluster would leave alone."""
    built = adapted(overlay("staging"), FACTOR)
    probe: Any = container(sluice_pod(built), "app")["livenessProbe"]
    probe |= {"httpGet": {"path": "/nowhere", "port": 8080}, "periodSeconds": 0.1, "failureThreshold": 3}

    async def use() -> None:
        async with deployed(built, tmp_path, pods=1, factor=FACTOR) as (deployment, _, _):
            (pod,) = deployment.pods
            pod.kill("exporter")
            await until(lambda: len(pod.restarted) == 2, LEAVE_SECONDS_MAX)

    with pytest.raises(AssertionError, match=r"127\.\S+: app.*127\.\S+: exporter"):
        await use()


def test_at_its_real_pace_a_pod_is_the_one_that_ships() -> None:
    shipped, adapted_to_it = overlay("staging"), adapted(overlay("staging"), 1.0)
    arguments = container(sluice_pod(adapted_to_it), "nginx-config")["args"]
    del arguments[-1]  # the machine's NGINX
    assert adapted_to_it == list(shipped)


def test_at_another_pace_all_waits_of_a_pod_are_divided_alike() -> None:
    shipped, halved = overlay("staging"), adapted(overlay("staging"), 2.0)
    waits = [
        {
            "drain": wait_of(built, "drain_seconds"),
            "spread": wait_of(built, "drain_spread_seconds"),
            "grace": sluice_pod(built)["terminationGracePeriodSeconds"],
            "pause": container(sluice_pod(built), "app")["lifecycle"]["preStop"]["sleep"]["seconds"],
            "liveness": container(sluice_pod(built), "nginx")["livenessProbe"]["periodSeconds"],
            "readiness": container(sluice_pod(built), "app")["readinessProbe"]["periodSeconds"],
        }
        for built in (shipped, halved)
    ]
    assert waits[1] == {name: wait / 2 for name, wait in waits[0].items()}
