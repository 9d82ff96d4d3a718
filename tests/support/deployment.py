"""What the Deployment's controller does: pods come and go as its strategy says, all from what was built."""

import asyncio
import copy
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from time import monotonic
from types import TracebackType
from typing import Any, Self

from deploy.nginx_build import look_at
from deploy.preflight import find_nginx
from tests.support.kubelet import Pod
from tests.support.manifests import Manifest, container, named, sluice_pod
from tests.support.service import Service


def adapted(manifests: Sequence[Manifest], factor: float) -> list[Manifest]:
    """For this machine, and with its waits divided, for a test that has no minutes: pauses, probes, grace, drain."""
    found: list[Any] = copy.deepcopy(list(manifests))
    pod: Any = sluice_pod(found)
    # The machine's NGINX, in the place of the image's.
    number = ".".join(str(part) for part in look_at(find_nginx()).version)
    container(pod, "nginx-config")["args"].append(number)
    pod["terminationGracePeriodSeconds"] /= factor
    app: Any = container(pod, "app")
    app["lifecycle"]["preStop"]["sleep"]["seconds"] /= factor
    command = container(pod, "nginx")["lifecycle"]["preStop"]["exec"]["command"]
    command[-1] = re.sub(r"sleep (\d+)", lambda wait: f"sleep {int(wait[1]) / factor:g}", command[-1])
    app["readinessProbe"]["periodSeconds"] /= factor
    deployment: Any = named(found, "Deployment", "sluice")
    deployment["spec"]["minReadySeconds"] /= factor
    settings: Any = named(found, "ConfigMap", "sluice-settings")["data"]
    settings["SLUICE_DRAIN_SECONDS"] = f"{60 / factor:g}"
    settings["SLUICE_DRAIN_SPREAD_SECONDS"] = f"{10 / factor:g}"
    return found


def addresses() -> Iterator[str]:
    """Of the loopback network, other ones in each process that tests at the same time."""
    low = os.getpid() % 60_000
    for number in range(1, 200):
        yield f"127.{64 + low // 250 % 64}.{low % 250 + 1}.{number}"


class Deployment:
    """Use as an async context manager, behind a `Service`; leaving it kills what is left."""

    def __init__(
        self,
        manifests: Sequence[Manifest],
        service: Service,
        cluster: Mapping[str, str],
        secrets: Mapping[str, Mapping[str, str]],
    ) -> None:
        self.pods: list[Pod] = []
        self.everybody: list[Pod] = []
        self._manifests, self._service = manifests, service
        self._cluster, self._secrets = cluster, secrets
        self._addresses = addresses()
        self._min_ready_seconds = float(named(manifests, "Deployment", "sluice")["spec"]["minReadySeconds"])
        self._leaving: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._leaving:
            task.cancel()
        await asyncio.gather(*self._leaving, return_exceptions=True)
        for pod in self.everybody:
            pod.remove()

    async def add(self, count: int) -> None:
        """So many pods more, when they are ready."""
        await asyncio.gather(*(self._add() for _ in range(count)))

    async def _add(self) -> None:
        pod = Pod(self._manifests, next(self._addresses), self._cluster, self._secrets)
        self.everybody.append(pod)
        await pod.start()
        self.pods.append(pod)
        self._service.pods.append(pod)
        await self._service.until(lambda: pod.ready, 60.0, f"{pod.address} ready:\n{pod.log[-2000:]}")

    def delete(self, pod: Pod, grace_seconds: float | None = None) -> "asyncio.Task[None]":
        """It goes, in its own time."""
        self.pods.remove(pod)
        task = asyncio.create_task(pod.delete(grace_seconds))
        self._leaving.append(task)
        return task

    async def roll(self) -> None:
        """Each pod by another: first the new one, then, when it has been ready for a while, the old one goes."""
        for old in list(self.pods):
            await self.add(1)
            ready_at = monotonic()
            await asyncio.sleep(max(0.0, ready_at + self._min_ready_seconds - monotonic()))
            self.delete(old)

    async def settled(self) -> None:
        """Until those that were deleted are gone."""
        await asyncio.gather(*self._leaving)
