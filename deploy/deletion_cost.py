"""Tells Kubernetes which pods to delete first when there are to be fewer: those with the fewest streams.

`python -m deploy.deletion_cost ACCOUNT BEAT`, in a pod of its own: ACCOUNT is the folder where the kubelet puts its
service account, which may list and patch pods; BEAT is a file that is touched after every round, for its probe. Each
round asks the exporter of every pod that serves for its streams and writes their number as the pod's annotation. What
fails is logged and tried again a round later: an old number makes a worse choice of pod, and harms nothing else.
"""

import asyncio
import json
import os
import signal
import ssl
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import structlog
from prometheus_client.parser import text_string_to_metric_families

from app.observability.logging import configure_logging
from app.observability.metrics import ACTIVE_STREAMS

ANNOTATION = "controller.kubernetes.io/pod-deletion-cost"
SELECTOR = "app.kubernetes.io/name=sluice,app.kubernetes.io/component=api"
PORT_NAME = "metrics"
# Autoscalers take one pod in two minutes: each choice is made by numbers of its own.
ROUND_SECONDS = 60.0
ROUND_SECONDS_MAX = 30.0
REQUEST_SECONDS_MAX = 5.0
# Thirty pods are described in half a megabyte; an exporter says a few hundred kilobytes.
BODY_BYTES_MAX = 16 * 1024 * 1024
REASON_CHARACTERS_MAX = 300
# Each write is one for every watcher of pods in the cluster: a number that is nearly right is left as it is.
STREAMS_STEP = 10
STEP_SHARE = 0.1

_log = structlog.get_logger("sluice")


class Refused(Exception):
    """Somebody answered, and not with what was asked for."""


@dataclass(frozen=True)
class Pod:
    """One that serves."""

    name: str
    metrics_url: str
    cost: int


def needs_writing(streams: int, cost: int) -> bool:
    """Whether the number that a pod bears is too wrong to choose by. One without bears none, which counts as 0."""
    return abs(streams - cost) > max(STREAMS_STEP, cost * STEP_SHARE)


def serving(pods: Mapping[str, Any]) -> Iterator[Pod]:
    """Those of a list that could be deleted with streams in them; the others go first or are going anyway."""
    for pod in pods["items"]:
        metadata, spec, status = pod["metadata"], pod["spec"], pod.get("status", {})
        ready = any(one["type"] == "Ready" and one["status"] == "True" for one in status.get("conditions", []))
        if not ready or "deletionTimestamp" in metadata:
            continue
        containers = [*spec.get("initContainers", []), *spec["containers"]]
        ports = {port.get("name"): port["containerPort"] for one in containers for port in one.get("ports", [])}
        address = f"[{status['podIP']}]" if ":" in status["podIP"] else status["podIP"]
        cost = int(metadata.get("annotations", {}).get(ANNOTATION, 0))
        yield Pod(metadata["name"], f"http://{address}:{ports[PORT_NAME]}/metrics", cost)


def active_streams(exposition: str) -> int:
    """The streams of all of a pod's workers.

    Raises:
        Refused: it does not say; that is not the same as none.
    """
    for family in text_string_to_metric_families(exposition):
        if family.name == ACTIVE_STREAMS.name:
            return int(sum(sample.value for sample in family.samples))
    raise Refused(f"{ACTIVE_STREAMS.name} is missing")


class Cluster:
    """The API server, as a pod reaches it. Token and certificates are read anew each time: the kubelet renews them."""

    def __init__(self, account: Path, session: aiohttp.ClientSession) -> None:
        host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
        namespace = (account / "namespace").read_text().strip()
        self._pods = f"https://{f'[{host}]' if ':' in host else host}:{port}/api/v1/namespaces/{namespace}/pods"
        self._token = (account / "token").read_text().strip()
        self._trusted = ssl.create_default_context(cafile=str(account / "ca.crt"))
        self._session = session

    async def pods(self) -> list[Pod]:
        # As of any moment: from the server's memory, where the newest would be a read of its whole store.
        query = {"labelSelector": SELECTOR, "resourceVersion": "0"}
        return list(serving(json.loads(await self._ask("GET", self._pods, params=query))))

    async def write(self, pod: Pod, streams: int) -> None:
        patch = json.dumps({"metadata": {"annotations": {ANNOTATION: str(streams)}}})
        headers = {"Content-Type": "application/merge-patch+json"}
        await self._ask("PATCH", f"{self._pods}/{pod.name}", data=patch, headers=headers)

    async def _ask(self, method: str, url: str, headers: Mapping[str, str] | None = None, **how: Any) -> bytes:
        bearer = {"Authorization": f"Bearer {self._token}", **(headers or {})}
        return await ask(self._session, method, url, headers=bearer, ssl=self._trusted, **how)


async def ask(session: aiohttp.ClientSession, method: str, url: str, **how: Any) -> bytes:
    """The body of a 200.

    Raises:
        Refused: anything else was answered, or more than there can be.
    """
    # A redirect would carry the token elsewhere.
    async with session.request(method, url, allow_redirects=False, **how) as answer:
        body = bytearray()
        async for chunk in answer.content.iter_chunked(64 * 1024):
            body += chunk
            if len(body) > BODY_BYTES_MAX:
                raise Refused(f"{method} {answer.url.path}: more than {BODY_BYTES_MAX} bytes")
        if answer.status != 200:
            said = bytes(body).decode(errors="replace")[:REASON_CHARACTERS_MAX]
            raise Refused(f"{method} {answer.url.path}: {answer.status} {said}")
        return bytes(body)


async def update(cluster: Cluster, session: aiohttp.ClientSession, pod: Pod) -> None:
    """One pod's number."""
    try:
        streams = active_streams((await ask(session, "GET", pod.metrics_url)).decode())
        if needs_writing(streams, pod.cost):
            await cluster.write(pod, streams)
            _log.info("deletion cost written", pod=pod.name, streams=streams)
    except (Refused, aiohttp.ClientError, TimeoutError, ValueError) as error:
        _log.warning("deletion cost not written", pod=pod.name, reason=repr(error))


async def one_round(account: Path) -> None:
    timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS_MAX)
    async with asyncio.timeout(ROUND_SECONDS_MAX), aiohttp.ClientSession(timeout=timeout) as session:
        cluster = Cluster(account, session)
        await asyncio.gather(*(update(cluster, session, pod) for pod in await cluster.pods()))


async def rounds(account: Path, beat: Path) -> None:
    # Process 1 of a container gets no signal that it has no handler for: it would be killed after the whole grace.
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    while True:
        try:
            await one_round(account)
        except (Refused, aiohttp.ClientError, OSError, TimeoutError, LookupError, ValueError) as error:
            _log.warning("pods not listed", reason=repr(error))
        await asyncio.to_thread(beat.touch)
        await asyncio.sleep(ROUND_SECONDS)


def main(account: str, beat: str) -> None:
    configure_logging("info")
    try:
        asyncio.run(rounds(Path(account), Path(beat)))
    except asyncio.CancelledError:
        _log.info("told to stop")


if __name__ == "__main__":
    main(*sys.argv[1:])
