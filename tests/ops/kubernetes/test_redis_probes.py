"""What the kubelet asks of Redis, with its own commands and real servers: who still reads or copies is not ready."""

import os
import re
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from tests.support.chain import free_port
from tests.support.manifests import container, named, overlay, pod_of
from tests.support.redis import PROGRAM, RedisServer, wait_until

CLI = shutil.which("redis-cli")
pytestmark = pytest.mark.skipif(PROGRAM is None or CLI is None, reason="redis-server or redis-cli is missing")
PROBE_SECONDS_MAX = 60
OF_ONE, OF_SENTINELS = ("staging", "redis"), ("production", "redis")
EITHER = pytest.mark.parametrize("where", [OF_ONE, OF_SENTINELS], ids=lambda where: where[0])


class Kubelet:
    """Asks as an overlay's manifests say, in a folder that stands for /etc/redis."""

    def __init__(self, folder: Path, where: tuple[str, str]) -> None:
        name, container_name = where
        manifests = overlay(name)
        probe = container(pod_of(named(manifests, "StatefulSet", "sluice-redis")), container_name)["readinessProbe"]
        self._command = [word.replace("/etc/redis", str(folder)) for word in probe["exec"]["command"]]
        for file, text in named(manifests, "ConfigMap", "sluice-redis")["data"].items():
            (folder / file).write_text(text)
        self._folder = folder

    def is_ready(self, port: int) -> bool:
        """Of the server at this port, whatever port the pod's has."""
        command = [re.sub(r"-p \d+ ", "", word) for word in self._command]
        programs = self._folder / "bin"
        programs.mkdir(exist_ok=True)
        (programs / "redis-cli").write_text(f'#!/bin/sh\nexec {CLI} -p {port} "$@"\n')
        (programs / "redis-cli").chmod(0o755)
        env = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"}
        return subprocess.run(command, env=env, capture_output=True, timeout=PROBE_SECONDS_MAX).returncode == 0


@pytest.mark.parametrize("where", [OF_ONE, OF_SENTINELS, ("production", "sentinel")], ids="-".join)
def test_a_server_that_answers_is_ready_and_one_that_is_away_is_not(where: tuple[str, str], tmp_path: Path) -> None:
    kubelet = Kubelet(tmp_path, where)
    with RedisServer(sentinel="protected-mode no" if where[1] == "sentinel" else "") as redis:
        assert kubelet.is_ready(redis.port)
    assert not kubelet.is_ready(free_port())


@EITHER
def test_a_redis_that_reads_its_file_is_not_ready(where: tuple[str, str], tmp_path: Path) -> None:
    kubelet = Kubelet(tmp_path, where)
    # It looks after its clients as often as it can, and a reload from its file is what a start is.
    options = {"enable_debug_command": "yes", "loading_process_events_interval_bytes": 1024, "rdbcompression": "no"}
    with RedisServer(None, "", **options) as redis:
        with redis.client() as client:
            client.mset({f"key:{number}": "x" * 1000 for number in range(3000)})
        redis.ask("CONFIG", "SET", "key-load-delay", 10_000)  # microseconds: half a minute in all
        reload = threading.Thread(target=lambda: os.system(f"{CLI} -p {redis.port} debug reload >/dev/null"))
        reload.start()
        try:
            wait_until(lambda: is_loading(redis), "a Redis that reads its file")
            assert not kubelet.is_ready(redis.port)
            assert is_loading(redis)
        finally:
            redis.ask("CONFIG", "SET", "key-load-delay", 0)
            reload.join(PROBE_SECONDS_MAX)
        wait_until(lambda: not is_loading(redis), "a Redis that has read its file")
        assert kubelet.is_ready(redis.port)


def is_loading(redis: RedisServer) -> bool:
    """By redis-cli, as the client library would ask again and again."""
    asked = subprocess.run([str(CLI), "-p", str(redis.port), "ping"], capture_output=True, text=True, timeout=60)
    return asked.stdout.startswith("LOADING")


def test_a_replica_is_ready_when_it_has_what_its_master_has(tmp_path: Path) -> None:
    kubelet = Kubelet(tmp_path, OF_SENTINELS)
    with RedisServer() as master, RedisServer(replica_of=master) as replica:
        replica.wait_synced()
        assert kubelet.is_ready(replica.port)
        master.kill()
        wait_until(lambda: "master_link_status:down" in replica.info("replication"), "a replica without its master")
        assert replica.ask("PING")
        assert not kubelet.is_ready(replica.port)
        master.start()
        replica.wait_synced()
        assert kubelet.is_ready(replica.port)
