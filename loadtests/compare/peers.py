"""What Sluice is compared with, one worker each: NGINX alone, the least that people write, and LiteLLM's proxy."""

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import yaml

from loadtests.bench.errors import BenchError
from loadtests.bench.ports import free_ports, wait_until_answers
from loadtests.bench.processes import REPOSITORY, started
from loadtests.bench.surfaces import MODEL
from loadtests.bench.systems import SYSTEMS, Site, Start, System

LITELLM = REPOSITORY / ".tools" / "litellm" / "bin" / "litellm"
# Whatever a peer has started is the gateway: all of it counts as `gunicorn` does of ours.
ALL = {"gunicorn": ""}

NGINX_CONF = """
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
events {{ worker_connections 16384; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  upstream origin {{ server 127.0.0.1:{origin}; keepalive 512; }}
  server {{
    listen 127.0.0.1:{port};
    location = /readyz {{ return 200; }}
    location / {{
      proxy_pass http://origin;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""


@contextlib.contextmanager
def nginx_alone(site: Site, origin_port: int) -> Iterator[System]:
    """NGINX that passes everything on and knows nothing of what it is."""
    (port,) = free_ports(1)
    conf = site.state / "nginx.conf"
    user = "user root;\n" if os.geteuid() == 0 else ""
    conf.write_text(user + NGINX_CONF.format(folder=site.state, origin=origin_port, port=port))
    command = ["nginx", "-p", str(site.state), "-c", str(conf), "-e", "stderr"]
    with _running(site, command, {}, port, "/readyz") as system:
        yield system


@contextlib.contextmanager
def plain(site: Site, origin_port: int) -> Iterator[System]:
    """`plain.py` on one Uvicorn process."""
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "uvicorn", "loadtests.compare.plain:app", "--port", str(port), "--no-access-log"]
    with _running(site, command, {"ORIGIN": f"http://127.0.0.1:{origin_port}"}, port, "/readyz") as system:
        yield system


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
    with _running(site, command, environment, port, "/health/liveliness") as system:
        yield system


@contextlib.contextmanager
def _running(
    site: Site, command: Sequence[str], environment: Mapping[str, str], port: int, path: str
) -> Iterator[System]:
    own = {**os.environ, "PYTHONPATH": str(REPOSITORY), **environment}
    with started(command, site.cores.gateway, site.gateway_log, own) as process:
        wait_until_answers(port, path, 200, process, site.gateway_log)
        yield System(port, process.pid, ALL)


PEERS: dict[str, tuple[str, Start]] = {
    "sluice": SYSTEMS["sluice"],
    "sluice-nginx": SYSTEMS["nginx"],
    "nginx": ("NGINX alone", nginx_alone),
    "plain": ("Uvicorn, StreamingResponse and httpx", plain),
    "litellm": ("LiteLLM proxy", litellm),
}


def versions(folder: Path = LITELLM.parent) -> str:
    """Of the peer that has its own environment."""
    found = sorted(folder.parent.glob("lib/python*/site-packages/litellm-*.dist-info"))
    return found[0].name.removesuffix(".dist-info").partition("-")[2] if found else "not installed"
