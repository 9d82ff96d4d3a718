"""TLS at the edge: Mozilla's intermediate profile as clients meet it, HTTP/2 and HTTP/3, ends that are not whole."""

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import QuicEvent

from tests.support.certificate import Certificate
from tests.support.edge import Edge, Exchange
from tests.support.http2_client import Http2
from tests.support.nginx_builds import BUILDS, EVERY_BUILD, build_named

WHOLE, CUT_HTTP1, CUT_HTTP2 = 0, 18, 92  # exit codes of curl
HALF = b"data: half an ans"


def answer_ok(exchange: Exchange) -> bool:
    exchange.answer(b'{"ok": true}')
    return True


def break_off(exchange: Exchange) -> bool:
    exchange.begin_stream()
    exchange.chunk(HALF)
    return False


@pytest.fixture(scope="module", params=BUILDS)
def edge(request: pytest.FixtureRequest) -> Iterator[Edge]:
    nginx = build_named(request.param)
    options = ["hosts", "tls", "tls-hosts"] + (["http3", "http3-hosts"] if request.param == "newer" else [])
    names = "localhost api.example 127.0.0.1"
    with Edge(answer_ok, nginx=nginx, options=options, server_names=names) as running:
        yield running


def curl(edge: Edge, *arguments: str, url: str = "") -> subprocess.CompletedProcess[str]:
    """Of the answer's headers and, last, the version of HTTP."""
    command = ["curl", "--silent", "--cacert", str(Certificate.of(edge.prefix).chain), "--max-time", "20"]
    command += ["--dump-header", "-", "--output", "/dev/null", "--write-out", "%{http_version}", *arguments]
    return subprocess.run([*command, url or f"{edge.tls_url}/v1/models"], capture_output=True, text=True, timeout=30)


def handshake(edge: Edge, *arguments: str, name: str = "localhost") -> str:
    """What openssl says of one: its protocol and cipher, or that there was none."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{edge.tls_port}", "-servername", name, "-brief"]
    result = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=30, input="")
    return result.stderr


@pytest.mark.parametrize("version", ["2", "1.1"])
def test_both_versions_of_http_are_spoken_by_tls(edge: Edge, version: str) -> None:
    """Over HTTP/1.1 a browser's seventh tab waits for the other six."""
    result = curl(edge, f"--http{version}")
    assert (result.returncode, result.stdout.split()[-1]) == (0, version)
    assert "strict-transport-security: max-age=63072000" in result.stdout.lower()


@pytest.mark.parametrize("protocol", ["-tls1_2", "-tls1_3"])
def test_modern_protocols_are_spoken(edge: Edge, protocol: str) -> None:
    said = handshake(edge, protocol)
    assert "CONNECTION ESTABLISHED" in said
    assert f"Protocol version: TLSv1.{protocol[-1]}" in said


@pytest.mark.parametrize("protocol", ["-tls1", "-tls1_1"])
def test_old_protocols_are_refused(edge: Edge, protocol: str) -> None:
    """The client would take them: its own bound on what is secure is lifted."""
    assert "CONNECTION ESTABLISHED" not in handshake(edge, protocol, "-cipher", "ALL:@SECLEVEL=0")


@pytest.mark.parametrize("cipher", ["AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305"])
def test_each_cipher_of_the_profile_is_taken(edge: Edge, cipher: str) -> None:
    said = handshake(edge, "-tls1_2", "-cipher", f"ECDHE-ECDSA-{cipher}")
    assert f"Ciphersuite: ECDHE-ECDSA-{cipher}" in said


@pytest.mark.parametrize(
    "cipher", ["ECDHE-ECDSA-AES128-SHA", "ECDHE-ECDSA-AES256-SHA384", "ECDHE-ECDSA-AES128-CCM", "AES128-GCM-SHA256"]
)
def test_no_other_cipher_is(edge: Edge, cipher: str) -> None:
    assert "CONNECTION ESTABLISHED" not in handshake(edge, "-tls1_2", "-cipher", f"{cipher}:@SECLEVEL=0")


@pytest.mark.parametrize("curve", ["X25519", "prime256v1", "secp384r1"])
def test_each_curve_of_the_profile_is_taken(edge: Edge, curve: str) -> None:
    assert "CONNECTION ESTABLISHED" in handshake(edge, "-curves", curve)


@pytest.mark.parametrize("curve", ["secp521r1", "X448"])
def test_no_other_curve_is(edge: Edge, curve: str) -> None:
    assert "CONNECTION ESTABLISHED" not in handshake(edge, "-curves", curve)


def test_a_session_is_resumed_without_a_ticket_and_never_with_early_data(edge: Edge, tmp_path: Path) -> None:
    session = str(tmp_path / "session")
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{edge.tls_port}", "-servername", "localhost", "-tls1_2"]
    first = subprocess.run([*command, "-sess_out", session], capture_output=True, text=True, timeout=30, input="")
    again = subprocess.run([*command, "-sess_in", session], capture_output=True, text=True, timeout=30, input="")
    assert "TLS session ticket:" not in first.stdout
    assert "Reused, TLSv1.2" in again.stdout
    tls13 = subprocess.run([*command[:-1], "-tls1_3"], capture_output=True, text=True, timeout=30, input="").stdout
    assert "Max Early Data: 0" in tls13 or "Max Early Data" not in tls13


