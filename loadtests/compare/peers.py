"""What Sluice is compared with, one worker each: NGINX alone, the least that people write, and LiteLLM's proxy."""

import argparse
import contextlib
import functools
import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from loadtests.bench.errors import BenchError
from loadtests.bench.ports import free_ports, wait_until_listens
from loadtests.bench.processes import REPOSITORY, started
from loadtests.bench.surfaces import MODEL
from loadtests.bench.system import Site, Start, System, running
from loadtests.bench.systems import SYSTEMS

# Whatever a peer has started is the gateway: all of it counts as `gunicorn` does of ours.
ALL = {"gunicorn": ""}
# What all of them stand before; measured, too, for what a gateway adds to the first token.
ORIGIN = "origin"
LITELLM = REPOSITORY / ".tools" / "litellm" / "bin" / "litellm"


@contextlib.contextmanager
def plain(site: Site, origin_port: int) -> Iterator[System]:
    """`plain.py` on one Uvicorn process."""
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "uvicorn", "loadtests.compare.plain:app", "--port", str(port), "--no-access-log"]
    environment = {"ORIGIN": f"http://127.0.0.1:{origin_port}"}
    with running(site, command, os.environ | environment, port) as process:
        yield System(port, process.pid, ALL)


@contextlib.contextmanager
def litellm(site: Site, origin_port: int) -> Iterator[System]:
    """LiteLLM's proxy as its documentation starts it, with one model and nothing else switched on."""
    if not LITELLM.exists():
        raise BenchError("LiteLLM is not installed: scripts/compare-peers.sh")
    (port,) = free_ports(1)
    config = site.state / "litellm.yaml"
    upstream = {"model": f"openai/{MODEL}", "api_base": f"http://127.0.0.1:{origin_port}/v1", "api_key": "none"}
    config.write_text(yaml.safe_dump({"model_list": [{"model_name": MODEL, "litellm_params": upstream}]}))
    command = [str(LITELLM), "--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    # Else it asks its home for prices and reports to it: there is no internet here, and nothing to tell.
    environment = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_TELEMETRY": "False",
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",  # nobody is authenticated, as in the others
    }
    with running(site, command, os.environ | environment, port, "/health/liveliness") as process:
        yield System(port, process.pid, ALL)


PEERS: dict[str, tuple[str, Start]] = {
    "sluice": SYSTEMS["sluice"],
    "sluice-nginx": SYSTEMS["nginx"],
    "nginx": SYSTEMS["yardstick"],
    "plain": ("Uvicorn, StreamingResponse and httpx", plain),
    "litellm": ("LiteLLM proxy", litellm),
}


def peer(said: str) -> tuple[str, tuple[str, Start]]:
    """Any gateway that is installed, of NAME=COMMAND, by its short name.

    Raises:
        argparse.ArgumentTypeError: it could not be started, or not be told from another; known before anything runs.
    """
    name, _, command = said.partition("=")
    if not name or name in {*PEERS, ORIGIN} or "{port}" not in command or "{origin}" not in command:
        raise argparse.ArgumentTypeError("NAME=COMMAND, a name of its own, and {port} and {origin} in the command")
    if "/" in name:
        raise argparse.ArgumentTypeError(f"{name!r} has a '/', and names files")
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{name}: {command!r}: {error}") from None
    # Where it will be looked for: on the path, or from the repository on.
    if shutil.which(REPOSITORY / words[0] if "/" in words[0] else words[0]) is None:
        raise argparse.ArgumentTypeError(f"{name}: {words[0]!r} is no program that can be run")
    return name, (name, functools.partial(_installed, words))


@contextlib.contextmanager
def _installed(words: Sequence[str], site: Site, origin_port: int) -> Iterator[System]:
    """It must answer POST /v1/chat/completions for our model on the port, as the origin does at `{origin}/v1`."""
    (port,) = free_ports(1)
    upstream = f"http://127.0.0.1:{origin_port}"
    filled = [word.replace("{port}", str(port)).replace("{origin}", upstream) for word in words]
    with started(filled, site.cores.gateway, site.gateway_log, os.environ) as process:
        wait_until_listens(port, process, site.gateway_log)
        yield System(port, process.pid, ALL)


def versions(folder: Path = LITELLM.parent) -> str:
    """Of the peer that has its own environment."""
    found = sorted(folder.parent.glob("lib/python*/site-packages/litellm-*.dist-info"))
    return found[0].name.removesuffix(".dist-info").partition("-")[2] if found else "not installed"
