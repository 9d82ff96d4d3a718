"""Writes NGINX's configuration for a pod, before NGINX starts there: `python -m deploy.pod_nginx SOURCE PREFIX`.

SOURCE is nginx/ as a ConfigMap carries it; PREFIX is a folder that both containers see. The settings are those of the
app's container: so one WORKERS gives Gunicorn its workers and NGINX their sockets, and no wait differs between the two.
"""

import sys
from pathlib import Path

from app.settings import Settings, SettingsError, load_settings
from deploy import edge, nginx_config
from deploy.nginx_build import Build

# Of the image that deploy/Dockerfile begins with. TLS ends before the pod, so its OpenSSL decides nothing.
IMAGE = Build(version=(1, 30, 4), openssl=(3, 0), http3=True)
# For whoever asks from within the pod, besides the exporter, which has the Unix socket.
OPS = "127.0.0.1:8081"


def write(settings: Settings, source: Path, prefix: Path, listen: str) -> None:
    """Writes the configuration below `prefix`."""
    if settings.socket_dir is None:
        raise SettingsError("SLUICE_SOCKET_DIR: should be the folder that NGINX shares with the app")
    values = edge.values(
        settings,
        listen=listen,
        sockets=[settings.socket_dir / f"worker-{slot}.sock" for slot in range(1, settings.workers + 1)],
        ops_listen=[f"unix:{settings.socket_dir / 'ops.sock'}", OPS],
        # The kubelet keeps what containers write to their output, and rotates it.
        access_log="/dev/stdout",
        error_log="/dev/stderr",
        # A container sees all cores of its node; as many processes as workers is what was asked for.
        processes=str(settings.workers),
    )
    options = nginx_config.options(hosts=bool(settings.server_names), tls=False, http3=False)
    nginx_config.render(prefix, values, IMAGE, options, source)


def main(source: str, prefix: str, listen: str) -> None:
    try:
        write(load_settings(), Path(source), Path(prefix), listen)
    except (SettingsError, OSError) as error:
        sys.exit(f"sluice: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
