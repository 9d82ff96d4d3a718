"""What NGINX bounds: requests at a time and a second, bodies, headers, slow clients; and who counts as one client."""

import http.client
import json
import re
import resource
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

import psutil
import pytest

from tests.support.edge import Edge, Exchange
from tests.support.nginx_builds import EVERY_BUILD, build_named
from tests.support.workers import until

SURFACES = {
    "/api/v1/generate": ("error", "rate_limited"),
    "/v1/chat/completions": ("error", "rate_limited"),
    "/v1/messages": ("error", "rate_limit_error"),
}


def answer_ok(exchange: Exchange) -> bool:
    exchange.answer(b'{"ok": true}')
    return True


class Streams:
    """A script of workers whose streams go on until `end` is set or the client has left."""

    def __init__(self) -> None:
        self.end = threading.Event()

    def __call__(self, exchange: Exchange) -> bool:
        exchange.begin_stream()
        exchange.chunk(b"data: 1\n\n")
        while not self.end.is_set():
            if exchange.closed_by_peer(0.05):
                return False
        exchange.chunk(b"")
        return True


@pytest.fixture
def streaming() -> Streams:
    return Streams()


def ask(
    edge: Edge, path: str = "/api/v1/generate", *, method: str = "POST", **headers: str
) -> tuple[int, http.client.HTTPMessage, bytes]:
    with closing(http.client.HTTPConnection("127.0.0.1", edge.port, timeout=20)) as connection:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, b"{}" if method == "POST" else None, sent)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()


@contextmanager
def open_stream(edge: Edge, path: str = "/api/v1/generate", **headers: str) -> Iterator[http.client.HTTPResponse]:
    with closing(http.client.HTTPConnection("127.0.0.1", edge.port, timeout=20)) as connection:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("POST", path, b"{}", sent)
        with connection.getresponse() as answer:
            assert answer.status == 200
            assert answer.read1() == b"data: 1\n\n"
            yield answer


@pytest.mark.parametrize("path", SURFACES)
def test_a_stream_too_many_is_429_in_the_surface_s_shape(streaming: Streams, path: str) -> None:
    with Edge(streaming, streaming, streams_max=2) as edge, open_stream(edge), open_stream(edge):
        status, headers, body = ask(edge, path)
        assert (status, headers["Retry-After"], headers["Content-Type"]) == (429, "1", "application/json")
        assert headers["X-Request-ID"]
        error = json.loads(body)["error"]
        assert SURFACES[path][1] in (error.get("code"), error.get("type"))
        assert len(edge.requests) == 2
        line = edge.log(1)[0]
        assert (line["status"], line["limit_streams"], line["upstream"]) == ("429", "REJECTED", "")


def test_probes_are_answered_where_streams_are_full(streaming: Streams) -> None:
    def either(exchange: Exchange) -> bool:
        return streaming(exchange) if exchange.method == "POST" else answer_ok(exchange)

    with Edge(either, either, streams_max=1) as edge, open_stream(edge):
        assert [ask(edge, path, method="GET")[0] for path in ("/livez", "/readyz", "/")] == [200] * 3
        assert ask(edge)[0] == 429


def test_a_stream_that_ends_makes_room(streaming: Streams) -> None:
    with Edge(streaming, streams_max=1) as edge:
        with open_stream(edge) as stream:
            assert ask(edge)[0] == 429
            streaming.end.set()
            assert stream.read() == b""
        assert ask(edge)[0] == 200


def test_one_key_that_is_full_leaves_the_others_alone(streaming: Streams) -> None:
    with ExitStack() as stack:
        edge = stack.enter_context(Edge(streaming, streaming, client_streams_max=1))
        stack.enter_context(open_stream(edge, Authorization="Bearer one"))
        assert ask(edge, Authorization="Bearer one")[0] == 429
        # Another key, the same by Anthropic's header, and nobody's.
        stack.enter_context(open_stream(edge, Authorization="Bearer two"))
        stack.enter_context(open_stream(edge, X_Api_Key="three"))
        assert ask(edge, X_Api_Key="three")[0] == 429
        stack.enter_context(open_stream(edge))
        assert ask(edge)[0] == 429


def test_a_client_that_runs_wild_is_429_and_comes_back_a_second_later() -> None:
    with Edge(answer_ok, client_requests_per_second=5) as edge:
        statuses = [ask(edge)[0] for _ in range(40)]
        # Ten at once, and five a second besides.
        assert statuses[:10] == [200] * 10
        assert 429 in statuses
        assert ask(edge, Authorization="Bearer another")[0] == 200
        time.sleep(1.1)
        assert ask(edge)[0] == 200
        assert "REJECTED" in {line["limit_rate"] for line in edge.log(40)}


