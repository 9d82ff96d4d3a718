"""What NGINX does with the product's configuration, in front of workers that behave, die, hang up and dawdle."""

import http.client
import json
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.edge import Edge, Exchange

# For what should be at once: a noisy machine gets this much.
PROMPT_SECONDS_MAX = 1.0
MEGABYTE = 1024 * 1024


def answer_ok(exchange: Exchange) -> bool:
    exchange.answer(b'{"ok": true}')
    return True


def hang_up(_: Exchange) -> bool:
    return False


def ask(edge: Edge, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any, bytes]:
    """Status, headers and body of one request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", edge.port, timeout=10)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def send(edge: Edge, request: bytes) -> tuple[int, Any, bytes]:
    """The same for bytes that no HTTP library would send."""
    with edge.connect() as client:
        client.sendall(request)
        response = http.client.HTTPResponse(client)
        response.begin()
        return response.status, response.headers, response.read()


def test_with_three_of_four_workers_dead_no_post_fails() -> None:
    with Edge(None, None, answer_ok, None) as edge:
        statuses = [ask(edge, "POST", "/api/v1/generate", b"{}")[0] for _ in range(20)]
        assert statuses == [200] * 20
        assert len(edge.requests) == 20


def test_a_worker_whose_socket_is_missing_costs_nothing() -> None:
    with Edge(answer_ok, answer_ok) as edge:
        (edge.prefix / "worker-1.sock").unlink()
        assert [ask(edge, "POST", "/v1/chat/completions", b"{}")[0] for _ in range(10)] == [200] * 10


@pytest.mark.parametrize("path", ["/api/v1/generate", "/v1/chat/completions", "/elsewhere"])
def test_a_post_that_was_sent_is_never_sent_again(path: str) -> None:
    with Edge(hang_up, hang_up, hang_up) as edge:
        status, headers, _ = ask(edge, "POST", path, b'{"prompt": "costs money"}')
        assert status == 503
        assert headers["Retry-After"] == "1"
        assert len(edge.requests) == 1


def test_a_get_whose_worker_dies_is_answered_by_another() -> None:
    with Edge(hang_up, answer_ok) as edge:
        assert [ask(edge, "GET", "/readyz")[0] for _ in range(4)] == [200] * 4


def test_a_worker_that_failed_gets_the_next_request_too() -> None:
    """Marked as failed, the only worker would be left out for ten seconds after it is back."""
    calls = 0

    def fail_once(exchange: Exchange) -> bool:
        nonlocal calls
        calls += 1
        return calls > 1 and answer_ok(exchange)

    with Edge(fail_once, None) as edge:
        assert ask(edge, "POST", "/api/v1/generate", b"{}")[0] == 503
        assert ask(edge, "POST", "/api/v1/generate", b"{}")[0] == 200


def test_without_any_worker_the_native_surface_gets_its_503() -> None:
    with Edge(None, None) as edge:
        status, headers, body = ask(edge, "POST", "/api/v1/generate", b"{}")
        assert status == 503
        assert headers["Content-Type"] == "application/json"
        assert headers["Retry-After"] == "1"
        error = json.loads(body)["error"]
        assert error["code"] == "unavailable"
        assert error["message"]
        assert error["retryable"] is True
        assert error["request_id"] == headers["X-Request-ID"]


@pytest.mark.parametrize("accept", ["*/*", "text/event-stream"])
def test_without_any_worker_the_clients_connection_ends(accept: str) -> None:
    """In a rollout, clients that kept their connections asked the instance that was leaving ten times and more, though
    the load balancer knew a better one."""
    with Edge(None) as edge:
        connection = http.client.HTTPConnection("127.0.0.1", edge.port, timeout=10)
        connection.request("GET", "/api/v1/stream?prompt=x", headers={"Accept": accept})
        answer = connection.getresponse()
        assert answer.getheader("Connection") == "close"
        connection.close()


def test_without_any_worker_openai_s_surface_gets_its_503() -> None:
    with Edge(None) as edge:
        status, headers, body = ask(edge, "POST", "/v1/chat/completions", b"{}")
        assert status == 503
        assert headers["Retry-After"] == "1"
        assert headers["X-Request-ID"]
        error = json.loads(body)["error"]
        assert error == {"message": error["message"], "type": "server_error", "param": None, "code": "unavailable"}
        assert error["message"]


def test_without_any_worker_anthropic_s_surface_gets_its_503() -> None:
    with Edge(None) as edge:
        status, headers, body = ask(edge, "POST", "/v1/messages", b"{}")
        assert (status, headers["Retry-After"]) == (503, "1")
        said = json.loads(body)
        assert (said["type"], said["error"]["type"]) == ("error", "overloaded_error")
        assert said["error"]["details"] == {"error_code": "unavailable"}
        assert said["request_id"] == headers["Request-Id"] == headers["X-Request-ID"]


@pytest.mark.parametrize("status", ["404 Not Found", "429 Too Many Requests", "502 Bad Gateway", "503 Unavailable"])
def test_the_app_s_own_errors_pass_untouched(status: str) -> None:
    def fail(exchange: Exchange) -> bool:
        exchange.answer(b'{"error": {"code": "its_own"}}', status=status)
        return True

    with Edge(fail) as edge:
        answered, _, body = ask(edge, "POST", "/api/v1/generate", b"{}")
        assert answered == int(status.split()[0])
        assert body == b'{"error": {"code": "its_own"}}'


def test_a_body_that_is_too_large_is_said_in_the_surface_s_shape() -> None:
    with Edge(answer_ok) as edge:
        head = b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n"
        status, _, body = send(edge, head % b"/api/v1/generate")
        assert status == 413
        assert json.loads(body)["error"]["code"] == "body_too_large"
        status, _, body = send(edge, head % b"/v1/chat/completions")
        assert status == 413
        assert json.loads(body)["error"]["type"] == "invalid_request_error"
        status, _, body = send(edge, head % b"/v1/messages")
        assert status == 413
        assert json.loads(body)["error"]["type"] == "request_too_large"
        assert edge.requests == []


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"\x16\x03\x01 not HTTP\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"TRACE / HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n" % (b"a" * 20_000), 414),
        (b"GET / HTTP/1.1\r\nHost: x\r\nCookie: %b\r\n\r\n" % (b"a" * 17_000), 431),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: odd\r\n\r\n", 501),
        (b"GET /.sluice/error HTTP/1.1\r\nHost: x\r\n\r\n", 404),
    ],
    ids=["not HTTP", "no host", "TRACE", "long address", "large header", "odd encoding", "the error page itself"],
)
def test_a_request_that_cannot_be_read_gets_json(request_bytes: bytes, status: int) -> None:
    with Edge(answer_ok) as edge:
        answered, headers, body = send(edge, request_bytes)
        assert answered == status
        assert headers["Content-Type"] == "application/json"
        error = json.loads(body)["error"]
        assert error["retryable"] is False
        assert error["request_id"] == headers["X-Request-ID"]
        assert edge.requests == []


def test_a_request_id_is_passed_on_and_made_where_there_is_none() -> None:
    with Edge(answer_ok) as edge:
        ask(edge, "GET", "/", X_Request_ID="mine.1")
        ask(edge, "GET", "/")
        first, second = (request.header("X-Request-ID") for request in edge.requests)
        assert first == ["mine.1"]
        assert len(second) == 1
        assert len(second[0]) == 32


def test_a_request_id_with_a_quote_breaks_neither_error_nor_log() -> None:
    hostile = '","admin":"yes\\'
    with Edge(None) as edge:
        _, headers, body = ask(edge, "POST", "/api/v1/generate", b"{}", X_Request_ID=hostile)
        error = json.loads(body)["error"]
        assert set(error) == {"code", "message", "retryable", "request_id"}
        (line,) = edge.log()
        assert line["request_id"] == headers["X-Request-ID"] == error["request_id"]
        assert line["client_request_id"] == hostile
        assert line["method"] == "POST"
        assert line["uri"] == "/api/v1/generate"
        assert line["status"] == "503"


def test_the_log_says_who_what_and_how_and_no_prompt() -> None:
    with Edge(answer_ok) as edge:
        ask(edge, "GET", "/api/v1/stream?prompt=secret", traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01")
        (line,) = edge.log()
        assert line["uri"] == "/api/v1/stream"
        assert line["status"] == line["upstream_status"] == "200"
        assert line["traceparent"].startswith("00-aaaa")
        assert "secret" not in str(line)


def test_probes_leave_no_line_in_the_log() -> None:
    with Edge(answer_ok) as edge:
        ask(edge, "GET", "/livez")
        ask(edge, "GET", "/readyz")
        ask(edge, "GET", "/docs")
        assert [line["uri"] for line in edge.log()] == ["/docs"]


def test_the_client_s_claims_about_itself_are_replaced() -> None:
    claims = {"X_Forwarded_For": "1.2.3.4", "X_Real_IP": "1.2.3.4", "X_Forwarded_Proto": "https"}
    claims |= {"Forwarded": "for=1.2.3.4", "X_Forwarded_Host": "evil.example"}
    with Edge(answer_ok) as edge:
        ask(edge, "POST", "/v1/chat/completions", b"{}", **claims)
        (request,) = edge.requests
        assert request.header("X-Forwarded-For") == ["127.0.0.1"]
        assert request.header("X-Real-IP") == ["127.0.0.1"]
        assert request.header("X-Forwarded-Proto") == ["http"]
        assert request.header("Forwarded") == []
        assert request.header("X-Forwarded-Host") == []


def test_trace_headers_and_host_pass_as_they_are() -> None:
    with Edge(answer_ok) as edge:
        ask(edge, "POST", "/api/v1/generate", b"{}", traceparent="00-1-2-01", tracestate="a=b", Host="api.example:8443")
        (request,) = edge.requests
        assert request.header("traceparent") == ["00-1-2-01"]
        assert request.header("tracestate") == ["a=b"]
        assert request.header("Host") == ["api.example:8443"]


@pytest.mark.parametrize("path", ["/api/v1/generate", "/api/v1/stream", "/v1/chat/completions"])
def test_each_token_arrives_before_the_next_is_made(path: str) -> None:
    """No clock: the worker makes a token only when the one before has been read, also by a client that takes gzip."""
    received = threading.Semaphore(0)

    def stream(exchange: Exchange) -> bool:
        exchange.begin_stream()
        for number in range(20):
            exchange.chunk(b"data: %d\n\n" % number)
            assert received.acquire(timeout=5)
        exchange.chunk(b"")
        return True

    with Edge(stream) as edge:
        connection = http.client.HTTPConnection("127.0.0.1", edge.port, timeout=5)
        connection.request("POST", path, b"{}", {"Accept-Encoding": "gzip, br", "Accept": "text/event-stream"})
        response = connection.getresponse()
        assert response.headers["Content-Encoding"] is None
        for number in range(20):
            assert response.read1() == b"data: %d\n\n" % number
            received.release()
        assert response.read() == b""
        connection.close()


@pytest.mark.parametrize("path", ["/api/v1/generate", "/v1/chat/completions"])
def test_a_stream_that_breaks_is_not_taken_for_whole(path: str) -> None:
    def break_off(exchange: Exchange) -> bool:
        exchange.begin_stream()
        exchange.chunk(b"data: half an ans")
        return False

    with Edge(break_off) as edge, pytest.raises(http.client.IncompleteRead):
        ask(edge, "POST", path, b"{}")


@pytest.mark.parametrize("streaming", [False, True], ids=["before the first token", "while it streams"])
def test_the_worker_learns_at_once_that_the_client_left(streaming: bool) -> None:
    started, noticed = threading.Event(), threading.Event()

    def wait_for_the_end(exchange: Exchange) -> bool:
        if streaming:
            exchange.begin_stream()
            exchange.chunk(b"data: 1\n\n")
        started.set()
        if exchange.closed_by_peer(5):
            noticed.set()
        return False

    with Edge(wait_for_the_end) as edge:
        with edge.connect() as client:
            client.sendall(b"POST /api/v1/generate HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
            assert started.wait(5)
            if streaming:
                client.recv(1024)
        assert noticed.wait(PROMPT_SECONDS_MAX)


@pytest.mark.parametrize("path", ["/api/v1/generate", "/docs"])
def test_a_reader_that_does_not_read_is_felt_by_the_worker(path: str) -> None:
    """What NGINX took in for it would lie on the disk."""
    taken_bytes = 0
    stuck = threading.Event()

    def flood(exchange: Exchange) -> bool:
        nonlocal taken_bytes
        exchange.connection.settimeout(1)
        exchange.begin_stream()
        try:
            while taken_bytes < 50 * MEGABYTE:
                exchange.chunk(b"x" * 65_536)
                taken_bytes += 65_536
        except TimeoutError:
            stuck.set()
        return False

    with Edge(flood) as edge, edge.connect(receive_bytes=4096) as client:
        client.sendall(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode())
        assert stuck.wait(10)
        assert taken_bytes < 10 * MEGABYTE  # the kernel's buffers
        assert files_in(edge.prefix / "proxy_temp") == []


def test_a_slow_upload_holds_no_worker() -> None:
    with Edge(answer_ok) as edge, edge.connect() as client:
        client.sendall(b"POST /api/v1/generate HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n{}")
        time.sleep(0.3)
        assert edge.requests == []
        client.sendall(b"  ")
        assert client.recv(1024).startswith(b"HTTP/1.1 200")


def test_connections_to_a_worker_are_used_again() -> None:
    with Edge(answer_ok) as edge:
        for _ in range(20):
            assert ask(edge, "POST", "/api/v1/generate", b"{}")[0] == 200
        # One at most for each of NGINX's processes.
        assert edge.workers[0].connections < 20


def test_a_worker_that_closes_idle_connections_loses_no_post() -> None:
    def answer_and_close(exchange: Exchange) -> bool:
        exchange.answer(b"{}")
        return False  # without `Connection: close`: NGINX keeps the connection, and must see it close

    with Edge(answer_and_close) as edge:
        for number in range(1, 21):
            assert ask(edge, "POST", "/api/v1/generate", b"{}")[0] == 200
            while edge.workers[0].connections_closed < number:
                time.sleep(0.01)
            time.sleep(0.05)


def test_streams_spread_evenly_over_the_workers() -> None:
    end = threading.Event()

    def stream(exchange: Exchange) -> bool:
        exchange.begin_stream()
        end.wait(10)
        exchange.chunk(b"")
        return True

    with Edge(stream, stream, stream, stream) as edge:
        clients: list[socket.socket] = []
        for _ in range(40):
            clients.append(edge.connect())
            clients[-1].sendall(b"GET /api/v1/stream HTTP/1.1\r\nHost: x\r\n\r\n")
            clients[-1].recv(1024)
        counts = [len(worker.requests) for worker in edge.workers]
        end.set()
        for client in clients:
            client.close()
        assert counts == [10, 10, 10, 10]


def test_a_websocket_is_upgraded_and_both_sides_speak() -> None:
    def echo(exchange: Exchange) -> bool:
        assert exchange.header("Upgrade") == ["websocket"]
        assert exchange.header("Connection") == ["upgrade"]
        switching = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
        exchange.connection.sendall(switching)
        exchange.connection.sendall(exchange.connection.recv(100).upper())
        return False

    request = b"GET /api/v1/ws/generate HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    with Edge(echo) as edge, edge.connect() as client:
        client.sendall(request)
        assert client.recv(1024).startswith(b"HTTP/1.1 101 ")
        client.sendall(b"hello")
        assert client.recv(1024) == b"HELLO"


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
