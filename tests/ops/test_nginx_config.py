"""What NGINX's configuration must say, and must never say, as it is rendered for `make run`."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from app.timeouts import ledger
from deploy import nginx_config
from tests.support.nginx_conf import Directive, load

HOME = Path(__file__).resolve().parents[2]
NOBODY = 65_534

STREAMS = ["/api", "/v1", "/api/v1/ws/", "/v1/messages"]
WHOLE = ["/", "/livez", "/readyz"]


def render(prefix: Path, *, workers: int = 4, waits: Mapping[str, float] | None = None) -> Path:
    sockets = [prefix / f"worker-{slot}.sock" for slot in range(1, workers + 1)]
    values = nginx_config.values(listen="127.0.0.1:8080", sockets=sockets, waits=waits or ledger())
    return nginx_config.render(prefix, values)


@pytest.fixture
def prefix() -> Iterator[Path]:
    """A folder that an ordinary user may reach, which pytest's are not when root runs it."""
    with tempfile.TemporaryDirectory(prefix="sluice-nginx-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture
def conf(prefix: Path) -> Directive:
    return load(render(prefix))


@pytest.fixture
def http(conf: Directive) -> Directive:
    (block,) = [directive for directive in conf.block if directive.name == "http"]
    return block


@pytest.fixture
def locations(http: Directive) -> dict[str, Directive]:
    (server,) = [directive for directive in http.block if directive.name == "server"]
    return {directive.args[-1]: directive for directive in server.block if directive.name == "location"}


@pytest.fixture
def upstream(http: Directive) -> Directive:
    (block,) = [directive for directive in http.block if directive.name == "upstream"]
    return block


def check(prefix: Path, user: int | None) -> subprocess.CompletedProcess[str]:
    nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/local/sbin:/usr/sbin")
    assert nginx, "nginx is missing"
    command = [nginx, "-p", str(prefix), "-c", str(prefix / "nginx.conf"), "-e", "stderr", "-g", "daemon off;", "-t"]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, user=user)


# Only root can become somebody else; anybody else is an ordinary user already.
@pytest.mark.parametrize("user", [None, NOBODY] if os.geteuid() == 0 else [None])
def test_nginx_accepts_it_without_a_warning(prefix: Path, user: int | None) -> None:
    if user is not None:
        os.chown(prefix, user, user)
    render(prefix)
    result = check(prefix, user)
    assert result.returncode == 0, result.stderr
    assert "warn" not in result.stderr
    assert "alert" not in result.stderr


def test_nginx_accepts_as_many_workers_as_the_settings_allow(prefix: Path) -> None:
    render(prefix, workers=256)
    result = check(prefix, None)
    assert result.returncode == 0, result.stderr


def test_nothing_forbidden_is_said(conf: Directive) -> None:
    forbidden = {
        "chunked_transfer_encoding": "half an answer would look like a whole one",
        "stub_status": "not for the public",
        "if": "does not do what it seems to",
        "rewrite": "captures had memory faults",
    }
    for directive in conf.walk():
        assert directive.name not in forbidden, forbidden[directive.name]
        assert "non_idempotent" not in directive.args, "a POST would run twice"
        assert (directive.name, directive.args) != ("proxy_ignore_client_abort", ["on"])
        assert (directive.name, directive.args) != ("proxy_intercept_errors", ["on"])
        if directive.name in ("location", "map"):
            assert not any(arg.startswith("~") for arg in directive.args)
        if directive.name == "map":
            assert not any(case.name.startswith("~") for case in directive.block), "memory faults with expressions"


def test_every_location_that_is_proxied_is_known_here(locations: dict[str, Directive]) -> None:
    proxied = {path for path, location in locations.items() if location.all("proxy_pass")}
    assert proxied == {*STREAMS, *WHOLE}


@pytest.mark.parametrize("path", [*STREAMS, *WHOLE])
def test_a_proxied_location_has_all_that_each_needs(locations: dict[str, Directive], path: str) -> None:
    location = locations[path]
    assert location.one("proxy_pass") == "http://sluice_workers"
    assert location.one("proxy_http_version") == "1.1"
    assert location.one("proxy_next_upstream") == "error timeout"
    assert location.one("proxy_next_upstream_tries") == "0"
    assert location.one("proxy_next_upstream_timeout") == "2s"
    assert location.one("proxy_connect_timeout") == "2s"
    assert location.one("proxy_request_buffering") == "on"
    assert location.one("proxy_ignore_client_abort") == "off"
    assert location.one("proxy_intercept_errors") == "off"
    headers = {args[0]: args[1] for args in location.all("proxy_set_header")}
    assert headers["X-Forwarded-For"] == "$remote_addr"
    assert headers["X-Real-IP"] == "$remote_addr"
    assert headers["X-Request-ID"] == "$sluice_request_id"
    assert headers["Connection"] == ("$sluice_connection" if "/ws/" in path else "")
    assert len(headers) == len(location.all("proxy_set_header")), "a header twice"


