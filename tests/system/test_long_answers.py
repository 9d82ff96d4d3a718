"""Five megabytes of an answer, whose end is one piece of work for whoever has to say all of it once more: what else
runs on its worker keeps its pace and its heartbeats."""

import itertools
import json
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tests.support.call import Call, listen
from tests.support.chain import Chain
from tests.support.footprint import inside_env
from tests.support.inside import probe
from tests.support.models import Models
from tests.support.surfaces import NATIVE, OPENAI
from tests.support.upstream import ScriptedUpstream
from tests.support.upstream_script import Script

TOKENS, TOKEN_BYTES = 500, 10_000
HEARTBEAT_SECONDS = 0.5
# By so much whatever else is due in that moment is late, on a machine that does nothing else.
HELD_SECONDS_MAX = 0.25
ANSWER_SECONDS_MAX = 60.0
TEXT = b"x" * TOKENS * TOKEN_BYTES
QUICK = {"tokens": 2, "tokens_per_second": 0, "first_token_ms": 0}
PACED = {"tokens": 30_000, "tokens_per_second": 20, "jitter": 0, "first_token_ms": 0}
SILENT = "silent"
_numbers = itertools.count()


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    # A socket's path is short, and pytest's folders are not.
    with tempfile.TemporaryDirectory(prefix="sluice-", dir="/tmp") as made:
        yield Path(made)


@pytest.fixture(scope="module")
def chain(models: Models, folder: Path) -> Iterator[Chain]:
    models.add(SILENT, first_token_seconds=280, total_seconds=300)
    env = {"SLUICE_CONFIG": str(models.path), "SLUICE_HEARTBEAT_SECONDS": str(HEARTBEAT_SECONDS)}
    with Chain(env | inside_env(folder), workers=1) as running:
        yield running


@pytest.fixture(scope="module")
def model(models: Models, upstream: ScriptedUpstream) -> str:
    name = models.unused()
    upstream.script(name, Script(tokens=["x" * TOKEN_BYTES] * TOKENS))
    return name


@pytest.fixture(scope="module")
def neighbours(chain: Chain, upstream: ScriptedUpstream) -> Iterator[list[Call]]:
    """One that speaks at a pace, and one that waits for its upstream and hears heartbeats."""
    upstream.script(SILENT, Script(stall_after=0))
    bodies = [NATIVE.body("simulator", simulator=PACED), NATIVE.body(SILENT)]
    with ExitStack() as stack:
        speaks, waits = (stack.enter_context(Call(chain.url, NATIVE.path, body)) for body in bodies)
        yield [speaks.until(2), waits.until_heartbeat()]


def whole(chain: Chain, path: str, body: Any = None) -> bytes:
    """An answer, read without a look at it."""
    connection = HTTPConnection("127.0.0.1", chain.port, timeout=ANSWER_SECONDS_MAX)
    sent = None if body is None else json.dumps(body)
    connection.request("GET" if body is None else "POST", path, sent, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    read = answer.read()
    connection.close()
    assert answer.status == 200, read[-500:]
    return read


def native(chain: Chain, model: str) -> bytes:
    return whole(chain, NATIVE.path, NATIVE.body(model, stream=False))


def completion(chain: Chain, model: str) -> bytes:
    return whole(chain, OPENAI.path, OPENAI.body(model, stream=False))


def response(chain: Chain, model: str) -> bytes:
    """A stream that says all of it once more in each of its last four frames; and then it is read from the log."""
    said = whole(chain, "/v1/responses", {"model": model, "input": "Hello", "stream": True})
    assert said.count(TEXT) == 4
    response_id = json.loads(said.partition(b"data: ")[2].partition(b"\n")[0])["response"]["id"]
    return whole(chain, f"/v1/responses/{response_id}")


def conversation(chain: Chain, model: str) -> bytes:
    """Whose next turn begins with all of it."""
    body = {"message": "Hello", "model": model, "conversation_id": f"long-{next(_numbers)}"}
    said = whole(chain, "/api/v1/chat", body)
    whole(chain, "/api/v1/chat", body | {"model": "simulator", "simulator": QUICK})
    return said


@pytest.mark.parametrize("asked", [native, completion, response, conversation])
def test_the_end_of_a_long_answer_delays_no_neighbour(
    chain: Chain, neighbours: list[Call], folder: Path, model: str, asked: Callable[[Chain, str], bytes]
) -> None:
    speaks, waits = neighbours
    (worker,) = chain.worker_pids()
    probe.held_seconds(folder, worker)
    heard = len(speaks.frames), len(waits.heartbeat_times)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(asked, chain, model)
        while not answer.done():
            listen(neighbours, 0.1)
    assert TEXT in answer.result()
    held = probe.held_seconds(folder, worker)
    assert 0 < held < HELD_SECONDS_MAX
    speaks.until(heard[0] + 5)
    listen(neighbours, 2 * HEARTBEAT_SECONDS)
    assert len(waits.heartbeat_times) > heard[1]
    assert [frame.json()["index"] for frame in speaks.frames] == list(range(1, len(speaks.frames) + 1))
