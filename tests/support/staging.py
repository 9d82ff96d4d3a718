"""The staging overlay's pods behind a Service and before a Redis, under load; and what is asked of them afterwards."""

import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from app.timeouts import ledger
from tests.support.api_keys import ApiKeys
from tests.support.deployment import Deployment, adapted
from tests.support.kubelet import Pod
from tests.support.log_lines import wrong_lines
from tests.support.manifests import Manifest, overlay
from tests.support.redis import RedisServer
from tests.support.rolling_traffic import Traffic
from tests.support.service import Service

# By which waits are divided where a test has no minutes.
FACTOR = 5.0
PORT = 8080


@dataclass(frozen=True)
class Load:
    """Of `Traffic`."""

    streams: int
    posts_per_second: float
    stream_seconds: float


@asynccontextmanager
async def deployed(
    manifests: Sequence[Manifest], folder: Path, *, pods: int, factor: float
) -> AsyncIterator[tuple[Deployment, Service, dict[str, str]]]:
    """That many pods, and the headers of a caller; in the end no container would have been started again.

    Args:
        manifests: as `adapted` made them by the same factor.
        folder: the test's own.
    """
    keys = ApiKeys(folder, caller="enterprise")
    secrets = {"sluice-credentials": {"api-keys.yaml": keys.path.read_text(), "token.keys": "0123456789abcdef" * 4}}
    # As late as the ledger allows; divided, it leaves room for a machine that stands still for a moment.
    late_seconds = ledger()["endpoints_seconds"] / factor / (1 if factor == 1 else 2)
    with RedisServer() as redis:
        cluster = {"redis://sluice-redis:6379/0": redis.url}
        async with (
            Service(late_seconds, PORT) as service,
            Deployment(manifests, service, cluster, secrets, factor) as deployment,
        ):
            await deployment.add(pods)
            yield deployment, service, keys.headers("caller")
            restarted = sorted(f"{pod.address}: {name}" for pod in deployment.everybody for name in pod.restarted)
            assert not restarted, f"{restarted}\n{deployment.log[-5000:]}"


@asynccontextmanager
async def under_load(
    folder: Path, factor: float, load: Load, *, pods: int
) -> AsyncIterator[tuple[Deployment, Service, Traffic]]:
    """As many streams as asked for are open all the time."""
    built = adapted(overlay("staging"), factor)
    async with (
        deployed(built, folder, pods=pods, factor=factor) as (deployment, service, headers),
        Traffic(
            service.url,
            headers,
            streams=load.streams,
            stream_seconds=load.stream_seconds,
            posts_per_second=load.posts_per_second,
        ) as clients,
    ):
        yield deployment, service, clients


def statuses(pods: Sequence[Pod]) -> set[str]:
    """What NGINX answered clients in these pods. Start-up probes ask /health before there is a worker."""
    lines = [line for pod in pods for line in pod.log.splitlines() if '"upstream_status"' in line]
    answers = [answer for answer in map(json.loads, lines) if answer["uri"] != "/health"]
    assert answers
    return {str(answer["status"]) for answer in answers}


def refusals(pods: Sequence[Pod]) -> list[str]:
    """A few lines that say why somebody was turned away: a drain is a fault, a machine that is too busy is not."""
    lines = [line for pod in pods for line in pod.log.splitlines()]
    return [line for line in lines if re.search(r'"status": ?"?50[0-9]', line)][:10]


def wrong(pods: Sequence[Pod]) -> list[str]:
    """What these pods logged and should not have."""
    logged = [re.sub(r"^\d{4}/\d\d/\d\d .*\n", "", pod.log, flags=re.MULTILINE) for pod in pods]
    return [line for log in logged for line in wrong_lines(log)]
