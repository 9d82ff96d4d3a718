"""Writes the ledger's numbers into the files that can only hold a number, and the operators' table of nginx/README.md.

`python -m scripts.timeouts_reference`; with `--check`, only says what is not up to date.
"""

import re
import sys
from pathlib import Path
from typing import NamedTuple

import yaml

from app.timeouts import AROUND, INEQUALITIES, LEDGER, check, ledger
from scripts.regions import HOME, main, table

DOCUMENT = "nginx/README.md"


class Place(NamedTuple):
    """A number in files: `pattern` has a group before it and one behind it. `wait` is its name in the ledger."""

    wait: str
    files: str
    pattern: str

    def found(self, home: Path = HOME) -> list[tuple[Path, str]]:
        """Where it stands, and with which number."""
        found = []
        for path in sorted(home.glob(self.files)):
            numbers = re.finditer(self._expression(), path.read_text(encoding="utf-8"), re.MULTILINE)
            found += [(path, match["number"]) for match in numbers]
        return found

    def written(self, text: str) -> str:
        """`text` with the ledger's number."""
        return re.sub(self._expression(), rf"\g<before>{ledger()[self.wait]:g}\g<after>", text, flags=re.MULTILINE)

    def _expression(self) -> str:
        before, after = self.pattern.split("#")
        return rf"(?P<before>{before})(?P<number>\d+(?:\.\d+)?)(?P<after>{after})"


def directive(wait: str, name: str, file: str = "nginx/snippets/timeouts.conf") -> Place:
    return Place(wait, file, rf"^\s*{name} #s;")


PLACES = (
    directive("nginx_client_header_seconds", "client_header_timeout"),
    directive("nginx_client_body_seconds", "client_body_timeout"),
    directive("nginx_send_seconds", "send_timeout"),
    directive("nginx_lingering_seconds", "lingering_timeout"),
    directive("nginx_client_keepalive_seconds", "keepalive_timeout"),
    directive("nginx_connect_seconds", "proxy_connect_timeout"),
    directive("nginx_search_seconds", "proxy_next_upstream_timeout"),
    directive("nginx_request_seconds", "proxy_send_timeout"),
    directive("nginx_keepalive_min_seconds", "keepalive_min_timeout", "nginx/versions/http-*-keepalive.conf"),
    Place("nginx_stop_seconds", "deploy/supervisord.conf", r"stopsignal=QUIT\nstopwaitsecs=#$"),
    Place("exporter_stop_seconds", "deploy/supervisord.conf", r"stopsignal=TERM\nstopwaitsecs=#$"),
    Place("gunicorn_stop_seconds", "deploy/systemd/sluice.service", r"^TimeoutStopSec=#$"),
    Place("nginx_stop_seconds", "deploy/systemd/sluice-nginx.service", r"^TimeoutStopSec=#$"),
    Place("exporter_stop_seconds", "deploy/systemd/sluice-exporter.service", r"^TimeoutStopSec=#$"),
    Place("pod_grace_seconds", "k8s/base/*.yaml", r"^\s*terminationGracePeriodSeconds: #\b"),
    *(
        Place(wait, "deploy/compose.yaml", rf"^\s*stop_grace_period: #s  . {wait}$")
        for wait in ("gunicorn_stop_seconds", "nginx_stop_seconds", "exporter_stop_seconds")
    ),
    Place("trace_decision_seconds", "deploy/otel/*.yaml", r"^\s*decision_wait: #s\b"),
)


def write_numbers(*, check_only: bool) -> int:
    """The ledger's numbers into all places; the exit code is 1 if `check_only` finds another one."""
    old = 0
    for place in PLACES:
        for path in sorted({path for path, _ in place.found()}):
            before = path.read_text(encoding="utf-8")
            after = place.written(before)
            if before == after:
                continue
            old = 1
            if check_only:
                print(
                    f"{path.relative_to(HOME)}: {place.wait} is another in {LEDGER.name}; run `make generate`",
                    file=sys.stderr,
                )
            else:
                path.write_text(after, encoding="utf-8")
    return old if check_only else 0


def waits_table() -> str:
    entries = yaml.safe_load(LEDGER.read_text(encoding="utf-8"))
    rows = [
        [f"`{name}`", f"{entry['seconds']:g} s", entry["meaning"], entry["reason"], _where(name)]
        for name, entry in entries.items()
    ]
    return table(["wait", "is", "meaning", "why this long", "written in"], rows)


def _where(wait: str) -> str:
    files = {str(path.relative_to(HOME)) for place in PLACES if place.wait == wait for path, _ in place.found()}
    return ", ".join(f"`{name}`" for name in sorted(files))


def inequalities_table() -> str:
    rows = [
        [f"`{shorter}` < `{longer}`", otherwise] for (shorter, _), (longer, _), otherwise in (*INEQUALITIES, *AROUND)
    ]
    return table(["must hold", "else"], rows)


def regions() -> dict[str, str]:
    return {"waits": waits_table(), "inequalities": inequalities_table()}


def run() -> int:
    check({})
    check({}, AROUND)
    return max(write_numbers(check_only="--check" in sys.argv[1:]), main(DOCUMENT, regions()))


if __name__ == "__main__":
    sys.exit(run())
