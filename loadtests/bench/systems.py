"""What is measured: the origin without a gateway, Sluice alone and behind NGINX. Each is started for one row."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import yaml

from loadtests.bench.caller import HEADER, TIERS, write_keys
from loadtests.bench.ports import free_ports, wait_until_answers
from loadtests.bench.processes import REPOSITORY, Cores, started
from loadtests.bench.procfs import Procfs
from loadtests.bench.surfaces import MODEL
from tests.support.collector import Collector

NOTHING_THERE = 404  # what the origin says to a GET
# What the last measurement put a limit to must not limit the next. NGINX takes no larger one.
STREAMS_MAX = 65_535
UNLIMITED = {"SLUICE_STREAMS_MAX": str(STREAMS_MAX), "SLUICE_EDGE_STREAMS_MAX": str(STREAMS_MAX)}
# How a process's command line shows what it is; a word alone could be part of a path.
MARKS = {"gunicorn": "gunicorn.conf.py", "nginx": "nginx: "}


class Site(NamedTuple):
    """Where a row is measured: what runs on which core, and where it writes."""

    programs: Path
    cores: Cores
    state: Path
    gateway_log: Path


class System(NamedTuple):
    """Something that answers on `port`; without a gateway, `root` is None. `marks` tells its processes apart.

    `header` is what it wants to see in each request.
    """

    port: int
    root: int | None = None
    marks: Mapping[str, str] = MARKS
    header: str = ""

    def processes(self, proc: Procfs) -> dict[str, list[int]]:
        """Its processes by what they are. Whatever is neither Gunicorn nor NGINX keeps things running, at no cost."""
        groups: dict[str, list[int]] = {}
        for pid in proc.descendants(self.root) if self.root else []:
            command = proc.command(pid)
            group = next((name for name, mark in self.marks.items() if mark in command), "other")
            groups.setdefault(group, []).append(pid)
        return groups


Start = Callable[[Site, int], contextlib.AbstractContextManager[System]]


@contextlib.contextmanager
def origin(site: Site, tokens: int, rate: float) -> Iterator[int]:
    """The upstream, on the generator's core; its port."""
    (port,) = free_ports(1)
    log = site.state / "origin.log"
    command = [str(site.programs / "origin"), "--port", str(port), "--tokens", str(tokens), "--rate", str(rate)]
    with started(command, site.cores.generator, log) as process:
        wait_until_answers(port, "/", NOTHING_THERE, process, log)
        yield port


@contextlib.contextmanager
def no_gateway(_: Site, origin_port: int) -> Iterator[System]:
    """The origin itself: what a client would see if the gateway cost nothing."""
    yield System(origin_port)


@contextlib.contextmanager
def sluice(site: Site, origin_port: int) -> Iterator[System]:
    """Gunicorn with one worker on a TCP port, as `make serve` runs it."""
    with _alone(site, origin_port, {}) as system:
        yield system


@contextlib.contextmanager
def sluice_unseen(site: Site, origin_port: int) -> Iterator[System]:
    """The same without figures and lines: what these cost is the difference, in one run."""
    more = {
        "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests' / 'support' / 'inside'}",
        "SLUICE_TEST_HOME": str(REPOSITORY),
        "SLUICE_TEST_SABOTAGE": "loadtests.bench.unseen:remove",
        "SLUICE_LOG_LEVEL": "error",
    }
    with _alone(site, origin_port, more) as system:
        yield system


@contextlib.contextmanager
def sluice_traced(site: Site, origin_port: int) -> Iterator[System]:
    """The same with every request traced, and a collector that takes the spans."""
    with Collector() as collector, _alone(site, origin_port, collector.env) as system:
        yield system


@contextlib.contextmanager
def sluice_full(site: Site, origin_port: int) -> Iterator[System]:
    """The same with all that is off without a setting: a key in each request, every limit counted, traces."""
    keys = site.state / "keys.yaml"
    write_keys(keys)
    more = {"SLUICE_API_KEYS_FILE": str(keys)}
    with Collector() as collector, _alone(site, origin_port, {**collector.env, **more}) as system:
        yield system._replace(header=HEADER)


@contextlib.contextmanager
def sluice_behind_nginx(site: Site, origin_port: int) -> Iterator[System]:
    """The whole chain with one worker, as `make run` runs it. Both share the core."""
    port, metrics_port = free_ports(2)
    command = [sys.executable, "-m", "deploy.run"]
    environment = _environment(site, origin_port, metrics_port) | {"PORT": str(port)}
    with _gateway(site, command, environment, port) as process:
        yield System(port, process.pid)


SYSTEMS: dict[str, tuple[str, Start]] = {
    "origin": ("origin, no gateway", no_gateway),
    "sluice": ("Sluice", sluice),
    "nginx": ("Sluice behind NGINX", sluice_behind_nginx),
    "unseen": ("Sluice, no figures or lines", sluice_unseen),
    "traced": ("Sluice, traced", sluice_traced),
    "full": ("Sluice, traced, with keys and limits", sluice_full),
}
# Those that are only measured where they are asked for.
ASKED_FOR = ("unseen", "traced", "full")


@contextlib.contextmanager
def _alone(site: Site, origin_port: int, more: Mapping[str, str]) -> Iterator[System]:
    port, metrics_port = free_ports(2)
    command = [str(Path(sys.executable).parent / "gunicorn"), "-c", "deploy/gunicorn.conf.py"]
    own = _environment(site, origin_port, metrics_port) | {"SLUICE_BIND": f"127.0.0.1:{port}"}
    with _gateway(site, command, {**own, **more}, port) as process:
        yield System(port, process.pid)


@contextlib.contextmanager
def _gateway(
    site: Site, command: list[str], environment: dict[str, str], port: int
) -> Iterator[subprocess.Popen[bytes]]:
    with started(command, site.cores.gateway, site.gateway_log, environment) as process:
        wait_until_answers(port, "/readyz", 200, process, site.gateway_log)
        yield process


def _environment(site: Site, origin_port: int, metrics_port: int) -> dict[str, str]:
    """Ours, so that any SLUICE_ variable can be measured, with one worker and the origin as the only upstream."""
    config = site.state / "models.yaml"
    upstream = {
        "provider": "openai",
        "base_url": f"http://127.0.0.1:{origin_port}/v1",
        "concurrency_max": STREAMS_MAX,
    }
    config.write_text(yaml.safe_dump({"models": {MODEL: [upstream]}, "tiers": TIERS}))
    return {
        **UNLIMITED,
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "WORKERS": "1",
        "SLUICE_CONFIG": str(config),
        "SLUICE_STATE_DIR": str(site.state),
        "SLUICE_METRICS_BIND": f"127.0.0.1:{metrics_port}",
    }
