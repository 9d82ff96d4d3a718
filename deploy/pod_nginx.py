"""Writes NGINX's configuration for a pod, before NGINX starts there.

`python -m deploy.pod_nginx SOURCE PREFIX LISTEN [VERSION]`: SOURCE is nginx/ as a ConfigMap carries it; PREFIX is a
folder that both containers see; VERSION is NGINX's, if its image is not deploy/Dockerfile's own. The settings are those
of the app's container: so one WORKERS gives Gunicorn its workers and NGINX their sockets, and no wait differs.
"""

import sys
from dataclasses import replace
from pathlib import Path

from app.settings import Settings, SettingsError, load_settings
from deploy import edge, nginx_config
from deploy.nginx_build import Build

# Of the image that deploy/Dockerfile begins with. TLS ends before the pod, so its OpenSSL decides nothing.
IMAGE = Build(version=(1, 30, 4), openssl=(3, 0), http3=True)


def write(settings: Settings, source: Path, prefix: Path, listen: str, build: Build = IMAGE) -> None:
    """Writes the configuration below `prefix`."""
    if settings.socket_dir is None:
        raise SettingsError("SLUICE_SOCKET_DIR: should be the folder that NGINX shares with the app")
    values = edge.values(
        settings,
        listen=listen,
        sockets=[settings.socket_dir / f"worker-{slot}.sock" for slot in range(1, settings.workers + 1)],
        ops_listen=[f"unix:{settings.socket_dir / 'ops.sock'}", *([settings.ops_bind] if settings.ops_bind else [])],
        # The kubelet keeps what containers write to their output, and rotates it.
        access_log="/dev/stdout",
        error_log="/dev/stderr",
        # A container sees all cores of its node; as many processes as workers is what was asked for.
        processes=str(settings.workers),
    )
    options = nginx_config.options(hosts=bool(settings.server_names), tls=False, http3=False)
    nginx_config.render(prefix, values, build, options, source)


def main(source: str, prefix: str, listen: str, version: str | None = None) -> None:
    try:
        number = tuple(int(part) for part in version.split(".")) if version else IMAGE.version
        write(load_settings(), Path(source), Path(prefix), listen, replace(IMAGE, version=number))
    except (SettingsError, OSError, ValueError) as error:
        sys.exit(f"sluice: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
