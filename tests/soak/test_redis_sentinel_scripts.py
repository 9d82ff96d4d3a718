"""The scripts of the component redis-sentinel, with real servers under the names that pods would have.

Each pod has a loopback address, a folder, and a mount namespace with an /etc/hosts that knows them all.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import RedisError

from deploy.processes import die_with_parent
from tests.support.manifests import KUBERNETES, named, overlay, pod_of

pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="mounting needs root"),
]
SCRIPTS = KUBERNETES / "components" / "redis-sentinel"
WAIT_SECONDS_MAX = 90.0
# The scripts and their words, by the manifest: before Redis stops, and before its Sentinel does.
LAST = [
    [Path(word).name for word in one["lifecycle"]["preStop"]["exec"]["command"][1:]]
    for one in pod_of(named(overlay("production"), "StatefulSet", "sluice-redis"))["containers"]
]
ENTER = """
set -eu
mount --bind "$HOSTS" /etc/hosts
exec "$@"
"""


class RedisPod:
    """One of the StatefulSet: a Redis and a Sentinel."""

    def __init__(self, number: int, folder: Path, low: int) -> None:
        self.name = f"sluice-redis-{number}"
        self.address = f"127.66.{low}.{number + 1}"
        self._folder = folder
        self.data, self.scripts = folder / self.name, folder / f"scripts-{self.name}"
        self.data.mkdir()
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        self.processes = [self._run("redis.sh"), self._run("sentinel.sh")]

    def stop(self) -> None:
        """As the kubelet does: what each container has to do before, at once, and TERM for each that has done it."""
        before = [self._run(*words) for words in LAST]
        for process, last in zip(self.processes, before, strict=True):
            assert last.wait(60) == 0
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            process.wait(60)
        self.processes = []

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        for process in self.processes:
            process.send_signal(number)
            process.wait(60)
        self.processes = []

    def redis(self) -> Redis:
        return Redis(host=self.address, decode_responses=True, socket_timeout=5)

    def role(self) -> str:
        try:
            with self.redis() as client:
                return str(client.role()[0])
        except RedisError:
            return "away"

    def _run(self, script: str, *words: str) -> "subprocess.Popen[bytes]":
        env = os.environ | {
            "HOSTS": str(self._folder / "hosts"),
            "HOSTNAME": self.name,
        }
        with (self._folder / f"{self.name}.log").open("ab") as log:
            return subprocess.Popen(
                ["unshare", "--mount", "sh", "-c", ENTER, "enter", "/bin/sh", str(self.scripts / script), *words],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent(),  # noqa: PLW1509 - two system calls, no lock
            )


def adapted(source: Path, pod: RedisPod) -> str:
    """A file with the pod's folders for mounts and its address for a machine of its own, and with shorter waits."""
    text = source.read_text().replace("/data", str(pod.data)).replace("/etc/redis", str(pod.scripts))
    text = text.replace("port 26379\n", f"port 26379\nbind {pod.address}\n")
    text = text.replace("sluice 5000", "sluice 1000").replace("sluice 60000", "sluice 10000")
    if source.name == "hand-over.sh":
        text = text.replace("redis-cli", f"redis-cli -h {pod.address}")
    if source.name == "redis.conf":
        text += f"bind {pod.address}\nrepl-diskless-sync-delay 0\n"
    return text


@pytest.fixture
def pods(tmp_path: Path) -> Iterator[list[RedisPod]]:
    low = os.getpid() % 250 + 1
    made = [RedisPod(number, tmp_path, low) for number in range(3)]
    hosts = "".join(f"{pod.address} {pod.name}.sluice-redis {pod.name}\n" for pod in made)
    (tmp_path / "hosts").write_text(f"127.0.0.1 localhost\n{hosts}")
    for pod in made:
        pod.scripts.mkdir()
        for source in SCRIPTS.glob("*.*"):
            (pod.scripts / source.name).write_text(adapted(source, pod))
    try:
        for pod in made:
            pod.start()
        yield made
    finally:
        for pod in made:
            pod.kill()


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def roles(pods: list[RedisPod]) -> list[str]:
    return sorted(pod.role() for pod in pods)


def seen_by_sentinel(pod: RedisPod) -> dict[str, Any]:
    with Redis(host=pod.address, port=26379, decode_responses=True, socket_timeout=5) as client:
        state: dict[str, Any] = client.sentinel_masters()["sluice"]
    return state


def know_each_other(pod: RedisPod) -> bool:
    try:
        state = seen_by_sentinel(pod)
        return bool(state["num-other-sentinels"] == 2 and state["num-slaves"] == 2)
    except (RedisError, KeyError):
        return False


def changes_of_master(pods: list[RedisPod]) -> int:
    """Its latest number, by whichever of the Sentinels knows most."""
    return max(int(seen_by_sentinel(pod)["config-epoch"]) for pod in pods)


def master_of(pods: list[RedisPod]) -> RedisPod:
    return next(pod for pod in pods if pod.role() == "master")


def write(pods: list[RedisPod], key: str) -> None:
    with master_of(pods).redis() as client:
        client.set(key, "here")
        client.wait(1, 5000)


def test_three_pods_find_their_master_and_choose_another_when_it_goes(pods: list[RedisPod]) -> None:
    wait_for(lambda: roles(pods) == ["master", "slave", "slave"], "one master")
    wait_for(lambda: all(know_each_other(pod) for pod in pods), "Sentinels that know each other")
    write(pods, "first")
    # A planned stop hands over before it ends, and once only.
    first = master_of(pods)
    before = changes_of_master(pods)
    first.stop()
    rest = [pod for pod in pods if pod is not first]
    wait_for(lambda: roles(rest) == ["master", "slave"], "one master among the others")
    assert changes_of_master(rest) == before + 1
    # It comes back behind the new one, and knows what was said.
    first.start()
    wait_for(lambda: first.role() == "slave", "the first to follow")
    wait_for(lambda: all(know_each_other(pod) for pod in pods), "Sentinels that know it again")
    write(pods, "second")
    # One that is killed is replaced.
    second = master_of(pods)
    second.kill()
    wait_for(lambda: "master" in roles([pod for pod in pods if pod is not second]), "another master")
    with master_of(pods).redis() as client:
        assert client.mget("first", "second") == ["here", "here"]
