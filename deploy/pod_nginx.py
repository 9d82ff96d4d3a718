"""Writes NGINX's configuration for a pod, before NGINX starts there: `python -m deploy.pod_nginx SOURCE PREFIX`.

SOURCE is nginx/ as a ConfigMap carries it; PREFIX is a folder that both containers see. The settings are those of the
app's container: so one WORKERS gives Gunicorn its workers and NGINX their sockets, and no wait differs between the two.
"""

import sys
from pathlib import Path

from app.settings import Settings, SettingsError, load_settings
from app.timeouts import ledger
from deploy import nginx_config

# The kubelet keeps what containers write to their output, and rotates it.
OUTPUTS = {"access.log": "/dev/stdout", "error.log": "/dev/stderr"}
# A container sees all cores of its node; as many processes as workers is what was asked for.
PROCESSES = "worker_processes auto;"


def write(settings: Settings, source: Path, prefix: Path, listen: str) -> None:
    """Writes the configuration below `prefix`."""
    if settings.socket_dir is None:
        raise SettingsError("SLUICE_SOCKET_DIR: should be the folder that NGINX shares with the app")
    sockets = [settings.socket_dir / f"worker-{slot}.sock" for slot in range(1, settings.workers + 1)]
    values = nginx_config.values(listen=listen, sockets=sockets, waits=ledger() | settings.derived_waits())
    main = nginx_config.render(prefix, values, source)
    text = main.read_text()
    if PROCESSES not in text:
        raise SettingsError(f"{main}: should have {PROCESSES!r}, in whose place the number of WORKERS is put")
    main.write_text(text.replace(PROCESSES, f"worker_processes {settings.workers};"))
    for name, output in OUTPUTS.items():
        link = prefix / name
        link.unlink(missing_ok=True)
        link.symlink_to(output)


def main(source: str, prefix: str, listen: str) -> None:
    try:
        write(load_settings(), Path(source), Path(prefix), listen)
    except (SettingsError, OSError) as error:
        sys.exit(f"sluice: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
