"""Real redis-servers for tests: one alone, with a replica, watched by Sentinels, or three as a cluster.

with RedisServer() as redis:
    ... redis.url, redis.client(), redis.kill(), redis.stop(), redis.cont(), redis.start() ...
"""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from redis import Redis
from redis.crc import key_slot
from redis.exceptions import RedisError

from deploy.processes import die_with_parent
from tests.support.chain import free_port

PROGRAM = shutil.which("redis-server")
START_SECONDS = 20.0


class RedisServer:
    """One process. Keeps nothing on disk unless `options` say so.

    Args:
        options: settings as on redis.conf, with `_` for `-`.
        replica_of: the server to follow from the start.
        sentinel: it is a Sentinel with this configuration.
    """

    def __init__(self, replica_of: "RedisServer | None" = None, sentinel: str = "", **options: object) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="sluice-redis-"))
        self._sentinel = sentinel
        self._options = {"save": "", "appendonly": "no", "repl-diskless-sync-delay": 0} | {
            name.replace("_", "-"): value for name, value in options.items()
        }
        if replica_of is not None:
            self._options["replicaof"] = f"127.0.0.1 {replica_of.port}"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def servers(self) -> "list[RedisServer]":
        """Those that take writes."""
        return [self]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Start, or start again on the same port, and wait until it answers."""
        assert PROGRAM is not None, "redis-server is not installed"
        config = self.folder / "redis.conf"
        if not config.exists():  # a Sentinel writes its own into it
            config.write_text(self._configuration())
        command = [PROGRAM, str(config), *(["--sentinel"] if self._sentinel else [])]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self.folder,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent(),  # noqa: PLW1509 - as everywhere here: a test run that is killed leaves nothing
            )
        try:
            wait_until(self.answers, f"redis-server on {self.port}: {self.folder / 'log'}")
        except BaseException:
            self.kill()
            raise

    def answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except RedisError:
            return False

    def client(self) -> Redis:
        """For what a test wants to see or to break; it is the caller's to close."""
        password = str(self._options.get("requirepass", "")) or None
        return Redis(port=self.port, password=password, socket_timeout=5, protocol=2)

    def ask(self, *command: object) -> object:
        """One command."""
        with self.client() as client:
            return client.execute_command(*command)

    def kill(self) -> None:
        """Kill -9, stopped or not."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        """SIGSTOP: it accepts connections and answers nothing."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGSTOP)

    def cont(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGCONT)

    def promote(self) -> None:
        """Let it be a master, or no longer a replica."""
        self.ask("REPLICAOF", "NO", "ONE")

    def wait_synced(self) -> None:
        """Until it has all that its master has."""
        wait_until(lambda: "master_link_status:up" in str(self.info("replication")), "a replica in sync")

    def info(self, section: str) -> str:
        with self.client() as client:
            reply = client.execute_command("INFO", section)
            return "\n".join(f"{name}:{value}" for name, value in reply.items())

    def _configuration(self) -> str:
        lines = [f"port {self.port}", "bind 127.0.0.1", f"dir {self.folder}"]
        if self._sentinel:
            return "\n".join([*lines, self._sentinel, ""])
        lines += [f'{name} "{value}"' if value == "" else f"{name} {value}" for name, value in self._options.items()]
        return "\n".join([*lines, ""])


def wait_until(holds: Callable[[], object], what: str, seconds: float = START_SECONDS) -> None:
    """Look again and again until it holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.02)


class SentinelGroup:
    """A master, a replica, and three Sentinels, which promote the replica when the master is gone for half a second."""

    SERVICE = "sluice"

    def __enter__(self) -> Self:
        self._stack = contextlib.ExitStack()
        self.master = self._stack.enter_context(RedisServer())
        self.replica = self._stack.enter_context(RedisServer(replica_of=self.master))
        self.replica.wait_synced()
        watch = (
            f"sentinel monitor {self.SERVICE} 127.0.0.1 {self.master.port} 2\n"
            f"sentinel down-after-milliseconds {self.SERVICE} 500\n"
            f"sentinel failover-timeout {self.SERVICE} 3000"
        )
        self.sentinels = [self._stack.enter_context(RedisServer(sentinel=watch)) for _ in range(3)]
        wait_until(self._complete, "Sentinels that know each other and the replica")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def servers(self) -> "list[RedisServer]":
        """Those that take writes."""
        return [self.master]

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/{self.SERVICE}/0"

    def _complete(self) -> bool:
        for sentinel in self.sentinels:
            with sentinel.client() as client:
                known = client.sentinel_masters()[self.SERVICE]
            if known["num-other-sentinels"] < 2 or known["num-slaves"] < 1:
                return False
        return True


class RedisCluster:
    """Three masters, each with a third of the slots."""

    NODES = 3
    SLOTS = 16_384

    def __enter__(self) -> Self:
        self._stack = contextlib.ExitStack()
        self.nodes = [
            self._stack.enter_context(
                RedisServer(cluster_enabled="yes", cluster_port=free_port(), cluster_node_timeout=2000)
            )
            for _ in range(self.NODES)
        ]
        share = -(-self.SLOTS // self.NODES)
        for number, node in enumerate(self.nodes):
            first = number * share
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            node.ask("CLUSTER", "ADDSLOTSRANGE", first, min(first + share, self.SLOTS) - 1)
            bus = node._options["cluster-port"]
            self.nodes[0].ask("CLUSTER", "MEET", "127.0.0.1", node.port, bus)
        wait_until(lambda: all(self._complete(node) for node in self.nodes), "a cluster that agrees")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def servers(self) -> list[RedisServer]:
        """Those that take writes."""
        return self.nodes

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def node_of(self, key: str) -> RedisServer:
        """The one that holds the key."""
        return self.nodes[key_slot(key.encode()) // -(-self.SLOTS // self.NODES)]

    def _complete(self, node: RedisServer) -> bool:
        with node.client() as client:
            info = client.execute_command("CLUSTER INFO")
        return bool(info["cluster_state"] == "ok" and int(info["cluster_known_nodes"]) == self.NODES)
