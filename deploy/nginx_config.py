"""Renders nginx/ into a prefix: copies the files and fills in the templates, as the official image's envsubst would."""

import math
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from deploy.nginx_build import Build

SOURCE = Path(__file__).resolve().parent.parent / "nginx"
PLACEHOLDER = re.compile(r"\$\{(\w+)\}")

# How many seconds' worth of requests a client may begin at once.
BURST_SECONDS = 2


def values(
    *,
    listen: str,
    sockets: Sequence[Path],
    waits: Mapping[str, float],
    streams_max: int,
    client_streams_max: int | None = None,
    client_requests_per_second: int = 1000,
    ops_listen: Iterable[str] = (),
    server_names: str = "",
    proxies: Iterable[str] = (),
    access_log: str = "access.log",
    error_log: str = "error.log",
    error_log_level: str = "alert",
    processes: str = "auto",
) -> dict[str, str]:
    """The templates' values for one deployment. `waits` has the names of deploy/timeouts.yaml."""
    return {
        "SLUICE_LISTEN": listen,
        "SLUICE_OPS_LISTEN": "\n".join(f'listen "{address}";' for address in ops_listen),
        "SLUICE_SERVER_NAMES": server_names or "_",
        "SLUICE_SET_REAL_IP_FROM": "\n".join(f"set_real_ip_from {network};" for network in proxies),
        "SLUICE_UPSTREAM_SERVERS": "\n    ".join(f'server "unix:{path}" max_fails=0;' for path in sockets),
        "SLUICE_NGINX_READ_SECONDS": str(math.ceil(waits["nginx_read_seconds"])),
        "SLUICE_NGINX_SHUTDOWN_SECONDS": str(math.ceil(waits["nginx_shutdown_seconds"])),
        "SLUICE_NGINX_UPSTREAM_KEEPALIVE_SECONDS": str(int(waits["nginx_upstream_keepalive_seconds"])),
        "SLUICE_EDGE_STREAMS_MAX": str(streams_max),
        "SLUICE_CLIENT_STREAMS_MAX": str(client_streams_max or streams_max),
        "SLUICE_CLIENT_REQUESTS_PER_SECOND": str(client_requests_per_second),
        "SLUICE_CLIENT_REQUESTS_BURST": str(client_requests_per_second * BURST_SECONDS),
        "SLUICE_NGINX_PROCESSES": processes,
        "SLUICE_ACCESS_LOG": access_log,
        "SLUICE_ERROR_LOG": error_log,
        "SLUICE_ERROR_LOG_LEVEL": error_log_level,
    }


def tls_values(
    build: Build,
    *,
    listen: str,
    port: int,
    certificate: Path,
    key: Path,
    chosen: Iterable[str] = (),
    public_port: int | None = None,
) -> dict[str, str]:
    """What `tls`, `http3` and those two with hosts need besides.

    Args:
        listen: address and port, without parameters.
        port: where `listen` has it, and where clients find it unless `public_port` says otherwise.
    """
    known = public_port or port
    return {
        "SLUICE_LISTEN_TLS": f"{listen} ssl{'' if build.version >= (1, 25, 1) else ' http2'}",
        "SLUICE_LISTEN_HTTP3": listen,
        "SLUICE_TLS_CERTIFICATE": f'"{certificate}"',
        "SLUICE_TLS_KEY": f'"{key}"',
        "SLUICE_TLS_PORT": "" if known == 443 else f":{known}",
        "SLUICE_HTTP3_PORT": str(known),
        "SLUICE_HTTP3_DEFAULT": "" if "http3-hosts" in chosen else "default_server",
    }


def fill_in(template: str, values: Mapping[str, str]) -> str:
    """`template` with each `${NAME}` replaced; a name without a value is a KeyError, never an empty string."""
    return PLACEHOLDER.sub(lambda match: values[match[1]], template)


def templates(chosen: Iterable[str] = (), source: Path = SOURCE) -> dict[str, Path]:
    """Those of a deployment by the name of what they become: an option's takes the place of another of its name."""
    found: dict[str, Path] = {}
    for folder in (source / "templates", *(source / "options" / option for option in chosen)):
        assert folder.is_dir(), folder
        found |= {path.stem: path for path in sorted(folder.glob("*.template"))}
    return found


def options(*, hosts: bool, tls: bool, http3: bool) -> list[str]:
    """Folders of nginx/options for what is wanted."""
    found = [name for name, wanted in (("hosts", hosts), ("tls", tls), ("http3", tls and http3)) if wanted]
    return found + [f"{name}-hosts" for name in found if hosts and name != "hosts"]


def render(
    prefix: Path, values: Mapping[str, str], build: Build, chosen: Iterable[str] = (), source: Path = SOURCE
) -> Path:
    """Writes the configuration into `prefix`, replacing an earlier one, and returns the main file."""
    prefix.mkdir(parents=True, exist_ok=True)
    for folder in ("conf.d", "snippets", "values", "versions"):
        shutil.rmtree(prefix / folder, ignore_errors=True)
    for folder in ("conf.d", "snippets"):
        shutil.copytree(source / folder, prefix / folder)
    (prefix / "values").mkdir()
    for name, template in templates(chosen, source).items():
        (prefix / "values" / name).write_text(fill_in(template.read_text(), values))
    (prefix / "versions").mkdir()
    for path in sorted((source / "versions").glob("*.conf")):
        if build.fits(path.stem):
            shutil.copy(path, prefix / "versions")
    return Path(shutil.copy(source / "nginx.conf", prefix / "nginx.conf"))
