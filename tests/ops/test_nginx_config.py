"""What NGINX's configuration must say, and must never say, in every way that it can be rendered."""

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.capacity import capacity
from app.settings import Settings
from app.timeouts import ledger
from deploy import edge, nginx_config, pod_nginx
from deploy.nginx_build import Build, look_at
from tests.support.certificate import Certificate
from tests.support.nginx_builds import EVERY_BUILD, build_named
from tests.support.nginx_conf import Directive, load, locations, server

HOME = Path(__file__).resolve().parents[2]
NOBODY = 65_534
LISTEN, LISTEN_TLS, LISTEN_OPS = "127.0.0.1:8080", "127.0.0.1:8443", "127.0.0.1:8081"
DEBIAN_12 = Build(version=(1, 22, 1), openssl=(3, 0, 19), http3=False)
NEWEST = Build(version=(1, 30, 6), openssl=(3, 6, 5), http3=True)

STREAMS = ["/api", "/v1", "/v1/messages"]
SOCKETS = ["/api/v1/ws/", "/api/v2/ws/", "/ws/"]
WHOLE = ["/", "= /health", "= /livez", "= /readyz"]
LIMITED = [*STREAMS, *SOCKETS]
# Ways to deploy it: what they serve by TLS, and whether for some hosts alone.
WAYS = [(hosts, tls) for hosts in (False, True) for tls in (False, True)]


def render(prefix: Path, build: Build = DEBIAN_12, *, hosts: bool = False, tls: bool = False, **config: Any) -> Path:
    """With HTTP/3 wherever there can be."""
    options = nginx_config.options(hosts=hosts, tls=tls, http3=build.http3)
    given: dict[str, Any] = {
        "listen": LISTEN,
        "sockets": [prefix / f"worker-{slot}.sock" for slot in (1, 2, 3, 4)],
        "waits": ledger(),
        "streams_max": 960,
        "client_streams_max": 40,
        "ops_listen": [LISTEN_OPS],
        "server_names": "api.example" if hosts else "",
        "proxies": ["10.0.0.0/8", "unix:"],
    }
    values = nginx_config.values(**given | config)
    if tls:
        certificate = Certificate.of(prefix)
        values |= nginx_config.tls_values(
            build, listen=LISTEN_TLS, port=8443, certificate=certificate.chain, key=certificate.key, chosen=options
        )
    return nginx_config.render(prefix, values, build, options)


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
    return conf.only("http")


@pytest.fixture
def routes(conf: Directive) -> dict[str, Directive]:
    return locations(server(conf, LISTEN))


@pytest.fixture
def upstream(http: Directive) -> Directive:
    return http.only("upstream")


def check(nginx: str, prefix: Path, user: int | None = None) -> str:
    """What it says of the configuration, which it takes."""
    command = [nginx, "-p", str(prefix), "-c", str(prefix / "nginx.conf"), "-e", "stderr", "-g", "daemon off;", "-t"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, user=user)
    assert result.returncode == 0, result.stderr
    return result.stderr


@EVERY_BUILD
@pytest.mark.parametrize(("hosts", "tls"), WAYS)
def test_nginx_accepts_it_without_a_warning(prefix: Path, nginx: str, hosts: bool, tls: bool) -> None:
    program = build_named(nginx)
    render(prefix, look_at(program), hosts=hosts, tls=tls)
    said = check(program, prefix)
    assert "warn" not in said
    assert "alert" not in said


def test_the_newer_nginx_is_one_that_differs() -> None:
    """Versions at which a file of nginx/versions/ begins to hold, and which have HTTP/3."""
    build = look_at(build_named("newer"))
    assert build.version >= (1, 30)
    assert build.http3


