"""One event loop serves all streams of a worker: nothing may hold it, neither a callback nor a pool of threads."""

import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import iter_route_contexts
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.routing import Mount

from tests.support.application import application
from tests.support.call import Call, ask, finish_all
from tests.support.gunicorn import Gunicorn
from tests.support.models import Models
from tests.support.surfaces import NATIVE, OPENAI, SURFACES
from tests.support.upstream import ScriptedUpstream
from tests.support.upstream_script import Script
from tests.support.workers import until

CONCURRENT = 60
SILENT_MS = 2_500
PROBE_SECONDS_MAX = 1.0
# asyncio calls a callback slow from 0.1 s on. One that a neighbour on two cores interrupts is not; one of ours that
# blocks does it each time.
NOISE_MAX = 2
FILLED_SECONDS = 2.5
SLOW = re.compile(r"Executing .* took [0-9.]+ seconds")
DEBUG_THEN_BLOCK = """
if loop.get_debug():
    time.sleep(0.3)
loop.set_debug(True)
"""
FILL = f"""
from concurrent.futures import ThreadPoolExecutor
loop.set_default_executor(ThreadPoolExecutor(1))
loop.run_in_executor(None, time.sleep, {FILLED_SECONDS})
"""
COLLECT = """
import gc
def collect():
    gc.collect()
    loop.call_later(0.01, collect)
collect()
"""
# Says of each collection that it took place; and makes so many rings that nobody refers to.
WATCH = """
import gc
gc.callbacks.append(lambda phase, info: phase == "stop" and print("collected", info["collected"], flush=True))
for _ in range(5_000):
    ring = []
    ring.append(ring)
"""


@pytest.fixture(scope="module")
def app() -> FastAPI:
    return application()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, upstream: ScriptedUpstream) -> Models:
    # By name, so that it has to be looked up.
    return Models(tmp_path_factory.mktemp("loop"), upstream, base_url=f"http://localhost:{upstream.port}/v1")


def callables(app: FastAPI) -> Iterator[tuple[str, Callable[..., Any]]]:
    """What a request may run: each route's endpoint and all that it depends on."""
    for context in iter_route_contexts(app.routes):
        if isinstance(context.original_route, Mount):  # files, which Starlette reads on threads of its own
            continue
        assert context.endpoint is not None
        yield str(context.path), context.endpoint
        for call in dependencies(getattr(context, "dependant", None)):
            yield str(context.path), call


def dependencies(dependant: Dependant | None) -> Iterator[Callable[..., Any]]:
    for child in dependant.dependencies if dependant else ():
        assert child.call is not None
        yield child.call
        yield from dependencies(child)


def test_every_endpoint_and_dependency_is_a_coroutine_function(app: FastAPI) -> None:
    """Others run on forty threads, which forty slow requests fill; generators hold theirs for a whole stream."""
    found = list(callables(app))
    assert len({path for path, _ in found}) > 10
    assert [(path, call) for path, call in found if not inspect.iscoroutinefunction(call)] == []


def test_no_middleware_stands_between_a_stream_and_its_client(app: FastAPI) -> None:
    """Starlette's base class joins a stream's pieces in a queue and hides that the client has left."""
    classes = [middleware.cls for middleware in app.user_middleware]
    assert len(classes) >= 3
    assert [cls for cls in classes if isinstance(cls, type) and issubclass(cls, BaseHTTPMiddleware)] == []


def test_no_callback_is_slow(upstream: ScriptedUpstream, models: Models) -> None:
    # uvloop measures no callbacks.
    conf = "SluiceWorker.CONFIG_KWARGS['loop'] = 'asyncio'"
    with Gunicorn({"SLUICE_CONFIG": str(models.path)}, conf=conf, poke=DEBUG_THEN_BLOCK) as gunicorn:
        ask(gunicorn.url, "/docs")  # what is done once may take its time
        gunicorn.poke()
        everything_once(gunicorn, upstream, models)
        assert len(SLOW.findall(gunicorn.log)) <= NOISE_MAX, SLOW.findall(gunicorn.log)
        assert "was never awaited" not in gunicorn.log
        gunicorn.poke()  # one that is slow is seen
        until(lambda: re.search(r"Executing .*poked.* took", gunicorn.log), 10, "the slow callback is in the log")


