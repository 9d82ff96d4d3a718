"""Real runnables and graphs as upstreams: what is said of their events, how they end, and how they are left."""

import asyncio
import json
import sqlite3
from contextlib import aclosing, closing
from typing import Any

import pytest

from app.errors import UpstreamError, UpstreamRejected, UpstreamStalled, UpstreamTimeout
from app.events import Usage
from app.providers.langchain import LangChainProvider, RunnableError
from examples.agent.tools import query_rivers
from tests.support import runnables
from tests.support.launched import HOME
from tests.unit.providers.drive import Outcome, asked, collect

AGENT = HOME / "examples" / "agent"


def provider(name: str, **options: Any) -> LangChainProvider:
    waits = {"first_token_seconds": 10, "idle_seconds": 10, "total_seconds": 20} | options
    return LangChainProvider(f"tests.support.runnables:{name}", **waits)


async def run(name: str, **options: Any) -> Outcome:
    return await collect(provider(name, **options), "agent")


def kinds(outcome: Outcome) -> list[str]:
    return [token.kind for token in outcome.tokens]


async def test_a_graph_is_heard_through_its_tools() -> None:
    outcome = await run("graph")
    assert kinds(outcome) == ["tool_call", "content", "content"]
    assert outcome.text == "It is 3 m deep."
    (call,) = json.loads(outcome.tokens[0].text)
    assert call == {
        "index": 0,
        "id": "call-1",
        "type": "function",
        "function": {"name": "depth", "arguments": '{"place": "weir"}'},
    }
    assert outcome.done is not None
    assert outcome.done.finish_reason == "length"
    assert outcome.done.usage == Usage(7, 3)


async def test_calls_that_a_graph_runs_itself_can_be_kept_from_the_reader() -> None:
    assert kinds(await run("graph", tool_calls=False)) == ["content", "content"]


async def test_a_model_whose_words_are_not_for_the_reader_is_heard_in_the_end_alone() -> None:
    outcome = await run("silent_graph", tool_calls=False)
    assert outcome.text == "Not for you."
    assert len(outcome.tokens) == 1


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("model", ["one ", "two"]),
        ("chain", ["one ", "two"]),  # once, though the parser says it again
        ("words", ["one ", "two ", "three"]),
        ("function", ["1 messages"]),
        ("whole", ["all at once"]),
    ],
)
async def test_whatever_a_runnable_streams_is_said_once(name: str, texts: list[str]) -> None:
    outcome = await run(name)
    assert [token.text for token in outcome.tokens] == texts
    assert outcome.done is not None


async def test_usage_is_the_models_own_or_counted() -> None:
    counted, own = await run("words"), await run("whole")
    assert counted.done is not None
    assert counted.done.usage == Usage(2, 3)
    assert own.done is not None
    assert own.done.usage == Usage(7, 3)


async def test_thoughts_are_told_from_the_answer() -> None:
    outcome = await run("thinking")
    assert [(token.kind, token.text) for token in outcome.tokens] == [("thought", "Hm."), ("content", "So.")]


async def test_calls_for_the_reader_end_the_answer() -> None:
    outcome = await run("two_calls")
    assert [json.loads(token.text)[0]["index"] for token in outcome.tokens] == [0, 1]
    assert outcome.done is not None
    assert outcome.done.finish_reason == "tool_calls"


async def test_a_program_that_fails_is_an_error_that_tells_nothing_of_it() -> None:
    outcome = await run("failing_graph")
    assert outcome.text == "It is "
    assert type(outcome.error) is UpstreamError
    assert "secret-host" not in outcome.error.message
    assert "secret-host" in outcome.error.detail


async def test_a_refusal_of_the_models_api_keeps_its_status() -> None:
    outcome = await run("refused")
    assert isinstance(outcome.error, UpstreamRejected)
    assert (outcome.error.status, outcome.error.code) == (429, "upstream_rate_limited")
    assert "api-key-of-ours" not in outcome.error.message


@pytest.mark.parametrize(
    ("name", "wait", "error"),
    [
        ("never", "first_token_seconds", UpstreamTimeout),
        ("stalls", "idle_seconds", UpstreamStalled),
        ("slow", "total_seconds", UpstreamTimeout),
    ],
)
async def test_every_wait_ends(name: str, wait: str, error: type[UpstreamError]) -> None:
    outcome = await run(name, **{wait: 0.6})
    assert type(outcome.error) is error
    assert 0.5 < outcome.seconds < 5


async def test_a_reader_who_leaves_stops_the_program() -> None:
    runnables.LEFT.clear()
    async with asyncio.timeout(5), aclosing(provider("stalls").generate(asked("agent"))) as events:
        await anext(events)
    assert runnables.LEFT == ["teller"]


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("tests.support.nowhere:graph", "tests.support.nowhere:graph cannot be imported: ModuleNotFoundError"),
        ("tests.support.runnables:nothing", "tests.support.runnables:nothing cannot be imported: AttributeError"),
        ("tests.support.runnables:not_one", "tests.support.runnables:not_one is no Runnable"),
    ],
)
def test_what_cannot_be_run_is_named(path: str, why: str) -> None:
    with pytest.raises(RunnableError, match=why):
        LangChainProvider(path, first_token_seconds=1, idle_seconds=1, total_seconds=1)


def test_the_example_s_database_is_what_its_script_makes() -> None:
    with closing(sqlite3.connect(":memory:")) as made, closing(sqlite3.connect(AGENT / "rivers.sqlite")) as kept:
        made.executescript((AGENT / "rivers.sql").read_text(encoding="utf-8"))
        assert list(made.iterdump()) == list(kept.iterdump())


@pytest.mark.parametrize(
    "sql", ["DELETE FROM rivers", "ATTACH ':memory:' AS other", "SELECT load_extension('x')", "no"]
)
def test_the_example_s_tool_only_reads(sql: str) -> None:
    assert query_rivers.invoke({"sql": sql}).startswith("The database refused")
