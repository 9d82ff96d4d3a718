"""Runs a pod as the kubelet does, from its manifest, on a loopback address of its own: no cluster, no containers.

What it does not do is to start a container again: a test in which one would have been has failed, by `restarted`.

What it reads from the manifest: the order of containers, their commands, environments and volumes, probes, preStop
hooks and the grace; from deploy/Dockerfile what an image runs and its stop signal. What it puts in the place of others:
a folder for each volume, whose path stands wherever the mount's path did, and the pod's address for 0.0.0.0.
"""

import asyncio
import contextlib
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import aiohttp

from deploy.processes import die_with_parent
from tests.support.dockerfile import stages
from tests.support.launched import HOME
from tests.support.manifests import Manifest, containers, lasting, named, of_kind, pod_of

# What a sidecar gets when the grace is over before its turn came, and what any container gets at least.
LEAST_SECONDS = 2.0
STAGES = {"sluice": "app", "sluice-nginx": "nginx"}


class Pod:
    """`start`, then `delete`, then `remove`; `ready` says what its readiness probes said last.

    Attributes:
        spec: what it was made of.
        killed: containers that were, at the end of the grace.
        restarted: containers that the kubelet would have started anew, since they ended or failed their liveness probe.

    Args:
        manifests: everything that was built.
        address: of the loopback network; nobody else listens there.
        cluster: what stands for names that only a cluster knows, wherever environment and ConfigMaps have them.
        secrets: what the cluster has, by name and file.
        deployment: whose pod it is.
        programs: a folder whose programs come before the machine's.
        least_seconds: for a test that has no minutes, instead of `LEAST_SECONDS`.
    """

    def __init__(
        self,
        manifests: Sequence[Manifest],
        address: str,
        cluster: Mapping[str, str],
        secrets: Mapping[str, Mapping[str, str]],
        deployment: str = "sluice",
        programs: Path | None = None,
        least_seconds: float = LEAST_SECONDS,
    ) -> None:
        self.address = address
        self.ready = False
        self.deleted_at: float | None = None
        workload = named(manifests, "Deployment", deployment)
        self.spec = pod_of(workload)
        self._fields = {
            "metadata.name": f"{deployment}-{address}",
            "metadata.namespace": workload["metadata"]["namespace"],
            "spec.nodeName": "this-machine",
        }
        self._manifests, self._cluster, self._secrets = manifests, cluster, secrets
        self._least_seconds = least_seconds
        self._path = f"{f'{programs}:' if programs else ''}{os.environ['PATH']}:/usr/local/sbin:/usr/sbin"
        self._folder = Path(tempfile.mkdtemp(prefix="pod-", dir="/tmp"))
        self._volumes = {volume["name"]: self._folder / str(volume["name"]) for volume in self.spec["volumes"]}
        self._mounts = {
            mount["mountPath"]: mount["name"] for one in containers(self.spec) for mount in one.get("volumeMounts", [])
        }
        for volume in self.spec["volumes"]:
            self._fill(volume)
        self._log = (self._folder / "log").open("ab")
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._probing: list[asyncio.Task[None]] = []
        self._watching: list[asyncio.Task[None]] = []
        self.killed: list[str] = []
        self.restarted: list[str] = []

    @property
    def log(self) -> str:
        """What all containers wrote."""
        return (self._folder / "log").read_text(errors="replace")

    @property
    def grace_seconds(self) -> float:
        return float(self.spec["terminationGracePeriodSeconds"])

    async def start(self) -> None:
        """Containers in their order, each when the one before it has started; then probes go on by themselves."""
        initial = self.spec.get("initContainers", [])
        for container in [*initial, *self.spec["containers"]]:
            process = await self._run(container)
            if container in initial and container.get("restartPolicy") != "Always":
                assert await process.wait() == 0, self.log
                continue
            self._running[container["name"]] = process
            await self._started(container, process)
            self._watching.append(asyncio.create_task(self._watch(container, process)))
            if "readinessProbe" in container:
                self._probing.append(asyncio.create_task(self._probe(container)))

    async def delete(self, grace_seconds: float | None = None) -> None:
        """All preStop hooks at once; TERM to the app's containers, each when its own is over; to sidecars, the last
        first, when those are gone; KILL at the end of the grace.

        Args:
            grace_seconds: instead of the manifest's, as an eviction may ask for.
        """
        self.deleted_at = monotonic()
        # One that stops is not to be started again.
        await _cancelled(self._watching)
        grace = self.grace_seconds if grace_seconds is None else grace_seconds
        deadline = self.deleted_at + grace
        main = [container["name"] for container in self.spec["containers"]]
        hooks = {one["name"]: asyncio.create_task(self._pre_stop(one, deadline)) for one in lasting(self.spec)}
        await asyncio.gather(*(self._stop(name, hooks[name], deadline) for name in main))
        for one in reversed([one["name"] for one in lasting(self.spec) if one["name"] not in main]):
            await self._stop(one, hooks[one], deadline)
        await _cancelled(self._probing)
        self.ready = False

    def kill(self, container: str) -> None:
        """A process ends as none should."""
        self._running[container].kill()

    def remove(self) -> None:
        """Nothing of it is left, however it ended."""
        for process in self._running.values():
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        for task in (*self._probing, *self._watching):
            task.cancel()
        self._log.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def removed(self) -> None:
        """Until what `remove` killed has been buried, or the loop would end before."""
        await asyncio.gather(*(process.wait() for process in self._running.values()))

    # volumes and processes

    def _fill(self, volume: Manifest) -> None:
        folder = self._volumes[volume["name"]]
        folder.mkdir()
        files: Mapping[str, str] = {}
        if "configMap" in volume:
            wanted = volume["configMap"]
            (found,) = [
                one for one in of_kind(self._manifests, "ConfigMap") if one["metadata"]["name"] == wanted["name"]
            ]
            places = {item["key"]: item["path"] for item in wanted.get("items", [])}
            files = {places.get(key, key): self._here(text) for key, text in found["data"].items()}
        if "secret" in volume:
            files = self._secrets[volume["secret"]["secretName"]]
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)

    def _here(self, text: str) -> str:
        """As it is said in the pod, as it is here: a container may name a path that only another one mounts."""
        for theirs, ours in self._cluster.items():
            text = text.replace(theirs, ours)
        for path, name in self._mounts.items():
            if path not in ("/tmp", "/dev/shm"):  # the machine has its own
                text = re.sub(rf"(?<![\w/.-]){re.escape(path)}(?![\w.-])", str(self._volumes[name]), text)
        return text.replace("0.0.0.0", self.address)

    def _environment(self, container: Manifest) -> dict[str, str]:
        found = dict(stages()[self._stage(container)].environment)
        for source in container.get("envFrom", []):
            name = source["configMapRef"]["name"]
            (config,) = [one for one in of_kind(self._manifests, "ConfigMap") if one["metadata"]["name"] == name]
            found |= config["data"]
        found |= {one["name"]: one["value"] for one in container.get("env", []) if "value" in one}
        references = [one for one in container.get("env", []) if "valueFrom" in one]
        found |= {one["name"]: self._fields[one["valueFrom"]["fieldRef"]["fieldPath"]] for one in references}
        return {"PATH": self._path} | {name: self._here(value) for name, value in found.items()}

    def _stage(self, container: Manifest) -> str:
        return STAGES[container["image"].rpartition("/")[2].partition(":")[0]]

    def _command(self, container: Manifest) -> list[str]:
        stage = stages()[self._stage(container)]
        words = container.get("command", stage.command("ENTRYPOINT"))
        words = [*words, *container.get("args", stage.command("CMD"))]
        words = [self._here(word) for word in words]
        if words[0].endswith("/python"):
            words[0] = sys.executable
        if os.geteuid() == 0:
            # In the pod nobody is root; here root's NGINX would become `nobody`, who may not open the sockets.
            words = [word.replace("daemon off;", "daemon off; user root;") for word in words]
        return words

    async def _run(self, container: Manifest) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *self._command(container),
            cwd=HOME,
            env=self._environment(container),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
            preexec_fn=die_with_parent(),
        )

    # probes

    async def _started(self, container: Manifest, process: asyncio.subprocess.Process) -> None:
        probe = container["startupProbe"]
        for _ in range(probe["failureThreshold"]):
            assert process.returncode is None, f"{container['name']} ended with {process.returncode}:\n{self.log}"
            if await self._asks(probe, container):
                return
            await asyncio.sleep(probe["periodSeconds"])
        raise AssertionError(f"{container['name']} did not start:\n{self.log}")

    async def _probe(self, container: Manifest) -> None:
        probe, failures = container["readinessProbe"], 0
        while True:
            failures = 0 if await self._asks(probe, container) else failures + 1
            if failures == 0 or failures >= probe["failureThreshold"]:
                self.ready = failures == 0 and self.deleted_at is None
            await asyncio.sleep(probe["periodSeconds"])

    async def _watch(self, container: Manifest, process: asyncio.subprocess.Process) -> None:
        """Until it would have been started again."""
        probe, failures = container["livenessProbe"], 0
        while True:
            failures = 0 if await self._asks(probe, container) else failures + 1
            if failures >= probe["failureThreshold"] or process.returncode is not None:
                self.restarted.append(container["name"])
                return
            await asyncio.sleep(probe["periodSeconds"])

    async def _asks(self, probe: Manifest, container: Manifest) -> bool:
        timeout = aiohttp.ClientTimeout(total=probe["timeoutSeconds"])
        try:
            if "tcpSocket" in probe:
                port = self._port(probe["tcpSocket"]["port"], container)
                async with asyncio.timeout(probe["timeoutSeconds"]):
                    _, writer = await asyncio.open_connection(self.address, port)
                writer.close()
                return True
            asked = probe["httpGet"]
            url = f"http://{self.address}:{self._port(asked['port'], container)}{asked['path']}"
            async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as answer:
                return 200 <= answer.status < 400
        except (OSError, aiohttp.ClientError, TimeoutError):
            return False

    def _port(self, port: int | str, container: Manifest) -> int:
        named: dict[Any, int] = {one["name"]: one["containerPort"] for one in container.get("ports", [])}
        return named.get(port, port)  # type: ignore[arg-type]

    # the end

    async def _pre_stop(self, container: Manifest, deadline: float) -> None:
        hook = container.get("lifecycle", {}).get("preStop", {})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(self._least_seconds, deadline - monotonic())):
                if "sleep" in hook:
                    await asyncio.sleep(hook["sleep"]["seconds"])
                elif "exec" in hook:
                    words = [self._here(word) for word in hook["exec"]["command"]]
                    process = await asyncio.create_subprocess_exec(
                        *words, env=self._environment(container), stdout=self._log, stderr=self._log
                    )
                    assert await process.wait() == 0, self.log

    async def _stop(self, name: str, hook: "asyncio.Task[None]", deadline: float) -> None:
        await hook
        process = self._running[name]
        container = next(one for one in lasting(self.spec) if one["name"] == name)
        stop = signal.Signals[stages()[self._stage(container)].last("STOPSIGNAL")]
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(stop)
        try:
            await asyncio.wait_for(process.wait(), max(self._least_seconds, deadline - monotonic()))
        except TimeoutError:
            self.killed.append(name)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


async def _cancelled(tasks: Sequence["asyncio.Task[None]"]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