def client_address(edge: Edge, forwarded: str) -> str:
    """What the worker is told."""
    ask(edge, X_Forwarded_For=forwarded, X_Real_IP="6.6.6.6", Forwarded="for=6.6.6.6")
    request = edge.requests[-1]
    assert request.header("X-Forwarded-For") == request.header("X-Real-IP")
    assert request.header("Forwarded") == []
    return request.header("X-Real-IP")[0]


@EVERY_BUILD
def test_only_a_named_proxy_is_believed_and_only_its_own_word(nginx: str) -> None:
    program = build_named(nginx)
    with Edge(answer_ok, nginx=program) as edge:
        assert client_address(edge, "1.2.3.4") == "127.0.0.1"
    with Edge(answer_ok, nginx=program, proxies=["127.0.0.0/8", "10.0.0.0/8"]) as edge:
        assert client_address(edge, "1.2.3.4") == "1.2.3.4"
        # What the client made up stands before what proxies wrote.
        assert client_address(edge, "6.6.6.6, 1.2.3.4") == "1.2.3.4"
        assert client_address(edge, "6.6.6.6, 1.2.3.4, 10.1.1.1") == "1.2.3.4"
        assert client_address(edge, "nonsense") == "127.0.0.1"
        assert edge.log(1)[0]["client"] == "1.2.3.4"


def test_a_forged_address_is_no_way_around_a_limit(streaming: Streams) -> None:
    with Edge(streaming, streaming, client_streams_max=1) as edge, open_stream(edge, X_Forwarded_For="1.1.1.1"):
        assert ask(edge, X_Forwarded_For="2.2.2.2", X_Real_IP="3.3.3.3")[0] == 429


def test_behind_a_proxy_each_of_its_clients_counts_alone(streaming: Streams) -> None:
    with ExitStack() as stack:
        edge = stack.enter_context(Edge(streaming, streaming, client_streams_max=1, proxies=["127.0.0.1"]))
        stack.enter_context(open_stream(edge, X_Forwarded_For="1.1.1.1"))
        stack.enter_context(open_stream(edge, X_Forwarded_For="2.2.2.2"))
        assert ask(edge, X_Forwarded_For="9.9.9.9, 1.1.1.1")[0] == 429


@pytest.mark.parametrize("named", [True, False])
def test_a_proxy_on_a_unix_socket_is_believed_if_it_is_named(named: bool) -> None:
    """There everybody would be one client, or anybody could be anybody."""
    with Edge(answer_ok, proxies=["unix:"] if named else []) as edge:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(edge.prefix / "ops.sock"))
            client.sendall(b"GET /readyz HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 1.2.3.4\r\nConnection: close\r\n\r\n")
            while client.recv(4096):
                pass
        assert edge.requests[0].header("X-Real-IP") == (["1.2.3.4"] if named else ["unix:"])