def test_what_comes_without_tls_is_sent_there_with_its_method(edge: Edge) -> None:
    result = curl(edge, "--data", "{}", url=f"{edge.url}/api/v1/generate?stream=true")
    assert " 308 " in result.stdout
    location = next(line for line in result.stdout.splitlines() if line.lower().startswith("location:"))
    assert location.split()[1] == f"https://127.0.0.1:{edge.tls_port}/api/v1/generate?stream=true"
    assert "strict-transport-security" not in result.stdout.lower()


def test_probes_need_no_tls_and_no_name(edge: Edge) -> None:
    """The kubelet asks by the pod's address, and follows no redirect."""
    assert " 200 " in curl(edge, "--header", "Host: 10.1.2.3", url=f"{edge.url}/readyz").stdout


def test_a_host_that_is_not_ours_is_refused(edge: Edge) -> None:
    result = curl(edge, "--header", "Host: rebound.example", url=f"{edge.url}/v1/models")
    assert " 421 " in result.stdout
    # Before anybody has seen a certificate.
    assert "CONNECTION ESTABLISHED" not in handshake(edge, name="rebound.example")
    # And on a connection that was made for another one.
    with Http2(edge) as client:
        stream = client.h2.get_next_available_stream_id()
        head = [(":method", "GET"), (":path", "/v1/models"), (":scheme", "https"), (":authority", "rebound.example")]
        client.h2.send_headers(stream, head, end_stream=True)
        client.flush()
        assert client.status(stream) == 421


@EVERY_BUILD
@pytest.mark.parametrize(("version", "code"), [("1.1", CUT_HTTP1), ("2", CUT_HTTP2)])
def test_a_stream_that_breaks_is_seen_to_be_cut(nginx: str, version: str, code: int) -> None:
    with Edge(break_off, nginx=build_named(nginx), options=["tls"]) as edge:
        assert curl(edge, f"--http{version}").returncode == code


@pytest.mark.parametrize("version", ["1.1", "2"])
@pytest.mark.parametrize(
    ("was", "instead"),
    [
        ("proxy_http_version 1.1;", "proxy_http_version 1.0;"),
        ("proxy_buffering off;", "proxy_buffering off; chunked_transfer_encoding off;"),
    ],
)
def test_without_what_the_configuration_says_nobody_would_see_it(version: str, was: str, instead: str) -> None:
    """What many examples say: then these tests see a whole answer, so they would notice."""

    def end_without_length(exchange: Exchange) -> bool:
        """To an HTTP/1.0 client an answer ends with its connection."""
        if instead.endswith("1.0;"):
            head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
            exchange.connection.sendall(head + HALF)
            return False
        return break_off(exchange)

    with Edge(end_without_length, options=["tls"]) as edge:
        for name in ("proxy.conf", "proxy_stream.conf"):
            file = edge.prefix / "snippets" / name
            file.write_text(file.read_text().replace(was, instead))
        edge.reload()
        code = curl(edge, f"--http{version}").returncode
        # HTTP/2 frames do not depend on the second one, so it is harmless there.
        assert code == (CUT_HTTP2 if "chunked" in instead and version == "2" else WHOLE)


class Http3(QuicConnectionProtocol):
    """One request, and what came of it."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.http = H3Connection(self._quic)
        self.headers: dict[bytes, bytes] = {}
        self.pieces: list[bytes] = []
        self.arrived, self.ended = asyncio.Event(), asyncio.Event()

    def ask(self, method: str, path: str, body: bytes = b"") -> None:
        stream = self._quic.get_next_available_stream_id()
        head = [(b":method", method.encode()), (b":scheme", b"https"), (b":authority", b"localhost:443")]
        self.http.send_headers(stream, [*head, (b":path", path.encode())], end_stream=not body)
        if body:
            self.http.send_data(stream, body, end_stream=True)
        self.transmit()

    def quic_event_received(self, event: QuicEvent) -> None:
        for found in self.http.handle_event(event):
            if isinstance(found, HeadersReceived):
                self.headers = dict(found.headers)
            if isinstance(found, DataReceived) and found.data:
                self.pieces.append(found.data)
                self.arrived.set()
            if getattr(found, "stream_ended", False):
                self.ended.set()


async def test_http3_carries_a_stream_token_by_token() -> None:
    release = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stream(exchange: Exchange) -> bool:
        exchange.begin_stream()
        exchange.chunk(b"data: 1\n\n")
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result(20)
        exchange.chunk(b"data: 2\n\n")
        exchange.chunk(b"")
        return True

    with Edge(stream, nginx=build_named("newer"), options=["tls", "http3"]) as edge:
        trusted = QuicConfiguration(alpn_protocols=["h3"], cafile=str(Certificate.of(edge.prefix).chain))
        trusted.server_name = "localhost"
        async with connect("127.0.0.1", edge.tls_port, configuration=trusted, create_protocol=Http3) as client:
            assert isinstance(client, Http3)
            client.ask("POST", "/api/v1/generate", b'{"prompt": "x"}')
            await asyncio.wait_for(client.arrived.wait(), 20)
            # The second one is not even made before the first has been read.
            assert client.pieces == [b"data: 1\n\n"]
            release.set()
            await asyncio.wait_for(client.ended.wait(), 20)
            assert b"".join(client.pieces) == b"data: 1\n\ndata: 2\n\n"
            assert client.headers[b":status"] == b"200"
            assert client.headers[b"alt-svc"] == f'h3=":{edge.tls_port}"; ma=86400'.encode()
        # Older variables are empty over HTTP/3; a worker that reads no host answers nobody.
        assert edge.requests[0].header("Host") == ["localhost:443"]
        assert edge.requests[0].header("X-Forwarded-Proto") == ["https"]
        assert edge.log()[0]["protocol"] == "HTTP/3.0"
