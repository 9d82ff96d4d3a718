"""NGINX as the settings want it: its addresses, its options, its configuration, its command line.

`python -m deploy.edge start` writes the configuration and becomes NGINX; `reload` has a running one read it anew. For
those who run it without `make run`: systemd.
"""

import math
import os
import pwd
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.capacity import capacity
from app.security.address import parse_networks
from app.settings import EDGE_STREAMS_MAX, Settings, SettingsError, load_settings
from app.timeouts import ledger
from deploy import listen, nginx_config, preflight
from deploy.nginx_build import look_at

# What server_name takes without a quote, except regular expressions; a wildcard is the first label or the last.
NAME = re.compile(r"\[[0-9a-fA-F:.]+\]|(\*\.|\.)?[\w-]+(\.[\w-]+)*|[\w-]+(\.[\w-]+)*\.\*")
NAME_CHARACTERS_MAX = 253
HOST = re.compile(r"[\w.-]+|[0-9a-fA-F]*:[0-9a-fA-F:]+")
ADDRESS = re.compile(r"([\w.-]+|\[[0-9a-fA-F:.]+\]):(\d{1,5})")
PORT_MAX = 65_535


@dataclass(frozen=True)
class Edge:
    """One NGINX. `prefix` is its folder, `sockets` are the workers'."""

    settings: Settings
    nginx: str
    prefix: Path
    ops_socket: Path
    sockets: Sequence[Path]

    @property
    def addresses(self) -> list[str]:
        """What it listens on by stream: host:port, or a Unix socket's path."""
        settings = self.settings
        ports = [settings.port, settings.tls_port] if settings.tls_certificate else [settings.port]
        found = [self._address(port) for port in ports]
        return [*found, str(self.ops_socket), *([settings.ops_bind] if settings.ops_bind else [])]

    @property
    def globals(self) -> str:
        """What its command line says."""
        # Root's NGINX would give its processes to `nobody`, who may not open the workers' sockets.
        user = f" user {pwd.getpwuid(0).pw_name};" if os.geteuid() == 0 else ""
        return f"daemon off;{user}"

    @property
    def command(self) -> list[str]:
        main = self.prefix / "nginx.conf"
        return [self.nginx, "-p", str(self.prefix), "-c", str(main), "-e", "stderr", "-g", self.globals]

    def prepare(self) -> None:
        """Writes its configuration, and has it look at that.

        Raises:
            Refused: it cannot be, and why.
            SettingsError: a setting cannot go into it.
        """
        settings, build = self.settings, look_at(self.nginx)
        if settings.tls_certificate and settings.tls_port == settings.port:
            raise SettingsError(f"SLUICE_TLS_PORT: is PORT already (both are {settings.port})")
        found = values(
            settings,
            listen=self._address(settings.port),
            sockets=self.sockets,
            ops_listen=[f"unix:{self.ops_socket}", *([settings.ops_bind] if settings.ops_bind else [])],
        )
        tls = settings.tls_certificate is not None
        options = nginx_config.options(hosts=bool(settings.server_names), tls=tls, http3=settings.http3)
        if settings.tls_certificate:
            if not settings.tls_key:
                raise preflight.Refused("SLUICE_TLS_KEY: missing, and SLUICE_TLS_CERTIFICATE is set", status=2)
            if settings.http3 and not build.http3:
                raise preflight.Refused(f"SLUICE_HTTP3: {self.nginx} was built without it", status=2)
            found |= nginx_config.tls_values(
                build,
                listen=self._address(settings.tls_port),
                port=settings.tls_port,
                certificate=settings.tls_certificate.resolve(),
                key=settings.tls_key.resolve(),
                chosen=options,
            )
        nginx_config.render(self.prefix, found, build, options)
        preflight.nginx_accepts(self.command)

    def _address(self, port: int) -> str:
        host = self.settings.host
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def values(settings: Settings, **placed: Any) -> dict[str, str]:
    """The templates' values that follow from the settings; `placed` are those that do from where it runs.

    Raises:
        SettingsError: one of them cannot go into NGINX's configuration.
    """
    for name in settings.server_names.split():
        if len(name) > NAME_CHARACTERS_MAX or not NAME.fullmatch(name):
            raise SettingsError(f"SLUICE_SERVER_NAMES: should be names of hosts ({name[:80]!r} is none)")
    if not HOST.fullmatch(settings.host):
        raise SettingsError(f"SLUICE_HOST: should be an address, without brackets or port (it is {settings.host!r})")
    address = ADDRESS.fullmatch(settings.ops_bind)
    if settings.ops_bind and (address is None or not 1 <= int(address[2]) <= PORT_MAX):
        raise SettingsError(f"SLUICE_OPS_BIND: should be host:port (it is {settings.ops_bind!r})")
    try:
        parse_networks(settings.trusted_proxies)
    except ValueError as error:
        raise SettingsError(f"SLUICE_TRUSTED_PROXIES: {error}") from None
    return nginx_config.values(
        waits=ledger() | settings.derived_waits(),
        streams_max=settings.edge_streams_max or streams_max(settings),
        client_streams_max=settings.client_streams_max,
        client_requests_per_second=settings.client_requests_per_second,
        server_names=settings.server_names,
        proxies=[part.strip() for part in settings.trusted_proxies.split(",") if part.strip()],
        **placed,
    )


def streams_max(settings: Settings) -> int:
    """What NGINX lets through where nothing was said: what the workers admit, times what capacity.json says, as far as
    NGINX counts."""
    found = capacity()
    factor = found.nginx_streams_max / (found.admission_streams_per_worker * found.workers_per_pod)
    return min(EDGE_STREAMS_MAX, math.ceil(factor * settings.streams_max * settings.workers))


def url(settings: Settings) -> str:
    """Where a person on this machine finds it."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)  # noqa: S104 - looked for, not bound
    if settings.tls_certificate:
        return f"https://{host}:{settings.tls_port}"
    return f"http://{host}:{settings.port}"


def main(verb: str) -> None:
    """Write the configuration, and become NGINX or tell the one that runs."""
    try:
        settings = load_settings()
        run_dir = settings.socket_dir or settings.state_dir.absolute() / "run"
        sockets = [run_dir / f"worker-{slot}.sock" for slot in range(1, settings.workers + 1)]
        prefix = settings.state_dir.absolute() / "nginx"
        edge = Edge(settings, preflight.find_nginx(), prefix, run_dir / "ops.sock", sockets)
        edge.prepare()
        if verb == "reload":
            os.execv(edge.nginx, [*edge.command, "-s", "reload"])
        listen.main(*edge.addresses, "--", *edge.command)
    except (SettingsError, preflight.Refused, OSError) as error:
        sys.exit(f"sluice: {error}")


if __name__ == "__main__":
    if sys.argv[1:] not in (["start"], ["reload"]):
        sys.exit("usage: python -m deploy.edge start|reload")
    main(sys.argv[1])