@EVERY_BUILD
def test_ten_thousand_headers_and_a_long_address_are_refused(nginx: str) -> None:
    with Edge(answer_ok, nginx=build_named(nginx)) as edge:
        many = b"".join(b"X-%d: y\r\n" % number for number in range(10_000))
        for sent, statuses in (
            (b"GET / HTTP/1.1\r\nHost: x\r\n%b\r\n" % many, (431, 400)),
            (b"GET / HTTP/1.1\r\nHost: x\r\nCookie: %b\r\n\r\n" % (b"a" * 65_536), (431,)),
            (b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n" % (b"a" * 65_536), (414,)),
        ):
            with edge.connect() as client:
                client.sendall(sent)
                answer = http.client.HTTPResponse(client)
                answer.begin()
                assert answer.status in statuses
                assert json.loads(answer.read())["error"]["request_id"]
        assert edge.requests == []


@EVERY_BUILD
def test_two_hosts_or_two_lengths_or_a_hidden_header_reach_no_worker(nginx: str) -> None:
    """What NGINX and the app could read in two ways."""
    with Edge(answer_ok, nginx=build_named(nginx)) as edge:
        for head in (
            b"Host: a\r\nHost: b\r\n",
            b"Host: a\r\nContent-Length: 2\r\nContent-Length: 3\r\n",
            b"Host: a\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n",
            b"Host: a\r\nTransfer-Encoding: chunked, chunked\r\n",
        ):
            with edge.connect() as client:
                client.sendall(b"POST / HTTP/1.1\r\n" + head + b"\r\n0\r\n\r\n")
                answer = http.client.HTTPResponse(client)
                answer.begin()
                assert answer.status in (400, 501), head
        assert edge.requests == []
        with edge.connect() as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nX_Real_IP: 6.6.6.6\r\nX Bad: 1\r\nConnection: close\r\n\r\n")
            while client.recv(4096):
                pass
        names = {name.lower() for request in edge.requests for name, _ in request.headers}
        assert not names & {"x_real_ip", "x bad"}


@EVERY_BUILD
def test_the_host_that_a_worker_reads_is_the_one_that_chose_the_server(nginx: str) -> None:
    with Edge(answer_ok, nginx=build_named(nginx)) as edge:
        ask(edge, Host="api.example:8443")
        assert edge.requests[-1].header("Host") == ["api.example:8443"]


def slowhttptest(edge: Edge, *arguments: str) -> str:
    """50 slow connections for at most 25 s; whether others were served meanwhile is in the report."""
    command = ["slowhttptest", "-c", "50", "-r", "50", "-l", "25", "-p", "3", *arguments, "-u", f"{edge.url}/readyz"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return re.sub(r"\x1b\[[\d;]*m", "", result.stdout)


@pytest.mark.parametrize(
    ("attack", "arguments"),
    [("headers", ["-H", "-i", "2"]), ("body", ["-B", "-i", "2", "-s", "8192"])],
    ids=["headers that never end", "a body that never ends"],
)
def test_slow_clients_are_cut_off_and_the_others_are_served(attack: str, arguments: list[str]) -> None:
    waits = {"client_header_timeout": "3s", "client_body_timeout": "1s"}  # as in earnest, but for a short test
    with Edge(answer_ok) as edge:
        file = edge.prefix / "snippets" / "timeouts.conf"
        text = file.read_text()
        for name, value in waits.items():
            text = re.sub(rf"(?m)^{name} \S+;", f"{name} {value};", text)
        file.write_text(text)
        edge.reload()
        report = slowhttptest(edge, *arguments)
        # Long before its own end.
        assert "Exit status: No open connections left" in report, report
        assert "service available:   NO" not in report
        # None of them has cost a worker anything.
        assert all(request.path == "/readyz" and request.method == "GET" for request in edge.requests)


def test_without_a_free_descriptor_clients_wait_and_none_hangs_for_good() -> None:
    """NGINX that has no descriptor left neither spins nor dies, and serves those who wait when there is room."""
    with Edge(answer_ok, processes="1") as edge:
        until(lambda: len(edge.processes()) == 1, 10, "its process is there")
        processes = edge.processes()
        try:
            for pid in processes:
                resource.prlimit(pid, resource.RLIMIT_NOFILE, (40, 40))
        except PermissionError:
            pytest.skip("this user may not limit another process")
        idle = []
        for _ in range(120):
            client = edge.connect()
            client.settimeout(20)
            idle.append(client)
        cpu = [psutil.Process(pid).cpu_times() for pid in processes]
        time.sleep(1)
        used = sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in processes) - sum(sum(c[:2]) for c in cpu)
        assert used < 0.5, "it spins"
        for client in idle:
            client.close()
        assert edge.processes() == processes
        assert ask(edge, "/readyz", method="GET")[0] == 200


def test_no_secret_is_in_any_log() -> None:
    """A ticket in the address, a key in a header; and requests that fail in ways of which the error log has a line."""

    def hang_up(exchange: Exchange) -> bool:
        return False

    with Edge(hang_up, None) as edge:
        for path in ("/api/v1/stream?ticket=s3cret-ticket", "/v1/models?key=s3cret-key", "/?access_token=s3cret-token"):
            ask(edge, path, method="GET", Authorization="Bearer s3cret-bearer", X_Api_Key="s3cret-key", Cookie="s3cret")
        (edge.prefix / "worker-1.sock").unlink()
        (edge.prefix / "worker-2.sock").unlink()
        ask(edge, "/api/v1/ws/generate?ticket=s3cret-ticket", method="GET", Referer="http://x/?ticket=s3cret-ticket")
        with edge.connect() as client:
            client.sendall(b"GET /?ticket=s3cret-ticket HTTP/1.1\r\nHost: x\r\nBad\x00: y\r\n\r\n")
            client.recv(4096)
        assert len(edge.log(5)) == 5
        for name in ("access.log", "error.log", "stderr"):
            assert "s3cret" not in (edge.prefix / name).read_text(), name
        assert {line["uri"] for line in edge.log(5)} >= {"/api/v1/stream", "/v1/models", "/", "/api/v1/ws/generate"}


def test_the_ops_server_says_how_nginx_is_and_the_public_one_does_not() -> None:
    with Edge(answer_ok) as edge:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(edge.prefix / "ops.sock"))
            client.sendall(b"GET /stub_status HTTP/1.0\r\nHost: x\r\n\r\n")
            said = b""
            while piece := client.recv(4096):
                said += piece
        assert re.search(rb"Active connections: \d+ \nserver accepts handled requests\n \d+ \d+ \d+ \n", said)
        ask(edge, "/stub_status", method="GET")
        assert [request.path for request in edge.requests] == ["/stub_status"]  # a page of the app's like any other