def test_the_image_s_build_is_that_of_its_tag() -> None:
    """The tag decides which files of nginx/versions/ a pod gets, and nobody asks the image at build time."""
    tag = re.search(r"^ARG NGINX_IMAGE=\S+?:([\d.]+)(@\S+)?$", (HOME / "deploy/Dockerfile").read_text(), re.MULTILINE)
    assert tag is not None
    assert tuple(int(part) for part in tag[1].split(".")) == pod_nginx.IMAGE.version


def test_nginx_accepts_what_a_pod_writes(prefix: Path) -> None:
    settings = Settings(socket_dir=prefix, workers=3)
    pod_nginx.write(settings, HOME / "nginx", prefix, "127.0.0.1:8080")
    conf = load(prefix / "nginx.conf")
    assert conf.one("worker_processes") == "3"
    assert conf.only("http").one("access_log") == "/dev/stdout sluice"
    found = locations(server(conf, LISTEN))["/api"].all("limit_conn")
    assert ["sluice_streams", str(edge.streams_max(settings))] in found
    check(build_named("newer"), prefix)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else; anybody else has been so above")
def test_nginx_accepts_it_as_an_ordinary_user(prefix: Path) -> None:
    os.chown(prefix, NOBODY, NOBODY)
    render(prefix)
    assert "warn" not in check(build_named("installed"), prefix, NOBODY)


def test_nginx_accepts_as_many_workers_as_the_settings_allow(prefix: Path) -> None:
    render(prefix, sockets=[prefix / f"worker-{slot}.sock" for slot in range(256)])
    check(build_named("installed"), prefix)


