"""The tier of NGINX before the pods, run as its container runs it, with the configuration that was built."""

import asyncio
import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from time import monotonic

import aiohttp
import pytest
from aiohttp import web

from app.timeouts import ledger
from tests.support import waiting
from tests.support.asgi import until
from tests.support.cluster_dns import ClusterDns
from tests.support.deployment import addresses
from tests.support.kubelet import Pod
from tests.support.manifests import Manifest, combination, container, named, of_kind, pod_of
from tests.support.nginx_builds import newer

# For a machine that is busy with other tests.
SECONDS_MAX = 30.0
RESOLVER = "kube-dns.kube-system.svc.cluster.local"
PODS = "sluice-pods.sluice.svc.cluster.local"
TOKENS = 3
# For a test that has no minutes: how long names are believed, and the pause before the end.
PAUSE_SECONDS = 2
SHORTER = {"valid=5s": "valid=1s", "sleep 10": f"sleep {PAUSE_SECONDS}"}


class Backend:
    """What answers on a pod's address: a stream that goes on when it is told to, and everything else at once."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.streams = 0
        self.seen: list[web.Request] = []
        self.go_on = asyncio.Event()
        self._app = web.Application()
        self._app.router.add_route("*", "/stream", self._stream)
        self._app.router.add_route("*", "/hang-up", self._hang_up)
        self._app.router.add_route("*", "/{rest:.*}", self._answer)

    async def start(self) -> web.AppRunner:
        runner = web.AppRunner(self._app, shutdown_timeout=1.0)
        await runner.setup()
        await web.TCPSite(runner, self.address, 8080).start()
        return runner

    async def _answer(self, request: web.Request) -> web.Response:
        self.seen.append(request)
        return web.Response(text=self.address)

    async def _hang_up(self, request: web.Request) -> web.Response:
        self.seen.append(request)
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        self.streams += 1
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        for number in range(TOKENS):
            await answer.write(b"data: %d\n\n" % number)
            if number == 0:
                await self.go_on.wait()
        return answer


class Tier:
    """One edge before two pods."""

    def __init__(self, edge: Pod, dns: ClusterDns, backends: list[Backend], http: aiohttp.ClientSession) -> None:
        self.edge, self.dns, self.backends, self.http = edge, dns, backends, http
        self.url = f"http://{edge.address}:8080"

    async def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
        async with self.http.request(method, self.url + path, headers=headers) as answer:
            return answer.status, await answer.text()

    async def serves(self) -> bool:
        return (await self.ask("/"))[0] == 200

    async def refuses(self) -> bool:
        try:
            await self.ask("/")
        except aiohttp.ClientConnectionError:
            return True
        return False


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, ...]:
    return combination(tmp_path_factory.mktemp("edge"), ("edge",))


@asynccontextmanager
async def tier(built: tuple[Manifest, ...]) -> AsyncIterator[Tier]:
    programs = Path(newer()).parent
    free = addresses()
    async with AsyncExitStack() as stack:
        backends = [Backend(next(free)) for _ in range(2)]
        for backend in backends:
            stack.push_async_callback((await backend.start()).cleanup)
        dns = await stack.enter_async_context(ClusterDns())
        dns.names[PODS] = [backend.address for backend in backends]
        edge = Pod(built, next(free), {RESOLVER: dns.address} | SHORTER, {}, "sluice-edge", programs)
        stack.callback(edge.remove)
        await edge.start()
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        timeout = aiohttp.ClientTimeout(total=SECONDS_MAX)
        http = await stack.enter_async_context(aiohttp.ClientSession(connector=connector, timeout=timeout))
        await until(lambda: PODS in dns.asked, SECONDS_MAX)
        found = Tier(edge, dns, backends, http)
        await waiting.until(found.serves, SECONDS_MAX)
        yield found
        assert edge.restarted == []


async def test_it_starts_as_its_container_does_and_warns_of_nothing(built: tuple[Manifest, ...]) -> None:
    async with tier(built) as found:
        await until(lambda: found.edge.ready, SECONDS_MAX)
        assert [line for line in found.edge.log.splitlines() if "[notice]" not in line] == []


def test_nginx_finds_nothing_wrong_with_what_was_built(built: tuple[Manifest, ...], tmp_path: Path) -> None:
    (_, _, shell) = container(pod_of(named(built, "Deployment", "sluice-edge")), "nginx")["command"]
    assert "s/@NAMESPACE@/" in shell
    text: str = named(built, "ConfigMap", "sluice-edge")["data"]["nginx.conf"]
    text = text.replace("@NAMESPACE@", "sluice").replace("/run/nginx", str(tmp_path)).replace(RESOLVER, "127.0.0.1")
    (tmp_path / "nginx.conf").write_text(text)
    command = [newer(), "-t", "-c", str(tmp_path / "nginx.conf"), "-e", "stderr"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_MAX)
    assert done.returncode == 0, done.stderr
    assert "[warn]" not in done.stderr
    assert "[alert]" not in done.stderr


def test_a_pod_is_forgotten_before_it_stops_accepting(built: tuple[Manifest, ...]) -> None:
    text: str = named(built, "ConfigMap", "sluice-edge")["data"]["nginx.conf"]
    (valid,) = re.findall(r"resolver \S+ valid=(\d+)s", text)
    assert int(valid) < ledger()["nginx_quit_seconds"]
    hook = container(pod_of(named(built, "Deployment", "sluice-edge")), "nginx")["lifecycle"]["preStop"]["exec"]
    # What the tests below make shorter is there.
    assert all(longer in text or longer in hook["command"] for longer in SHORTER)


def test_it_has_the_time_to_carry_its_longest_stream_to_its_end(built: tuple[Manifest, ...]) -> None:
    """OpenAI's and Anthropic's clients cannot come back: what the kubelet kills with an edge is lost to them."""
    pod = pod_of(named(built, "Deployment", "sluice-edge"))
    waits = ledger()
    assert pod["terminationGracePeriodSeconds"] == waits["node_grace_seconds"]
    (_, _, pause) = container(pod, "nginx")["lifecycle"]["preStop"]["exec"]["command"]
    pause_seconds = int(re.fullmatch(r"sleep (\d+)", pause)[1])  # type: ignore[index]
    assert pause_seconds == waits["nginx_quit_seconds"]
    # But for those that begin in the pause and last as long as any may.
    assert pod["terminationGracePeriodSeconds"] >= waits["stream_seconds_max"]
    text: str = named(built, "ConfigMap", "sluice-edge")["data"]["nginx.conf"]
    assert f"worker_shutdown_timeout {waits['nginx_shutdown_seconds']:g}s;" in text


def test_it_asks_a_service_that_has_every_pods_address(built: tuple[Manifest, ...]) -> None:
    name, _, _ = PODS.partition(".")
    service = named(built, "Service", name)["spec"]
    assert service["clusterIP"] == "None"
    assert [port["port"] for port in service["ports"]] == [8080]
    assert of_kind(built, "Namespace") == []
    assert named(built, "Deployment", "sluice-edge")["metadata"]["namespace"] == "sluice"


async def test_each_stream_goes_to_the_pod_that_has_fewer_and_is_not_held_back(built: tuple[Manifest, ...]) -> None:
    async with tier(built) as found:
        answers = []
        for number in range(1, 21):
            answer = await found.http.post(f"{found.url}/stream")
            # While its second token is not even written.
            assert await answer.content.readuntil(b"\n\n") == b"data: 0\n\n"
            answers.append(answer)
            few, many = sorted(backend.streams for backend in found.backends)
            assert few + many == number
            assert many - few <= 1
        for backend in found.backends:
            backend.go_on.set()
        for answer in answers:
            assert await answer.content.read() == b"data: 1\n\ndata: 2\n\n"


async def test_a_pod_that_refuses_costs_nothing_and_one_that_left_is_forgotten(built: tuple[Manifest, ...]) -> None:
    async with tier(built) as found:
        gone, stays = found.backends
        stranger = gone.address.rsplit(".", 1)[0] + ".250"
        # Nobody listens there, and the name service still says so.
        found.dns.names[PODS] = [stranger, stays.address]
        before = found.dns.asked[PODS]
        await until(lambda: found.dns.asked[PODS] > before + 1, SECONDS_MAX)
        gone.seen.clear()
        assert [await found.ask("/", "POST") for _ in range(20)] == [(200, stays.address)] * 20
        assert gone.seen == []
        assert stranger in found.edge.log


async def test_a_post_that_was_sent_is_never_sent_again(built: tuple[Manifest, ...]) -> None:
    async with tier(built) as found:
        for backend in found.backends:
            backend.seen.clear()
        status, _ = await found.ask("/hang-up", "POST")
        assert status == 502
        assert sum(len(backend.seen) for backend in found.backends) == 1


async def test_a_pod_sees_the_host_and_the_client_that_asked_and_an_upgrade(built: tuple[Manifest, ...]) -> None:
    async with tier(built) as found:
        for backend in found.backends:
            backend.seen.clear()
        await found.ask("/", Host="sluice.example", Connection="upgrade", Upgrade="websocket")
        (request,) = [request for backend in found.backends for request in backend.seen]
        assert request.headers["Host"] == "sluice.example"
        assert request.headers["X-Forwarded-For"].startswith("127.")
        assert (request.headers["Upgrade"], request.headers["Connection"]) == ("websocket", "upgrade")


async def test_told_to_stop_it_ends_its_streams_first(built: tuple[Manifest, ...]) -> None:
    async with tier(built) as found:
        answer = await found.http.post(f"{found.url}/stream")
        await answer.content.readuntil(b"\n\n")
        leaving = asyncio.create_task(found.edge.delete())
        # Its pause first, in which it serves; then it accepts nobody.
        assert (await found.ask("/"))[0] == 200
        await waiting.until(found.refuses, SECONDS_MAX)
        assert found.edge.deleted_at is not None
        assert monotonic() - found.edge.deleted_at > PAUSE_SECONDS * 0.95
        for backend in found.backends:
            backend.go_on.set()
        assert await answer.content.read() == b"data: 1\n\ndata: 2\n\n"
        await asyncio.wait_for(leaving, SECONDS_MAX)
        assert found.edge.killed == []
