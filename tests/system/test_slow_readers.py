"""Readers that take nothing, or everything at once: they cost their neighbours nothing, and memory has a bound."""

import json
import socket
import statistics
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.support.call import Call, ask, finish_all
from tests.support.chain import Chain
from tests.support.footprint import private_bytes
from tests.support.models import Models
from tests.support.redis import RedisServer
from tests.support.surfaces import NATIVE, OPENAI
from tests.support.upstream import ScriptedUpstream
from tests.support.workers import until

# In which also a busy machine generates the 7 MB below.
SEND_SECONDS = 4
CUT_SECONDS_MAX = SEND_SECONDS + 20
STUCK_READERS = 4
# 7 MB each, below the bound of a stream.
PIECES, PIECE_BYTES = 900, 8_000
# As much in few events: generated in a small part of the time after which a reader is cut.
LARGE_PIECES, LARGE_PIECE_BYTES = 112, 64_000
MORE_BYTES_MAX = 20_000_000
HISTORY_EVENTS = 50_000
NEIGHBOURS = 10
NEIGHBOURS_PACE = 100
GAP_P99_SECONDS_MAX = 0.05
# A probe of a busy worker must not fail for it, also where other tests have the other core.
HELD_SECONDS_MAX = 0.5


@pytest.fixture(scope="module", params=["lmdb", "redis"])
def chain(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, upstream: ScriptedUpstream
) -> Iterator[Chain]:
    """One worker, so that nobody is anybody else's neighbour."""
    models = Models(tmp_path_factory.mktemp("slow"), upstream)
    env = {"SLUICE_CONFIG": str(models.path), "SLUICE_SEND_SECONDS": str(SEND_SECONDS), "SLUICE_HEARTBEAT_SECONDS": "1"}
    if request.param == "lmdb":
        with Chain(env, workers=1) as running:
            yield running
        return
    with RedisServer() as redis, Chain(env | {"SLUICE_STREAM_LOG": redis.url}, workers=1) as running:
        yield running


@contextmanager
def neighbours(chain: Chain, seconds: float) -> Iterator[list[Call]]:
    simulator = {"tokens": int(seconds * NEIGHBOURS_PACE), "tokens_per_second": NEIGHBOURS_PACE, "jitter": 0}
    question = NATIVE.body("simulator", simulator=simulator)
    with ExitStack() as stack:
        calls = [stack.enter_context(Call(chain.url, NATIVE.path, question)) for _ in range(NEIGHBOURS)]
        # All have asked before anybody is waited for: nothing is read meanwhile, which would count as a gap.
        yield [call.until(1) for call in calls]


def gap_p99(calls: list[Call]) -> float:
    """Of the time between two tokens, over all of them."""
    assert {call.verdict for call in calls} == {"complete"}
    gaps = [b - a for call in calls for a, b in pairwise(call.times)]
    return statistics.quantiles(gaps, n=100)[-1]


def come_and_never_read(chain: Chain, path: str, body: dict[str, Any] | None = None) -> socket.socket:
    """A client whose kernel takes 4 KB and who takes nothing from it."""
    sent = "" if body is None else json.dumps(body)
    head = f"{'POST' if sent else 'GET'} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json"
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", chain.port))
    client.sendall(f"{head}\r\nContent-Length: {len(sent)}\r\n\r\n{sent}".encode())
    return client


def stream_of(chain: Chain, model: str) -> str:
    """The path of a stream that has ended, and that nobody has read."""
    body: dict[str, Any] = {"model": model, "stream": True, "prompt": "x", "on_disconnect": "finish"}
    with Call(chain.url, NATIVE.path, body) as first:
        path = f"/api/v1/streams/{first.head().headers['x-stream-id']}"
    # Whoever left held no producer.
    until(lambda: ask(chain.url, f"{path}/status").json["state"] == "done", 30, "it is complete")
    return path


def slow_readers(chain: Chain) -> int:
    """How many were cut so far."""
    return chain.log.count('"outcome":"slow_reader"')


def test_readers_that_never_read_hold_nobody_and_are_cut(chain: Chain, upstream: ScriptedUpstream, turn: int) -> None:
    """Each has 7 MB to take, and takes nothing: what is kept for it is a page of the log."""
    model = f"model-1{turn}"
    upstream.script(model, tokens=["x" * PIECE_BYTES] * PIECES)
    path = stream_of(chain, model)
    (pid,) = chain.worker_pids()
    ask(chain.url, path)
    cut_before, before = slow_readers(chain), private_bytes(pid)
    with ExitStack() as stack:
        calls = stack.enter_context(neighbours(chain, 2 * SEND_SECONDS))
        for _ in range(STUCK_READERS):
            stack.enter_context(come_and_never_read(chain, path))
        most = 0

        def cut() -> bool:
            nonlocal most
            most = max(most, private_bytes(pid))
            return slow_readers(chain) == cut_before + STUCK_READERS

        until(cut, CUT_SECONDS_MAX, "they are cut")
        finish_all(calls)
    assert most - before < MORE_BYTES_MAX
    assert gap_p99(calls) < 1 / NEIGHBOURS_PACE + GAP_P99_SECONDS_MAX


