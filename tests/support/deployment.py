"""What the Deployment's controller does: pods come and go as its strategy says, all from what was built."""

import asyncio
import copy
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from time import monotonic
from types import TracebackType
from typing import Any, Self

from app.timeouts import ledger
from deploy.nginx_build import look_at
from deploy.preflight import find_nginx
from tests.support.kubelet import LEAST_SECONDS, Pod
from tests.support.manifests import Manifest, container, lasting, named, sluice_pod
from tests.support.service import Service


def adapted(manifests: Sequence[Manifest], factor: float) -> list[Manifest]:
    """For this machine, with waits divided by the factor, for a test that has no minutes; by 1 they are what ships."""
    found: list[Any] = copy.deepcopy(list(manifests))
    # The machine's NGINX, in the place of the image's.
    number = ".".join(str(part) for part in look_at(find_nginx()).version)
    container(sluice_pod(found), "nginx-config")["args"].append(number)
    if factor != 1:
        _divide(found, factor)
    return found


def _divide(manifests: Sequence[Manifest], factor: float) -> None:
    """Pauses, probes, grace and drain, each from what it is in what was built, or else in the ledger."""
    deployment: Any = named(manifests, "Deployment", "sluice")["spec"]
    deployment["minReadySeconds"] /= factor
    pod = deployment["template"]["spec"]
    pod["terminationGracePeriodSeconds"] /= factor
    pre_stop: Any = container(pod, "app")["lifecycle"]["preStop"]
    pre_stop["sleep"]["seconds"] /= factor
    command: Any = container(pod, "nginx")["lifecycle"]["preStop"]["exec"]["command"]
    command[-1] = re.sub(r"sleep (\d+)", lambda wait: f"sleep {int(wait[1]) / factor:g}", command[-1])
    probes: list[Any] = [
        one[kind] for one in lasting(pod) for kind in ("readinessProbe", "livenessProbe") if kind in one
    ]
    for probe in probes:
        probe["periodSeconds"] /= factor
    settings: Any = named(manifests, "ConfigMap", "sluice-settings")["data"]
    for wait in ("drain_seconds", "drain_spread_seconds"):
        variable = f"SLUICE_{wait.upper()}"
        settings[variable] = f"{float(settings.get(variable, ledger()[wait])) / factor:g}"


def addresses() -> Iterator[str]:
    """Of the loopback network, other ones in each process that tests at the same time."""
    low = os.getpid() % 60_000
    for number in range(1, 200):
        yield f"127.{64 + low // 250 % 64}.{low % 250 + 1}.{number}"


class Deployment:
    """Use as an async context manager, behind a `Service`; leaving it kills what is left.

    Args:
        manifests: as `adapted` made them.
        factor: that they were adapted by.
    """

    def __init__(
        self,
        manifests: Sequence[Manifest],
        service: Service,
        cluster: Mapping[str, str],
        secrets: Mapping[str, Mapping[str, str]],
        factor: float,
    ) -> None:
        self.pods: list[Pod] = []
        self.everybody: list[Pod] = []
        self._manifests, self._service = manifests, service
        self._cluster, self._secrets = cluster, secrets
        self._addresses = addresses()
        self._least_seconds = LEAST_SECONDS / factor
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
        await asyncio.gather(*(pod.removed() for pod in self.everybody))

    @property
    def log(self) -> str:
        """What all pods wrote, those that are gone included."""
        return "".join(pod.log for pod in self.everybody)

    async def add(self, count: int) -> None:
        """So many pods more, when they are ready."""
        await asyncio.gather(*(self._add() for _ in range(count)))

    async def _add(self) -> None:
        pod = Pod(
            self._manifests, next(self._addresses), self._cluster, self._secrets, least_seconds=self._least_seconds
        )
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

    async def shrink(self, count: int) -> None:
        """To so many pods, each as soon as the one before it is gone: earlier than autoscalers let it."""
        while len(self.pods) > count:
            await self.delete(self.pods[0])

    async def settled(self) -> None:
        """Until those that were deleted are gone."""
        await asyncio.gather(*self._leaving)
