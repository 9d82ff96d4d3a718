"""Pods from what kubectl builds, without a cluster: rollouts, evictions and scaling down cut nothing."""

import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from app.timeouts import ledger
from tests.support.api_keys import ApiKeys
from tests.support.deployment import Deployment, adapted
from tests.support.log_lines import wrong_lines
from tests.support.manifests import Manifest, overlay
from tests.support.redis import RedisServer
from tests.support.rolling_traffic import Traffic
from tests.support.service import Service

# By which waits are divided where a test has no minutes.
FACTOR = 5.0
PORT = 8080
# What is no loss: each client was told to come back, or its stream was complete.
ORDERLY = {"reconnect drain", "end"}


@asynccontextmanager
async def deployed(
    manifests: Sequence[Manifest], folder: Path, *, pods: int, late_seconds: float
) -> AsyncIterator[tuple[Deployment, Service, dict[str, str]]]:
    """That many pods of the staging overlay behind a Service, before a Redis."""
    keys = ApiKeys(folder, caller="enterprise")
    secrets = {"sluice-credentials": {"api-keys.yaml": keys.path.read_text(), "token.keys": "0123456789abcdef" * 4}}
    with RedisServer() as redis:
        cluster = {"redis://sluice-redis:6379/0": redis.url}
        async with (
            Service(late_seconds, PORT) as service,
            Deployment(manifests, service, cluster, secrets) as deployment,
        ):
            await deployment.add(pods)
            yield deployment, service, keys.headers("caller")


def statuses(deployment: Deployment) -> set[str]:
    """What NGINX answered clients in all pods. Start-up probes ask /health before there is a worker."""
    lines = [line for pod in deployment.everybody for line in pod.log.splitlines() if '"upstream_status"' in line]
    answers = [answer for answer in map(json.loads, lines) if answer["uri"] != "/health"]
    assert answers
    return {str(answer["status"]) for answer in answers}


def refusals(deployment: Deployment) -> list[str]:
    """A few lines that say why somebody was turned away: a drain is a fault, a machine that is too busy is not."""
    lines = [line for pod in deployment.everybody for line in pod.log.splitlines()]
    return [line for line in lines if re.search(r'"status": ?"?50[0-9]', line)][:10]


def wrong(deployment: Deployment) -> list[str]:
    """What the pods logged and should not have."""
    logged = [re.sub(r"^\d{4}/\d\d/\d\d .*\n", "", pod.log, flags=re.MULTILINE) for pod in deployment.everybody]
    return [line for log in logged for line in wrong_lines(log)]


def orderly_leaving(deployment: Deployment) -> None:
    """Nobody had to be killed."""
    assert [pod.killed for pod in deployment.everybody if pod.deleted_at] != []
    assert [name for pod in deployment.everybody for name in pod.killed] == []


async def roll(
    folder: Path, factor: float, *, streams: int, posts_per_second: float, stream_seconds: float
) -> tuple[Traffic, str]:
    """Two pods by two others, while as many streams as asked for are open all the time; with what the pods logged."""
    built = adapted(overlay("staging"), factor)
    # As late as the ledger allows; divided, it leaves room for a machine that stands still for a moment.
    late = ledger()["endpoints_seconds"] / factor / (1 if factor == 1 else 2)
    traffic = partial(Traffic, streams=streams, stream_seconds=stream_seconds, posts_per_second=posts_per_second)
    async with (
        deployed(built, folder, pods=2, late_seconds=late) as (deployment, service, headers),
        traffic(service.url, headers) as clients,
    ):
        await deployment.roll()
        await deployment.settled()
        await clients.finish()
        assert service.refused == []
        assert clients.reasons.keys() <= ORDERLY, refusals(deployment)
        # Whoever read from a pod that left was sent to another: a third of all, twice.
        assert clients.reasons["reconnect drain"] > streams / 6
        # Before the texts are asked for: a caller who wants thousands at once is told to wait.
        assert statuses(deployment) == {"200"}
        await clients.check()
        orderly_leaving(deployment)
        assert wrong(deployment) == []
        return clients, "".join(pod.log for pod in deployment.everybody)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_rollout_refuses_no_connection_and_loses_no_token(tmp_path: Path) -> None:
    await roll(tmp_path, FACTOR, streams=60, posts_per_second=10, stream_seconds=12)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_an_eviction_without_time_and_scaling_from_three_to_one_lose_no_token(tmp_path: Path) -> None:
    built = adapted(overlay("staging"), FACTOR)
    late = ledger()["endpoints_seconds"] / FACTOR / 2
    async with (
        deployed(built, tmp_path, pods=3, late_seconds=late) as (deployment, service, headers),
        Traffic(service.url, headers, streams=30, stream_seconds=10, posts_per_second=5) as clients,
    ):
        evicted, shrunk, stays = deployment.pods
        await deployment.delete(evicted, grace_seconds=1.0)
        # It was killed in the middle of its drain: what it produced was taken over elsewhere.
        assert evicted.killed == ["app", "nginx"][: len(evicted.killed)] != []
        await deployment.delete(shrunk)
        assert shrunk.killed == []
        await clients.finish()
        assert deployment.pods == [stays]
        assert "took a stream over" in stays.log + shrunk.log
        # Who was cut came back; nobody was answered with an error.
        assert statuses(deployment) <= {"200", "499", "502", "503"}
        await clients.check()
        assert [line for line in wrong(deployment) if "WORKER TIMEOUT" in line] == []