def everything_once(gunicorn: Gunicorn, upstream: ScriptedUpstream, models: Models) -> None:
    """Streams of both surfaces, side by side, with what is large and what fails among them."""
    good, fails, bursts = models.unused(), models.unused(), models.unused()
    upstream.script(good, tokens=100, delay_seconds=0.01)
    upstream.script(fails, error_at=3)
    upstream.script(bursts, tokens=2000)
    calls = []
    with ExitStack() as stack:
        for number in range(24):
            surface = SURFACES[number % 2]
            model = (good, bursts, fails)[number % 3]
            body = surface.body(model, stream=number % 4 < 3)
            calls.append(stack.enter_context(Call(gunicorn.url, surface.path, body)))
        calls.append(stack.enter_context(Call(gunicorn.url, NATIVE.path, NATIVE.body(good, prompt="ä " * 49_000))))
        left = stack.enter_context(Call(gunicorn.url, OPENAI.path, OPENAI.body(good)))
        left.until(1).leave("rst")
        finish_all(calls)
        assert ask(gunicorn.url, NATIVE.path, {"prompt": ""}).status == 422
    complete = [call for call in calls if call.verdict == "complete"]
    assert len(complete) == 17
    stream_id = complete[-1].headers["x-stream-id"]
    assert ask(gunicorn.url, f"/api/v1/streams/{stream_id}").text == complete[-1].text


def test_sixty_silent_requests_hold_nobody_up() -> None:
    with Gunicorn() as gunicorn, ExitStack() as stack:
        silent = {"tokens": 1, "first_token_ms": SILENT_MS}
        calls = [
            stack.enter_context(
                Call(gunicorn.url, surface.path, surface.body("simulator", stream=stream, simulator=silent))
            )
            for surface in SURFACES
            for stream in (True, False)
            for _ in range(CONCURRENT // 4)
        ]
        for path in ("/health", "/livez", "/readyz", "/v1/models", "/docs"):
            probe = ask(gunicorn.url, path)
            assert probe.status == 200
            assert probe.head_at - probe.started < PROBE_SECONDS_MAX
        quick = {"tokens": 1, "first_token_ms": 0}
        probe = ask(gunicorn.url, NATIVE.path, NATIVE.body("simulator", simulator=quick))
        assert probe.head_at - probe.started < PROBE_SECONDS_MAX
        assert all(call.status == 0 for call in calls)  # they are still silent
        finish_all(calls)
        assert [call.verdict for call in calls] == ["complete"] * CONCURRENT


def test_full_default_threads_hold_no_stream_up(upstream: ScriptedUpstream, models: Models) -> None:
    """Names are looked up there by default, so that somebody's blocking work would look like a DNS that is down."""
    model = models.unused()
    with Gunicorn({"SLUICE_CONFIG": str(models.path)}, poke=FILL) as gunicorn:
        gunicorn.poke()
        ask(gunicorn.url, "/health")
        call = ask(gunicorn.url, NATIVE.path, NATIVE.body(model))
        assert call.verdict == "complete"
        assert call.text == Script().text
        assert call.times[-1] - call.started < PROBE_SECONDS_MAX


def test_no_generation_is_collected_as_garbage(upstream: ScriptedUpstream, models: Models) -> None:
    """A task that nobody holds a reference to may vanish, and its stream with it."""
    model = models.unused()
    upstream.script(model, tokens=100, delay_seconds=0.02)
    with Gunicorn({"SLUICE_CONFIG": str(models.path)}, poke=COLLECT) as gunicorn, ExitStack() as stack:
        gunicorn.poke()
        calls = [
            stack.enter_context(Call(gunicorn.url, surface.path, surface.body(model, stream=stream)))
            for surface in SURFACES
            for stream in (True, False)
            for _ in range(3)
        ]
        finish_all(calls)
        assert [call.verdict for call in calls] == ["complete"] * 12
        assert "was destroyed" not in gunicorn.log


def test_no_stream_waits_for_a_walk_through_all_others() -> None:
    """CPython itself would begin one about once in ten seconds, and at 400 streams held all of them for 0.1 s."""
    endless = NATIVE.body("simulator", stream=True, simulator={"tokens": 1000, "tokens_per_second": 10})
    short = NATIVE.body("simulator", stream=True, simulator={"tokens": 3, "tokens_per_second": 0})
    with Gunicorn({"SLUICE_GRACE_SECONDS": "1"}, poke=WATCH) as gunicorn:
        with ExitStack() as stack:
            calls = [stack.enter_context(Call(gunicorn.url, NATIVE.path, endless)) for _ in range(CONCURRENT)]
            for call in calls:
                call.until(1)
            gunicorn.poke()
            for _ in range(100):
                assert ask(gunicorn.url, NATIVE.path, short).verdict == "complete"
            assert "collected" not in gunicorn.log
        # It was only put off.
        until(lambda: sum(map(int, re.findall(r"collected (\d+)", gunicorn.log))) >= 5_000, 20, "garbage is collected")
