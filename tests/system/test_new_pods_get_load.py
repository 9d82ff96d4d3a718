"""A pod that is added gets its share of readers who were there before it: their connections have a greatest age."""

import asyncio
import copy
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from tests.support.deployment import adapted
from tests.support.journal import check_wrongs
from tests.support.kubelet import Pod
from tests.support.machine import slowness
from tests.support.manifests import Manifest, named, overlay
from tests.support.rolling_traffic import Traffic
from tests.support.scrape import scrape
from tests.support.staging import FACTOR, deployed, statuses, wrong

STREAMS = 30
# In the place of ten minutes.
AGE_SECONDS_MAX = 4
CONVERGED_SECONDS_MAX = 30.0


def aging(manifests: Sequence[Manifest]) -> list[Manifest]:
    found: Any = copy.deepcopy(list(manifests))
    named(found, "ConfigMap", "sluice-settings")["data"]["SLUICE_AGE_SECONDS_MAX"] = str(AGE_SECONDS_MAX)
    return list(found)


async def readers(pod: Pod) -> float:
    """As its exporter says."""
    said = await asyncio.to_thread(scrape, f"http://{pod.address}:9464")
    return said.value("sluice_active_readers")


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_readers_who_were_there_before_a_pod_come_to_it_and_miss_nothing(tmp_path: Path) -> None:
    built = aging(adapted(overlay("staging"), FACTOR))
    patience_seconds = CONVERGED_SECONDS_MAX * slowness()
    async with (
        deployed(built, tmp_path, pods=2, factor=FACTOR) as (deployment, service, headers),
        # Nobody new but for these: whoever reads from the third pod has been moved there.
        Traffic(service.url, headers, streams=STREAMS, stream_seconds=240, posts_per_second=0.01) as clients,
    ):
        await deployment.add(1)
        shares: list[float] = [0.0]
        until = monotonic() + patience_seconds
        while min(shares) < STREAMS / 3 / 2 and monotonic() < until:
            await asyncio.sleep(1.0)
            shares = [await readers(pod) for pod in deployment.pods]
        # By chance alone: that a pod has fewer than five of thirty is a case in eighty, and every few seconds all are
        # dealt anew.
        assert min(shares) >= STREAMS / 3 / 2, shares
        check_wrongs([f"{client.key}: {wrong}" for client in clients.clients for wrong in client.journal.wrongs])
        assert clients.reasons.keys() <= {"reconnect max_age", "end"}
        assert statuses(deployment.everybody) == {"200"}
        assert wrong(deployment.everybody) == []
