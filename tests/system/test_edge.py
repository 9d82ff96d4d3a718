"""The whole chain behind its edge: TLS and HTTP/2, kept connections, upgrades, and reloads of NGINX under streams."""

import asyncio
import json
import random
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import aiohttp
import pytest

from tests.support.call import ask
from tests.support.certificate import Certificate
from tests.support.chain import Chain, free_port
from tests.support.crowd import body as simulated
from tests.support.crowd import check_texts, crowd
from tests.support.nginx_reload import reconfigure
from tests.support.socket_client import SocketClient
from tests.support.workers import all_active_streams, until

WORKERS = 2
# Kept by a worker, and by NGINX, which is to close first: as in earnest, in a fifteenth of the time.
WORKER_KEEPS_SECONDS, NGINX_KEEPS_SECONDS = 2, 1
POSTS, CLIENTS = 2000, 200
AROUND_SECONDS = 0.02
UPGRADES = 100
LEFT = 28  # curl's exit code: its time was over


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


@pytest.fixture(scope="module")
def tls_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def chain(folder: Path, tls_port: int) -> Iterator[Chain]:
    certificate = Certificate.of(folder)
    env = {
        "SLUICE_TLS_CERTIFICATE": str(certificate.chain),
        "SLUICE_TLS_KEY": str(certificate.key),
        "SLUICE_TLS_PORT": str(tls_port),
        "GUNICORN_CMD_ARGS": f"--keep-alive {WORKER_KEEPS_SECONDS}",
    }
    with Chain(env, workers=WORKERS) as running:
        reconfigure(running, "http-upstream.conf", "keepalive_timeout", f"{NGINX_KEEPS_SECONDS}s")
        yield running


def curl(folder: Path, url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["curl", "--silent", "--no-buffer", "--cacert", str(folder / "certificate.pem"), *arguments, url]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def body(**simulator: float) -> dict[str, object]:
    return {"prompt": "Hello", "stream": True, "simulator": simulator}


def test_a_stream_comes_by_http2_and_what_is_not_tls_is_sent_there(chain: Chain, folder: Path, tls_port: int) -> None:
    asked = json.dumps(body(tokens=5, tokens_per_second=0))
    head = ["--header", "Content-Type: application/json", "--data", asked, "--write-out", "%{http_version}"]
    url = f"https://localhost:{tls_port}/api/v1/generate"
    result = curl(folder, url, "--http2", *head)
    assert result.returncode == 0
    assert result.stdout.rstrip().endswith("2")
    assert "event: done" in result.stdout
    assert curl(folder, f"{chain.url}/api/v1/generate", *head, "--dump-header", "-").stdout.count(" 308 ") == 1
    # As clients do who were given the other address: the same POST, by TLS.
    followed = curl(folder, f"http://localhost:{chain.port}/api/v1/generate", "--location", *head)
    assert "event: done" in followed.stdout


@pytest.mark.parametrize(("first_token_ms", "status"), [(10_000, "499"), (50, "200")], ids=["before", "amid"])
def test_a_client_that_leaves_over_http2_ends_its_generation_within_a_second(
    chain: Chain, folder: Path, tls_port: int, first_token_ms: int, status: str
) -> None:
    """Before its answer has begun it is a 499; after that the status was 200, and only `completion` is missing."""
    simulator = {"tokens": 2000, "tokens_per_second": 20, "first_token_ms": first_token_ms}
    messages = [{"role": "user", "content": "x"}]
    asked = json.dumps({"model": "simulator", "messages": messages, "stream": True, "simulator": simulator})
    name = f"left-{first_token_ms}"
    head = ["--header", "Content-Type: application/json", "--header", f"X-Request-ID: {name}", "--data", asked]
    url = f"https://localhost:{tls_port}/v1/chat/completions"
    assert curl(folder, url, "--http2", "--max-time", "1", *head).returncode == LEFT
    until(lambda: all_active_streams(chain) == [0] * WORKERS, 1, "nobody generates for a client that has left")
    until(lambda: name in chain.access_log, 5, "its line is there")
    line = next(json.loads(line) for line in chain.access_log.splitlines() if name in line)
    assert (line["status"], line["protocol"], line["completion"]) == (status, "HTTP/2.0", "")


async def test_two_thousand_posts_around_the_end_of_kept_connections_all_succeed(
    chain: Chain, folder: Path, tls_port: int
) -> None:
    """Each comes just when NGINX, or a worker, gives up an idle connection."""
    statuses: Counter[int] = Counter()
    asked = {"prompt": "x", "simulator": {"tokens": 1, "tokens_per_second": 0, "first_token_ms": 0}}
    url = f"https://localhost:{tls_port}/api/v1/generate"
    rng = random.Random(7)

    async def client(session: aiohttp.ClientSession, number: int) -> None:
        boundary = NGINX_KEEPS_SECONDS if number % 4 else WORKER_KEEPS_SECONDS
        for _ in range(POSTS // CLIENTS):
            async with session.post(url, json=asked) as answer:
                await answer.read()
                statuses[answer.status] += 1
            await asyncio.sleep(boundary + rng.uniform(-AROUND_SECONDS, AROUND_SECONDS))

    connector = aiohttp.TCPConnector(limit=0, ssl=Certificate.of(folder).trusted())
    async with aiohttp.ClientSession(connector=connector) as session:
        await asyncio.gather(*(client(session, number) for number in range(CLIENTS)))
    assert statuses == {200: POSTS}


@pytest.fixture(scope="module")
def plain() -> Iterator[Chain]:
    with Chain(workers=WORKERS) as running:
        yield running


async def test_reloads_with_a_bound_that_is_too_short_lose_no_stream(plain: Chain) -> None:
    """Old processes are ended long before their streams: readers come back, and miss nothing."""
    asked = [simulated(number, tokens=60, tokens_per_second=12) for number in range(12)]
    # A process is bound by what it read itself, so this one is for those that the next reload replaces.
    await asyncio.to_thread(reconfigure, plain, "main-process.conf", "worker_shutdown_timeout", "1s")
    async with crowd(plain.url, asked, heartbeat_seconds=15.0) as clients:
        await asyncio.to_thread(reconfigure, plain, "main-process.conf", "worker_shutdown_timeout", "660s")
    await check_texts(plain.url, clients)
    # They did lose their connections, or nothing would have been shown.
    assert min(client.journal.connections for client in clients) > 1


def test_a_hundred_upgrades_leave_connections_that_requests_can_use(plain: Chain) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(SocketClient(plain.url, "/api/v1/ws/generate")) for _ in range(UPGRADES)]
        for client in clients:
            client.say(type="ping")
        for client in clients:
            client.until("pong")
        # Others are served beside them, and after them.
        assert ask(plain.url, "/readyz").status == 200
    assert [ask(plain.url, "/readyz").status for _ in range(20)] == [200] * 20
    upgraded = [line for line in map(json.loads, plain.access_log.splitlines()) if line["status"] == "101"]
    until(lambda: plain.access_log.count('"status":"101"') == UPGRADES, 10, "each has its line")
    assert all(line["uri"] == "/api/v1/ws/generate" for line in upgraded)