@pytest.mark.parametrize("path", STREAMS)
def test_a_stream_is_not_held_back(locations: dict[str, Directive], path: str) -> None:
    location = locations[path]
    assert location.one("proxy_buffering") == "off"
    assert location.one("proxy_cache") == "off"
    assert location.all("gzip") in ([], [["off"]])


@pytest.mark.parametrize("path", WHOLE)
def test_a_whole_answer_never_fills_the_disk(locations: dict[str, Directive], path: str) -> None:
    assert locations[path].one("proxy_buffering") == "on"
    assert locations[path].one("proxy_max_temp_file_size") == "0"


@pytest.mark.parametrize("path", [*STREAMS, *WHOLE])
def test_a_worker_that_is_gone_is_a_503_in_the_surface_s_shape(locations: dict[str, Directive], path: str) -> None:
    # The native page is chosen by a map, which has another one for a browser's EventSource.
    named = {"/v1": "@error_openai", "/v1/messages": "@error_anthropic"}
    page = ["=503", named[path]] if path in named else ["=", "$sluice_unavailable_page"]
    assert ["502", "503", "504", *page] in locations[path].all("error_page")
    assert {"@error_native", *named.values(), "@unavailable", "@unavailable_events"} <= locations.keys()


def test_nothing_is_compressed_anywhere(http: Directive) -> None:
    assert http.one("gzip") == "off"


def test_workers_are_told_apart_and_none_is_ever_shut_out(upstream: Directive, prefix: Path) -> None:
    assert upstream.all("server") == [[f"unix:{prefix}/worker-{slot}.sock", "max_fails=0"] for slot in (1, 2, 3, 4)]
    names = [directive.name for directive in upstream.block]
    assert "zone" in names
    assert names.index("least_conn") < names.index("keepalive")


def test_the_waits_are_those_of_the_ledger(prefix: Path) -> None:
    """That NGINX waits longer than a silent answer takes, and closes first, is checked there."""
    waits = ledger() | {"nginx_read_seconds": 1234, "nginx_upstream_keepalive_seconds": 12}
    main = load(render(prefix, waits=waits))
    (http,) = [directive for directive in main.block if directive.name == "http"]
    (upstream,) = [directive for directive in http.block if directive.name == "upstream"]
    assert http.one("proxy_read_timeout") == "1234s"
    assert upstream.one("keepalive_timeout") == "12s"


def test_no_location_has_a_wait_of_its_own_for_workers(locations: dict[str, Directive]) -> None:
    assert not any(location.all("proxy_read_timeout") for location in locations.values())


def test_after_a_reload_old_processes_outlive_the_longest_stream(conf: Directive) -> None:
    assert seconds(conf.one("worker_shutdown_timeout")) > ledger()["stream_seconds_max"] + 5


def test_nginx_cuts_a_stuck_reader_only_after_the_app_had_its_turn(http: Directive) -> None:
    assert seconds(http.one("send_timeout")) > ledger()["send_seconds"]


def test_a_process_may_open_twice_its_connections(conf: Directive) -> None:
    (events,) = [directive for directive in conf.block if directive.name == "events"]
    assert int(conf.one("worker_rlimit_nofile")) >= 2 * int(events.one("worker_connections"))


def test_everything_is_written_below_the_prefix(conf: Directive, http: Directive) -> None:
    written = [
        "error_log",
        "pid",
        *(f"{kind}_temp_path" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")),
    ]
    for name in written:
        assert not (conf.all(name) or http.all(name))[0][0].startswith("/")
    assert not http.one("access_log").startswith("/")


def test_the_log_line_is_escaped_and_holds_no_query(http: Directive) -> None:
    (log_format,) = http.all("log_format")
    assert log_format[1] == "escape=json"
    variables = set(re.findall(r"\$(\w+)", "".join(log_format[2:])))
    assert variables.isdisjoint(
        {"request", "request_uri", "args", "query_string", "http_authorization", "http_referer"}
    )


def test_templates_leave_no_variable_to_a_template_engine() -> None:
    for template in (HOME / "nginx/templates").glob("*.template"):
        text = template.read_text()
        names = set(nginx_config.PLACEHOLDER.findall(text))
        assert names <= nginx_config.values(listen="", sockets=[], waits=ledger()).keys()
        assert "$" not in nginx_config.PLACEHOLDER.sub("", text), f"{template.name}: envsubst could take it"


def test_a_placeholder_without_a_value_is_an_error() -> None:
    with pytest.raises(KeyError):
        nginx_config.fill_in("listen ${SLUICE_UNKNOWN};", {})


def seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+)s", text)
    assert match, text
    return float(match[1])
