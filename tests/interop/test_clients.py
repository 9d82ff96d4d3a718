"""Clients of other people's, unmodified, with tools, over upstreams of both protocols. `make interop` runs them."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.chain import Chain
from tests.support.launched import HOME
from tests.support.models import Models
from tests.support.upstream import ScriptedUpstream
from tests.support.upstream_messages import text_block, thinking_block, tool_block
from tests.support.upstream_script import Script

pytestmark = pytest.mark.interop

FOLDER = Path(__file__).parent
CLIENT_SECONDS_MAX = 60.0
LANGCHAIN = [str(HOME / ".tools/interop/bin/python"), str(FOLDER / "langchain_client.py")]
AI_SDK = ["node", str(FOLDER / "ai_sdk.mjs")]
CLIENTS = {
    "ChatOpenAI": [*LANGCHAIN, "openai"],
    "ChatAnthropic": [*LANGCHAIN, "anthropic"],
    "AI SDK, OpenAI-compatible": [*AI_SDK, "compatible"],
    "AI SDK, OpenAI": [*AI_SDK, "openai"],
    "AI SDK, Anthropic": [*AI_SDK, "anthropic"],
}
CALL = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Köln"}'}}
ASKS = Script(
    reasoning=["Let me ", "see."],
    tokens=["I ", "look."],
    tool_calls=[[CALL]],
    events=[
        *thinking_block(0, "Let me ", "see.", signature="c2ln"),
        *text_block(1, "I ", "look."),
        *tool_block(2, "call_1", "weather", '{"city":', '"Köln"}'),
    ],
    finish_reason="tool_calls",
)
ANSWERS = Script(tokens=["Rain", " 🌧", "."], delay_seconds=0.05, usage=True)

every_client = pytest.mark.parametrize("client", CLIENTS)
every_protocol = pytest.mark.parametrize("model", ["openai", "anthropic"], indirect=True)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, upstream: ScriptedUpstream) -> Models:
    found = Models(tmp_path_factory.mktemp("interop"), upstream)
    for number in range(Models.COUNT):
        found.add(f"claude-{number}", provider="anthropic")
    return found


@pytest.fixture(scope="module")
def chain(models: Models) -> Iterator[Chain]:
    with Chain({"SLUICE_CONFIG": str(models.path)}, workers=1) as running:
        yield running


@pytest.fixture
def model(request: pytest.FixtureRequest, models: Models) -> str:
    """A name that nobody asked for before, at an upstream of the protocol that the test names."""
    name = models.unused()
    return name if request.param == "openai" else name.replace("model", "claude")


def run(client: str, url: str, model: str) -> subprocess.CompletedProcess[str]:
    command = [*CLIENTS[client], url, model]
    return subprocess.run(command, capture_output=True, text=True, timeout=CLIENT_SECONDS_MAX)


@every_protocol
@every_client
def test_a_client_streams_calls_its_tool_and_streams_the_answer(
    client: str, model: str, chain: Chain, upstream: ScriptedUpstream
) -> None:
    upstream.script(model, ASKS, ANSWERS)
    done = run(client, chain.url, model)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"texts": ["I look.", "Rain 🌧."], "output_tokens": 3}
    _, second = (entry.body for entry in upstream.requests(model))
    assert _results(second) == [("call_1", "Rain.")]


def _results(body: dict[str, Any]) -> list[tuple[str, str]]:
    """What the upstream was told of its tools, in the protocol that it speaks."""
    if "claude" not in body["model"]:
        return [(each["tool_call_id"], each["content"]) for each in body["messages"] if each["role"] == "tool"]
    blocks = [block for each in body["messages"] if isinstance(each["content"], list) for block in each["content"]]
    return [(each["tool_use_id"], _text(each["content"])) for each in blocks if each["type"] == "tool_result"]


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "".join(block["text"] for block in content)


@every_protocol
@every_client
def test_a_client_tells_half_an_answer_from_a_whole_one(
    client: str, model: str, chain: Chain, upstream: ScriptedUpstream
) -> None:
    upstream.script(model, die_after=3)
    done = run(client, chain.url, model)
    assert done.returncode == 1
    assert "upstream" in done.stderr.lower()


@every_protocol
@every_client
def test_a_client_hears_of_a_refusal(client: str, model: str, chain: Chain, upstream: ScriptedUpstream) -> None:
    upstream.script(model, status=429)
    done = run(client, chain.url, model)
    assert done.returncode == 1
    assert "scripted 429" in done.stderr