@EVERY_BUILD
@pytest.mark.parametrize("everything", [False, True])
def test_gixy_finds_nothing(prefix: Path, nginx: str, everything: bool) -> None:
    """At its strictest, and without one exception."""
    main = render(prefix, look_at(build_named(nginx)), hosts=everything, tls=True)
    command = [str(Path(sys.executable).parent / "gixy"), "-l", "-f", "json", str(main)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert json.loads(result.stdout) == [], result.stdout
    assert result.returncode == 0


def test_gixy_would_find_something(prefix: Path) -> None:
    main = render(prefix)
    (prefix / "values" / "http-extra.conf").write_text("server { location /x { proxy_pass http://$arg_to; } }")
    result = subprocess.run([Path(sys.executable).parent / "gixy", "-l", str(main)], capture_output=True, timeout=60)
    assert result.returncode != 0


@pytest.mark.parametrize(("hosts", "tls"), WAYS)
def test_nothing_forbidden_is_said(prefix: Path, hosts: bool, tls: bool) -> None:
    forbidden = {
        "chunked_transfer_encoding": "half an answer would look like a whole one",
        "if": "does not do what it seems to",
        "rewrite": "captures had memory faults",
    }
    for directive in load(render(prefix, NEWEST, hosts=hosts, tls=tls)).walk():
        assert directive.name not in forbidden, forbidden[directive.name]
        assert "non_idempotent" not in directive.args, "a POST would run twice"
        assert (directive.name, directive.args) != ("proxy_ignore_client_abort", ["on"])
        assert (directive.name, directive.args) != ("proxy_intercept_errors", ["on"])
        if directive.name == "listen" and "reuseport" in directive.args:
            assert "quic" in directive.args, "a process that ends takes its queue of connections along"
        if directive.name in ("location", "map"):
            assert not any(arg.startswith("~") for arg in directive.args)
        if directive.name == "map":
            assert not any(case.name.startswith("~") for case in directive.block), "memory faults with expressions"


def test_every_location_that_is_proxied_is_known_here(routes: dict[str, Directive]) -> None:
    proxied = {path for path, location in routes.items() if location.all("proxy_pass")}
    assert proxied == {*STREAMS, *SOCKETS, *WHOLE}


@pytest.mark.parametrize("path", [*STREAMS, *SOCKETS, *WHOLE])
def test_a_proxied_location_has_all_that_each_needs(routes: dict[str, Directive], path: str) -> None:
    location = routes[path]
    assert location.one("proxy_pass") == "http://sluice_workers"
    assert location.one("proxy_http_version") == "1.1"
    assert location.one("proxy_next_upstream") == "error timeout"
    assert location.one("proxy_next_upstream_tries") == "0"
    assert location.one("proxy_request_buffering") == "on"
    assert location.one("proxy_ignore_client_abort") == "off"
    assert location.one("proxy_intercept_errors") == "off"
    headers = {args[0]: args[1] for args in location.all("proxy_set_header")}
    assert headers["X-Forwarded-For"] == "$remote_addr"
    assert headers["X-Real-IP"] == "$remote_addr"
    assert headers["X-Request-ID"] == "$sluice_request_id"
    assert headers["Connection"] == ("$sluice_connection" if path in SOCKETS else "")
    assert len(headers) == len(location.all("proxy_set_header")), "a header twice"
    assert {args[0] for args in location.all("add_header")} == {"Strict-Transport-Security", "Alt-Svc"}


@pytest.mark.parametrize("path", [*STREAMS, *SOCKETS])
def test_a_stream_is_not_held_back(routes: dict[str, Directive], path: str) -> None:
    location = routes[path]
    assert location.one("proxy_buffering") == "off"
    assert location.one("proxy_cache") == "off"
    assert location.all("gzip") in ([], [["off"]])


@pytest.mark.parametrize("path", WHOLE)
def test_a_whole_answer_never_fills_the_disk(routes: dict[str, Directive], path: str) -> None:
    assert routes[path].one("proxy_buffering") == "on"
    assert routes[path].one("proxy_max_temp_file_size") == "0"


@pytest.mark.parametrize("path", LIMITED)
def test_a_location_that_generates_or_streams_is_limited(routes: dict[str, Directive], path: str) -> None:
    location = routes[path]
    assert sorted(location.all("limit_conn")) == [["sluice_client_streams", "40"], ["sluice_streams", "960"]]
    assert "nodelay" in location.one("limit_req"), "a delay would be a slow first token"


@pytest.mark.parametrize("streams_max", [1, 384, 5000])
def test_admission_speaks_before_nginx_does(streams_max: int) -> None:
    """Its 503 says when there will be room, NGINX's 429 does not. Half as many as it admits wait for a place."""
    settings = Settings(workers=2, streams_max=streams_max)
    assert edge.streams_max(settings) >= 1.5 * streams_max * settings.workers
    assert edge.streams_max(Settings(workers=capacity().workers_per_pod)) == capacity().nginx_streams_max


def test_probes_are_never_limited(routes: dict[str, Directive]) -> None:
    limited = {path for path, location in routes.items() if location.all("limit_conn") or location.all("limit_req")}
    assert limited == set(LIMITED)


def test_too_much_is_429(http: Directive) -> None:
    assert http.one("limit_conn_status") == http.one("limit_req_status") == "429"


@pytest.mark.parametrize("path", [*STREAMS, *SOCKETS, *WHOLE])
def test_a_worker_that_is_gone_is_a_503_in_the_surface_s_shape(routes: dict[str, Directive], path: str) -> None:
    # The native page is chosen by a map, which has another one for a browser's EventSource.
    named = {"/v1": "@error_openai", "/v1/messages": "@error_anthropic"}
    page = ["=503", named[path]] if path in named else ["=", "$sluice_unavailable_page"]
    assert ["502", "503", "504", *page] in routes[path].all("error_page")
    assert {"@error_native", *named.values(), "@unavailable", "@unavailable_events"} <= routes.keys()


def test_nothing_is_compressed_anywhere(http: Directive) -> None:
    assert http.one("gzip") == "off"


def test_workers_are_told_apart_and_none_is_ever_shut_out(upstream: Directive, prefix: Path) -> None:
    assert upstream.all("server") == [[f"unix:{prefix}/worker-{slot}.sock", "max_fails=0"] for slot in (1, 2, 3, 4)]
    names = [directive.name for directive in upstream.block]
    assert "zone" in names
    assert names.index("least_conn") < names.index("keepalive")


def test_connections_to_workers_are_kept_by_our_word_and_not_by_a_default(upstream: Directive) -> None:
    """Since 1.29.7 the default keeps them for longer than workers do."""
    assert {"keepalive", "keepalive_timeout", "keepalive_requests"} <= {each.name for each in upstream.block}


def test_no_worker_has_a_port_that_could_run_out(upstream: Directive) -> None:
    """A connection to 127.0.0.1 takes one of 28,000 ports, and keeps it for a minute after its end."""
    assert all(args[0].startswith("unix:") for args in upstream.all("server"))


def test_no_location_has_a_wait_of_its_own_for_workers(conf: Directive) -> None:
    waits = ("proxy_read_timeout", "proxy_connect_timeout", "proxy_send_timeout", "proxy_next_upstream_timeout")
    for wait, location in itertools.product(waits, [each for each in conf.walk() if each.name == "location"]):
        assert not location.all(wait), f"{wait} in location {location.args}"


def test_a_process_may_open_twice_its_connections(conf: Directive) -> None:
    assert int(conf.one("worker_rlimit_nofile")) >= 2 * int(conf.only("events").one("worker_connections"))


def test_a_process_has_room_for_all_the_streams_that_it_lets_in(conf: Directive) -> None:
    """Two connections each, were they all on one process; the default limit is that of the largest machine's pod."""
    assert int(conf.only("events").one("worker_connections")) >= 2 * 960


def test_everything_is_written_below_the_prefix(conf: Directive, http: Directive) -> None:
    written = [conf.one("pid"), conf.all("error_log")[0][0], http.all("error_log")[0][0], http.all("access_log")[0][0]]
    written += [http.one(f"{kind}_temp_path") for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")]
    assert not [path for path in written if path.startswith("/")]


def test_a_container_logs_to_its_output(prefix: Path) -> None:
    conf = load(render(prefix, access_log="/dev/stdout", error_log="/dev/stderr"))
    assert conf.one("error_log") == "/dev/stderr warn"
    assert conf.only("http").one("error_log") == "/dev/stderr alert"
    assert conf.only("http").one("access_log") == "/dev/stdout sluice"


def test_the_log_line_is_escaped_and_holds_no_query_and_no_key(http: Directive) -> None:
    log_format = http.all("log_format")[0]
    assert log_format[1] == "escape=json"
    variables = set(re.findall(r"\$(\w+)", "".join(log_format[2:])))
    secret = {"request", "request_uri", "args", "query_string", "http_authorization", "http_x_api_key", "http_referer"}
    assert variables.isdisjoint(secret | {"http_cookie", "sluice_client", "sluice_credential", "http_last_event_id"})
    assert not {name for name in variables if name.startswith("arg_")}


def test_status_is_for_this_machine_alone(conf: Directive) -> None:
    status = [location for location in conf.walk() if location.name == "location" and location.all("stub_status")]
    assert len(status) == 1
    assert locations(server(conf, LISTEN_OPS))["= /stub_status"] is status[0]
    assert [each.args[0] for each in status[0].block if each.name in ("allow", "deny")][-1] == "all"


def test_only_named_proxies_are_believed(prefix: Path) -> None:
    assert load(render(prefix)).only("http").all("set_real_ip_from") == [["10.0.0.0/8"], ["unix:"]]
    http = load(render(prefix, proxies=[])).only("http")
    assert http.all("set_real_ip_from") == []
    assert http.one("real_ip_recursive") == "on"


def test_tls_is_mozilla_s_intermediate_profile(prefix: Path) -> None:
    """Guidelines 6.0."""
    tls = server(load(render(prefix, tls=True)), LISTEN_TLS)
    assert tls.one("ssl_protocols") == "TLSv1.2 TLSv1.3"
    kinds = ["AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305"]
    wanted = {f"ECDHE-{key}-{kind}" for key in ("ECDSA", "RSA") for kind in kinds}
    assert set(tls.one("ssl_ciphers").split(":")) == wanted
    assert tls.one("ssl_prefer_server_ciphers") == "off"
    assert tls.one("ssl_ecdh_curve") == "X25519:prime256v1:secp384r1"
    assert tls.one("ssl_early_data") == "off"
    assert locations(tls).keys() >= {*LIMITED, *WHOLE}


def test_each_version_has_its_own_files() -> None:
    def files(*version: int, openssl: tuple[int, ...] = (3, 5)) -> set[str]:
        build = Build(version, openssl, http3=True)
        stems = {path.stem for path in (HOME / "nginx/versions").glob("*.conf")}
        return {stem.split("-", 1)[1] for stem in stems if build.fits(stem)}

    assert files(1, 22, 1, openssl=(3, 0)) == {"before-1.29.3-host", "openssl-before-3.3-curves"}
    assert {"from-1.25.1-http2", "before-1.29.3-host"} <= files(1, 25, 1)
    assert {"from-1.29.3-host", "from-1.27.4-keepalive", "openssl-from-3.3-curves"} <= files(1, 29, 3)
    with pytest.raises(AssertionError, match="does not say"):
        DEBIAN_12.fits("http-host")


def test_templates_leave_no_variable_to_a_template_engine(prefix: Path) -> None:
    """Also one that fills in every name it knows, and not only ours."""
    tls = nginx_config.tls_values(DEBIAN_12, listen="", port=1, certificate=prefix, key=prefix)
    known = nginx_config.values(listen="", sockets=[], waits=ledger(), streams_max=1).keys() | tls.keys()
    for template in [*(HOME / "nginx/templates").iterdir(), *(HOME / "nginx/options").rglob("*.template")]:
        text = template.read_text()
        assert set(nginx_config.PLACEHOLDER.findall(text)) <= known, template.name
        left = set(re.findall(r"\$(\w+)", re.sub(r"#.*", "", nginx_config.PLACEHOLDER.sub("", text))))
        assert {name for name in left if not name.startswith("sluice_")} <= {"server_name", "https"}, template.name


@pytest.mark.skipif(
    shutil.which("envsubst") is None, reason="envsubst is missing (Debian: apt-get install gettext-base)"
)
def test_the_official_image_s_envsubst_makes_the_same_of_them(prefix: Path) -> None:
    """As its entrypoint calls it, with all that the environment defines."""
    tls = nginx_config.tls_values(NEWEST, listen=LISTEN_TLS, port=8443, certificate=prefix, key=prefix)
    values = tls | nginx_config.values(
        listen=LISTEN, sockets=[prefix], waits=ledger(), streams_max=9, ops_listen=[LISTEN_OPS], proxies=["10.0.0.0/8"]
    )
    # Names that NGINX has too are in the environment of many containers.
    environment = values | {"PATH": os.environ["PATH"], "host": "wrong", "https": "wrong", "request_uri": "wrong"}
    names = " ".join(f"${{{name}}}" for name in environment if name.startswith("SLUICE_"))
    chosen = nginx_config.options(hosts=True, tls=True, http3=True)
    for template in nginx_config.templates(chosen).values():
        result = subprocess.run(
            ["envsubst", names], input=template.read_text(), env=environment, capture_output=True, text=True, timeout=30
        )
        assert result.stdout == nginx_config.fill_in(template.read_text(), values), template.name


def test_an_option_takes_the_place_of_a_template_of_its_name() -> None:
    plain, tls = nginx_config.templates(), nginx_config.templates(["tls"])
    assert plain["server-listen.conf"].parent.name == "templates"
    assert tls["server-listen.conf"].parent.name == "tls"


def test_a_placeholder_without_a_value_is_an_error() -> None:
    with pytest.raises(KeyError):
        nginx_config.fill_in("listen ${SLUICE_UNKNOWN};", {})
