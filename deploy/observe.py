"""`make observe`: Prometheus and Alertmanager with our rules, beside a running Sluice, in the foreground.

Run as `python -m deploy.observe`. Ctrl-C stops both. What they write stays in the state folder, so that the next run
goes on with it. Dashboards need Grafana, which Debian does not have: the compose stack brings it.
"""

import argparse
import http.client
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from app.settings import SettingsError, load_settings
from deploy import preflight, processes
from deploy.instance import HOME, Failed
from deploy.preflight import Refused

SOURCE = HOME / "deploy" / "prometheus"
READY_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 15.0
POLL_SECONDS = 0.2
# Of a developer's disk: about a month of one Sluice.
STORE_BYTES_MAX = "512MB"

READY = """
observing http://{target}/metrics

  http://{prometheus}         Prometheus: figures, and rules at /alerts
  http://{alertmanager}         Alertmanager: what would be sent

Ctrl-C stops both; what they saw stays in {state}.
"""


@dataclass(frozen=True)
class Program:
    """One of the two, and where it says that it is ready."""

    name: str
    command: list[str]
    address: str


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make observe", description="Observe a running Sluice.")
    parser.add_argument("--prometheus", default="127.0.0.1:9090", metavar="HOST:PORT", help="where Prometheus listens")
    parser.add_argument("--alertmanager", default="127.0.0.1:9093", metavar="HOST:PORT", help="where Alertmanager does")
    parser.add_argument(
        "--scrape-seconds", type=int, default=5, metavar="N", help="between two scrapes and evaluations"
    )
    return parser.parse_args()


def configuration(target: str, prometheus: str, alertmanager: str, scrape_seconds: int) -> dict[str, Any]:
    """That of the compose stack, with the addresses of this machine."""
    made: dict[str, Any] = yaml.safe_load((SOURCE / "prometheus.yaml").read_text())
    every = f"{scrape_seconds}s"
    made["global"] = {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every}
    made["rule_files"] = [str(SOURCE / "rules" / "*.yaml")]
    made["alerting"]["alertmanagers"] = [{"static_configs": [{"targets": [alertmanager]}]}]
    addresses = {"sluice": target, "prometheus": prometheus}
    for job in made["scrape_configs"]:
        job["static_configs"] = [{"targets": [addresses[job["job_name"]]]}]
    return made


def programs(target: str, chosen: argparse.Namespace, state: Path) -> list[Program]:
    """Both, with their configuration written; Alertmanager first, which the other one calls."""
    state.mkdir(parents=True, exist_ok=True)
    config = state / "prometheus.yaml"
    config.write_text(
        yaml.safe_dump(configuration(target, chosen.prometheus, chosen.alertmanager, chosen.scrape_seconds))
    )
    alertmanager = [
        preflight.find_program("prometheus-alertmanager", "prometheus-alertmanager"),
        f"--config.file={SOURCE / 'alertmanager.yaml'}",
        f"--storage.path={state / 'alertmanager'}",
        f"--web.listen-address={chosen.alertmanager}",
        "--cluster.listen-address=",  # alone; by default it listens to the whole network for others
        "--log.level=warn",
    ]
    prometheus = [
        preflight.find_program("prometheus", "prometheus"),
        f"--config.file={config}",
        f"--storage.tsdb.path={state / 'prometheus'}",
        f"--storage.tsdb.retention.size={STORE_BYTES_MAX}",
        f"--web.listen-address={chosen.prometheus}",
        f"--web.user-assets={HOME / 'deploy' / 'runbooks'}",  # so that an alert's link opens its runbook
        "--log.level=warn",
    ]
    return [
        Program("alertmanager", alertmanager, chosen.alertmanager),
        Program("prometheus", prometheus, chosen.prometheus),
    ]


def is_ready(address: str) -> bool:
    try:
        connection = http.client.HTTPConnection(address, timeout=1)
        connection.request("GET", "/-/ready")
        status = connection.getresponse().status
        connection.close()
    except (OSError, http.client.HTTPException):
        return False
    return status == http.client.OK


def run(started: list[Program], ready: str, stop: threading.Event) -> None:
    """Until `stop`.

    Raises:
        Failed: one of them ended, or is not ready in time.
    """
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for program in started:
            running[program.name] = subprocess.Popen(
                program.command,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C reaches us alone
                preexec_fn=processes.die_with_parent(),  # noqa: PLW1509 - no thread runs yet
            )
        deadline = time.monotonic() + READY_SECONDS_MAX
        said = False
        while not stop.is_set():
            for name, process in running.items():
                if process.poll() is not None:
                    raise Failed(f"{name} ended with {process.returncode}; its own words are above")
            if not said and all(is_ready(program.address) for program in started):
                print(ready, flush=True)
                said = True
            if not said and time.monotonic() > deadline:
                raise Failed(f"not ready after {READY_SECONDS_MAX:g} s")
            stop.wait(POLL_SECONDS)
    finally:
        _end(list(running.values()))


def _end(running: list[subprocess.Popen[bytes]]) -> None:
    for process in running:
        process.terminate()
    deadline = time.monotonic() + STOP_SECONDS_MAX
    for process in running:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def main() -> None:
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    chosen = arguments()
    try:
        settings = load_settings()
    except SettingsError as error:
        raise Refused(str(error), status=2) from None
    for option in ("prometheus", "alertmanager"):
        host, port = preflight.split_address(f"--{option}", getattr(chosen, option))
        preflight.port_is_free(f"--{option}", host, port, f'make observe ARGS="--{option} {host}:{port % 65_535 + 1}"')
    state = settings.state_dir.resolve() / "observe"
    words = READY.format(
        target=settings.metrics_bind, prometheus=chosen.prometheus, alertmanager=chosen.alertmanager, state=state
    )
    run(programs(settings.metrics_bind, chosen, state), words, stop)


if __name__ == "__main__":
    try:
        main()
    except Refused as refused:
        print(f"sluice: {refused}", file=sys.stderr)
        sys.exit(refused.status)
    except Failed as failed:
        print(f"sluice: {failed}", file=sys.stderr)
        sys.exit(1)
