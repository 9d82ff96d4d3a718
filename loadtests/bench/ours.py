"""Sluice as it can be measured, with one worker: alone, behind NGINX, with more or less switched on."""

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from loadtests.bench.caller import HEADER, TIERS, write_keys
from loadtests.bench.ports import free_ports, wait_until_listens
from loadtests.bench.processes import REPOSITORY, started
from loadtests.bench.surfaces import MODEL
from loadtests.bench.system import Site, System, running
from tests.support.collector import Collector

# What the last measurement put a limit to must not limit the next. NGINX takes no larger one.
STREAMS_MAX = 65_535
UNLIMITED = {"SLUICE_STREAMS_MAX": str(STREAMS_MAX), "SLUICE_EDGE_STREAMS_MAX": str(STREAMS_MAX)}


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
def sluice_counting(site: Site, origin_port: int) -> Iterator[System]:
    """The same with a key in each request and every limit counted."""
    with _alone(site, origin_port, _keys(site)) as system:
        yield system._replace(header=HEADER)


@contextlib.contextmanager
def sluice_full(site: Site, origin_port: int) -> Iterator[System]:
    """The same with all that is off without a setting: a key in each request, every limit counted, traces."""
    with _asked_for(site) as more, _alone(site, origin_port, more) as system:
        yield system._replace(header=HEADER)


@contextlib.contextmanager
def sluice_on_redis(site: Site, origin_port: int) -> Iterator[System]:
    """The same with its log in a Redis, which shares the generator's core."""
    with _redis(site) as (pid, more), _alone(site, origin_port, more) as system:
        yield system._replace(beside=(pid,))


@contextlib.contextmanager
def sluice_behind_nginx(site: Site, origin_port: int) -> Iterator[System]:
    """The whole chain with one worker, as `make run` runs it. Both share the core."""
    with _behind_nginx(site, origin_port, {}) as system:
        yield system


@contextlib.contextmanager
def everything(site: Site, origin_port: int) -> Iterator[System]:
    """The whole product: NGINX, keys, limits, traces, and the log in LMDB."""
    with _asked_for(site) as more, _behind_nginx(site, origin_port, more) as system:
        yield system._replace(header=HEADER)


@contextlib.contextmanager
def everything_on_redis(site: Site, origin_port: int) -> Iterator[System]:
    """The same with log and limits in a Redis."""
    with (
        _asked_for(site) as more,
        _redis(site) as (pid, place),
        _behind_nginx(site, origin_port, {**more, **place}) as system,
    ):
        yield system._replace(header=HEADER, beside=(pid,))


@contextlib.contextmanager
def _asked_for(site: Site) -> Iterator[dict[str, str]]:
    """The settings that switch on what is off without one; whoever calls shows `HEADER`."""
    with Collector() as collector:
        yield {**collector.env, **_keys(site)}


def _keys(site: Site) -> dict[str, str]:
    file = site.state / "keys.yaml"
    write_keys(file)
    return {"SLUICE_API_KEYS_FILE": str(file)}


@contextlib.contextmanager
def _redis(site: Site) -> Iterator[tuple[int, dict[str, str]]]:
    """A Redis without persistence: its process, and the setting that names it."""
    (port,) = free_ports(1)
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(site.state)]
    log = site.state / "redis.log"
    with started(command, site.cores.generator, log) as redis:
        wait_until_listens(port, redis, log)
        yield redis.pid, {"SLUICE_STREAM_LOG": f"redis://127.0.0.1:{port}"}


@contextlib.contextmanager
def _behind_nginx(site: Site, origin_port: int, more: Mapping[str, str]) -> Iterator[System]:
    port, metrics_port = free_ports(2)
    command = [sys.executable, "-m", "deploy.run"]
    own = _environment(site, origin_port, metrics_port) | {"PORT": str(port)}
    with running(site, command, {**own, **more}, port) as process:
        yield System(port, process.pid)


@contextlib.contextmanager
def _alone(site: Site, origin_port: int, more: Mapping[str, str]) -> Iterator[System]:
    port, metrics_port = free_ports(2)
    command = [str(Path(sys.executable).parent / "gunicorn"), "-c", "deploy/gunicorn.conf.py"]
    own = _environment(site, origin_port, metrics_port) | {"SLUICE_BIND": f"127.0.0.1:{port}"}
    with running(site, command, {**own, **more}, port) as process:
        yield System(port, process.pid)


def models_file(origin_port: int) -> dict[str, Any]:
    """The models file of what is measured."""
    upstream = {
        "provider": "openai",
        "base_url": f"http://127.0.0.1:{origin_port}/v1",
        "concurrency_max": STREAMS_MAX,
    }
    return {"models": {MODEL: [upstream]}, "tiers": TIERS}


def _environment(site: Site, origin_port: int, metrics_port: int) -> dict[str, str]:
    """Ours, so that any SLUICE_ variable can be measured, with one worker and the origin as the only upstream."""
    config = site.state / "models.yaml"
    config.write_text(yaml.safe_dump(models_file(origin_port)))
    return {
        **UNLIMITED,
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "WORKERS": "1",
        "SLUICE_CONFIG": str(config),
        "SLUICE_STATE_DIR": str(site.state),
        "SLUICE_METRICS_BIND": f"127.0.0.1:{metrics_port}",
    }
