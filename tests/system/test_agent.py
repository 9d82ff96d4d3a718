"""The example agent through Gunicorn: the calls of its tools and its words as a stream, and one that fails."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.support.call import ask
from tests.support.gunicorn import Gunicorn
from tests.support.launched import HOME
from tests.support.surfaces import NATIVE

QUESTION = "Which are the longest rivers, and what is a weir?"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    program: dict[str, Any] = {"provider": "langchain", "runnable": "examples.agent.graph:graph"}
    failing = program | {"runnable": "tests.support.runnables:failing_graph"}
    models = {"agent": [program], "quiet": [program | {"tools": False}], "failing": [failing]}
    path = tmp_path_factory.mktemp("agent") / "models.json"
    path.write_text(json.dumps({"models": models}))
    with Gunicorn({"SLUICE_CONFIG": str(path)}) as running:
        yield running.url


def test_a_native_client_sees_what_is_called_and_reads_the_answer(url: str) -> None:
    call = ask(url, NATIVE.path, {"model": "agent", "prompt": QUESTION, "stream": True})
    assert call.verdict == "complete"
    deltas = [
        json.loads(e["token"])[0] for e in (frame.json() for frame in call.frames) if e.get("type") == "tool_call"
    ]
    assert [delta["function"]["name"] for delta in deltas if "name" in delta["function"]] == [
        "query_rivers",
        "search_notes",
    ]
    assert "Volga, 3531, Caspian Sea" in call.text
    assert "A weir is a low dam" in call.text


def test_the_sdk_reads_an_agent_that_runs_its_tools_itself(url: str) -> None:
    with (
        openai.OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0, timeout=20) as client,
        client.chat.completions.stream(model="quiet", messages=[{"role": "user", "content": QUESTION}]) as stream,
    ):
        choice = stream.get_final_completion().choices[0]
    assert choice.finish_reason == "stop"
    assert not choice.message.tool_calls
    assert "Danube, 2850, Black Sea" in (choice.message.content or "")


def test_an_agent_that_fails_ends_in_an_error_and_is_not_run_again(url: str) -> None:
    call = ask(url, NATIVE.path, {"model": "failing", "prompt": QUESTION, "stream": True})
    assert call.verdict == "error"
    assert call.text == "It is "
    assert call.frames[-1].json()["code"] == "upstream_error"
    assert b"secret-host" not in call.body


def test_a_program_that_cannot_be_had_stops_the_start_with_its_name(tmp_path: Path) -> None:
    models = tmp_path / "models.yaml"
    models.write_text("models: {a: [{provider: langchain, runnable: 'examples.nowhere:graph'}]}")
    code = f"import os\nfrom app.main import create_app\nos.environ['SLUICE_CONFIG'] = {str(models)!r}\ncreate_app()"
    done = subprocess.run([sys.executable, "-c", code], cwd=HOME, capture_output=True, text=True, timeout=60)
    assert done.returncode == 3
    assert "upstream a/0: runnable: examples.nowhere:graph cannot be imported" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