def test_a_generation_whose_reader_never_reads_is_neither_held_up_nor_kept_in_memory(
    chain: Chain, upstream: ScriptedUpstream, turn: int
) -> None:
    model = f"model-2{turn}"
    upstream.script(model, tokens=["x" * LARGE_PIECE_BYTES] * LARGE_PIECES)
    (pid,) = chain.worker_pids()
    cut_before, before = slow_readers(chain), private_bytes(pid)
    body = {"model": model, "stream": True, "prompt": "x", "on_disconnect": "finish"}
    with come_and_never_read(chain, NATIVE.path, body):
        most = 0

        def cut() -> bool:
            nonlocal most
            most = max(most, private_bytes(pid))
            return slow_readers(chain) == cut_before + 1

        until(cut, CUT_SECONDS_MAX, "it is cut")
        entry = upstream.wait_finished(model, 20)
    assert entry.tokens == LARGE_PIECES
    # It was over before its reader was cut: it did not stand still until then.
    assert ends_of(chain, model) == ["generation", "request"]
    assert most - before < MORE_BYTES_MAX


def ends_of(chain: Chain, model: str) -> list[str]:
    """What the log tells of the model's one stream, in its order: the generation's end, and its reader's."""
    lines = [json.loads(line) for line in chain.log.splitlines() if line.startswith("{")]
    (stream_id,) = [line["stream"] for line in lines if line["event"] == "generation" and line["model"] == model]
    return [line["event"] for line in lines if stream_id in (line.get("stream"), line.get("stream_id"))]


def test_what_is_as_large_as_it_may_be_holds_no_neighbour(
    chain: Chain, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    """An answer that is counted and put together at its end, and a request that is read and passed on in one piece."""
    model, pieces, piece = "model-3", 2_400, "word " * 100
    upstream.script(model, tokens=[piece] * pieces)
    properties = {f"property-{number}": {"type": "string"} for number in range(500)}
    function = {"name": "f", "parameters": {"type": "object", "properties": properties}}
    tools = [{"type": "function", "function": function}] * 128
    large = tmp_path / "body.json"
    large.write_text(json.dumps(OPENAI.body(model, stream=False, tools=tools)))
    assert 2_000_000 < large.stat().st_size < 10_000_000
    # A process of its own: see below.
    command = ["curl", "--silent", "--fail", "--max-time", "30", "--json", f"@{large}", chain.url + OPENAI.path]
    with (
        neighbours(chain, 5) as calls,
        subprocess.Popen([*command, "--output", tmp_path / "answer.json"]) as asker,
    ):
        finish_all(calls)
        assert asker.poll() == 0, "it is there while the neighbours still are"
    answer = json.loads((tmp_path / "answer.json").read_bytes())
    assert len(answer["choices"][0]["message"]["content"]) == pieces * len(piece)
    assert answer["usage"]["completion_tokens"] > 0
    assert gap_p99(calls) < 1 / NEIGHBOURS_PACE + GAP_P99_SECONDS_MAX
    assert max(b - a for call in calls for a, b in pairwise(call.times)) < HELD_SECONDS_MAX


def test_a_long_history_holds_no_neighbour(chain: Chain, upstream: ScriptedUpstream) -> None:
    """Read to the end, and left in the middle: nobody can tell by the gaps between his own tokens."""
    model = "model-4"
    upstream.script(model, tokens=HISTORY_EVENTS)
    path = stream_of(chain, model)
    # A process of its own, or reading would hold the thread that takes the neighbours' times.
    count = f"curl --silent --fail {chain.url}{path} | grep --count '^id:'"
    with neighbours(chain, 2) as calls:
        finish_all(calls)
        # What this machine does to them by itself, where other tests have both cores.
        alone_seconds = gap_p99(calls)
    with neighbours(chain, 4) as calls:
        Call(chain.url, path).until(1000).leave("rst")
        with subprocess.Popen(count, shell=True, stdout=subprocess.PIPE) as reader:
            finish_all(calls)
            assert int(reader.communicate(timeout=20)[0]) == HISTORY_EVENTS + 1
    assert gap_p99(calls) < max(GAP_P99_SECONDS_MAX, alone_seconds + GAP_P99_SECONDS_MAX - 1 / NEIGHBOURS_PACE)
