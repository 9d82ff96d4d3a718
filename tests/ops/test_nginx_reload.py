"""Reloads and stops of NGINX: no stream is cut, none is lost to the bound, and old processes do not pile up."""

import contextlib
import http.client
import re
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from app.timeouts import ledger
from tests.support.edge import Edge, Exchange
from tests.support.nginx_builds import EVERY_BUILD, build_named
from tests.support.workers import until

STREAMS = 12
RELOADS = 10


class Paced:
    """Streams that go on, each with numbered tokens, until they are told to end."""

    def __init__(self) -> None:
        self.end = threading.Event()

    def __call__(self, exchange: Exchange) -> bool:
        exchange.begin_stream()
        number = 0
        while not self.end.wait(0.05):
            exchange.chunk(b"data: %d\n\n" % number)
            number += 1
        exchange.chunk(b"event: done\ndata: %d\n\n" % number)
        exchange.chunk(b"")
        return True


class Reader:
    """Reads one stream to its end in a thread."""

    def __init__(self, edge: Edge) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", edge.port, timeout=30)
        self.connection.request("POST", "/api/v1/generate", b"{}")
        self.answer = self.connection.getresponse()
        self.text = self.answer.read1()
        self.error: Exception | None = None
        self.thread = threading.Thread(target=self._read)
        self.thread.start()

    def _read(self) -> None:
        try:
            while piece := self.answer.read1():
                self.text += piece
        except (http.client.HTTPException, OSError) as error:
            self.error = error

    def is_whole(self) -> bool:
        self.thread.join(30)
        self.connection.close()
        numbers = [int(found) for found in re.findall(rb"data: (\d+)", self.text)]
        return self.error is None and b"event: done" in self.text and numbers == list(range(len(numbers)))


@contextlib.contextmanager
def readers(edge: Edge, paced: Paced) -> Iterator[list[Reader]]:
    found = [Reader(edge) for _ in range(STREAMS)]
    try:
        yield found
    finally:
        paced.end.set()
        for reader in found:
            reader.thread.join(30)
            reader.answer.close()
            reader.connection.close()


def answer_ok(exchange: Exchange) -> bool:
    exchange.answer(b"{}")
    return True


@EVERY_BUILD
def test_ten_reloads_in_a_row_cut_no_stream_and_refuse_no_request(nginx: str) -> None:
    paced = Paced()

    def either(exchange: Exchange) -> bool:
        return paced(exchange) if exchange.method == "POST" else answer_ok(exchange)

    one_generation = 2
    with (
        Edge(either, either, nginx=build_named(nginx), processes="2") as edge,
        readers(edge, paced) as open_streams,
    ):
        until(lambda: len(edge.processes()) == one_generation, 10, "both processes are there")
        for _ in range(RELOADS):
            edge.reload()
            with edge.connect() as client:
                client.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                assert client.recv(100).startswith(b"HTTP/1.1 200")
        # The first generation has the streams; those between had nothing to wait for.
        until(lambda: len(edge.processes()) == one_generation, 10, "the last generation is whole")
        assert 1 <= len(edge.processes(leaving=True)) <= one_generation
        paced.end.set()
        assert all(reader.is_whole() for reader in open_streams)
        until(lambda: not edge.processes(leaving=True), 20, "old processes are gone with their last stream")


def test_a_stop_waits_for_open_streams_and_refuses_new_ones() -> None:
    paced = Paced()
    with Edge(paced, paced) as edge, readers(edge, paced) as open_streams:
        edge.signal("quit")
        until(lambda: refuses(edge), 10, "it listens no more")
        time.sleep(0.5)
        assert edge.process.poll() is None
        paced.end.set()
        assert all(reader.is_whole() for reader in open_streams)
        assert edge.process.wait(20) == 0


def test_old_processes_are_bounded_and_a_reader_that_they_cut_sees_it() -> None:
    """The bound is the longest stream's (nginx_shutdown_seconds); a shorter one cuts, and never ends, a stream."""
    paced = Paced()
    with Edge(paced, waits=ledger() | {"nginx_shutdown_seconds": 1}) as edge, readers(edge, paced) as open_streams:
        edge.reload()
        until(lambda: not edge.processes(leaving=True), 20, "old processes are gone at the bound")
        for reader in open_streams:
            reader.thread.join(20)
            assert reader.error is not None, "a stream that was cut looked whole"


@EVERY_BUILD
def test_clients_that_keep_their_connections_meet_the_new_configuration(nginx: str) -> None:
    """After a reload that moves the workers, a connection of before does not go on asking where they were."""

    def first(exchange: Exchange) -> bool:
        exchange.answer(b"first")
        return True

    def second(exchange: Exchange) -> bool:
        exchange.answer(b"second")
        return True

    with Edge(first, second, nginx=build_named(nginx)) as edge:
        sockets = [edge.prefix / f"worker-{slot}.sock" for slot in (1, 2)]
        edge.configure(sockets=sockets[:1])
        edge.reload()
        client = http.client.HTTPConnection("127.0.0.1", edge.port, timeout=20)
        assert ask(client) == b"first"
        edge.configure(sockets=sockets[1:])
        edge.reload()
        # An idle connection is closed by the process that leaves, or, since 1.27.4, answered once more by it.
        answered = [ask_again(client) for _ in range(3)]
        assert answered[-1] == b"second"
        assert set(answered) <= {b"first", b"second"}
        client.close()


def test_requests_on_kept_connections_survive_reloads_on_the_newer_nginx() -> None:
    """keepalive_min_timeout: an old process waits for the request that is on its way, and then closes openly."""
    with Edge(answer_ok, nginx=build_named("newer")) as edge:
        failed = 0
        clients = [http.client.HTTPConnection("127.0.0.1", edge.port, timeout=20) for _ in range(20)]
        for client in clients:
            ask(client)
        for _ in range(3):
            edge.signal("reload")
            for client in clients:
                try:
                    ask(client)
                except (http.client.HTTPException, ConnectionError):
                    failed += 1
                    client.close()
                    ask(client)
            edge.reload()
        assert failed == 0
        for client in clients:
            client.close()


def test_a_configuration_that_is_wrong_changes_nothing() -> None:
    with Edge(answer_ok) as edge:
        before = edge.processes()
        (edge.prefix / "values" / "http-limits.conf").write_text("no_such_directive on;")
        with pytest.raises(Exception, match="exit status 1"):
            edge.signal("reload")
        assert edge.processes() == before
        client = http.client.HTTPConnection("127.0.0.1", edge.port, timeout=20)
        assert ask(client) == b"{}"
        client.close()


def ask(client: http.client.HTTPConnection) -> bytes:
    client.request("GET", "/readyz")
    return client.getresponse().read()


def ask_again(client: http.client.HTTPConnection) -> bytes:
    """As clients do: one that finds its connection closed opens another."""
    try:
        return ask(client)
    except (http.client.RemoteDisconnected, ConnectionError):
        client.close()
        return ask(client)


def refuses(edge: Edge) -> bool:
    try:
        socket.create_connection(("127.0.0.1", edge.port), 5).close()
    except ConnectionRefusedError:
        return True
    return False
