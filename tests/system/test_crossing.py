"""A model whose upstreams speak different protocols: whoever answers, each SDK gets one whole answer."""

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from tests.support.gunicorn import Gunicorn
from tests.support.upstream import ScriptedUpstream
from tests.support.upstream_messages import tool_block
from tests.support.upstream_script import Script

QUESTION: Any = [{"role": "user", "content": "Hello"}]
TEXT = Script(tokens=6).text
# The failures here are scripted: no upstream is asked twice, and none is given up.
ONCE = {"retries_max": 0, "breaker_failures_max": 0}
every_first = pytest.mark.parametrize("first", ["anthropic", "openai"])


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, upstream: ScriptedUpstream) -> Iterator[str]:
    """The model `anthropic` asks its upstream of that protocol first, and then the other one; `openai` likewise."""

    def target(provider: str, name: str) -> dict[str, Any]:
        return {"provider": provider, "base_url": upstream.base_url, "model": name, **ONCE}

    models = {
        first: {
            "after_first_token": "splice",
            "upstreams": [target(first, f"{first}-first"), target(second, f"{first}-second")],
        }
        for first, second in (("anthropic", "openai"), ("openai", "anthropic"))
    }
    path = tmp_path_factory.mktemp("crossing") / "models.json"
    path.write_text(json.dumps({"models": models}))
    with Gunicorn({"SLUICE_CONFIG": str(path)}) as running:
        yield running.url


def both(url: str, model: str, **options: Any) -> tuple[anthropic.types.Message, Any]:
    """What each SDK has at the end of its stream."""
    with anthropic.Anthropic(base_url=url, api_key="unused", max_retries=0, timeout=20) as client:
        extra: Any = {"tools": [{"name": "weather", "input_schema": {"type": "object"}}]} if options else {}
        with client.messages.stream(model=model, messages=QUESTION, max_tokens=64, **extra) as answer:
            message = answer.get_final_message()
    with (
        openai.OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0, timeout=20) as other,
        other.chat.completions.stream(model=model, messages=QUESTION, **options) as chunks,
    ):
        return message, chunks.get_final_completion().choices[0].message


def text_of(message: anthropic.types.Message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


@every_first
@pytest.mark.parametrize(
    "script",
    [Script(status=529), Script(die_after=0), Script(tokens=6, die_after=3)],
    ids=["overloaded", "cut at once", "cut later"],
)
def test_an_answer_is_rescued_by_an_upstream_of_the_other_protocol(
    script: Script, first: str, url: str, upstream: ScriptedUpstream
) -> None:
    upstream.script(f"{first}-first", script)
    upstream.script(f"{first}-second", tokens=6)
    message, completion = both(url, first)
    assert (text_of(message), completion.content) == (TEXT, TEXT)


@every_first
def test_a_tool_is_called_by_an_upstream_of_the_other_protocol(
    first: str, url: str, upstream: ScriptedUpstream
) -> None:
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    events = tool_block(0, "call_1", "weather", "{}")
    upstream.script(f"{first}-first", status=500)
    upstream.script(f"{first}-second", tokens=0, tool_calls=[[call]], events=events, finish_reason="tool_calls")
    function = {"name": "weather", "parameters": {"type": "object", "properties": {}}}
    message, completion = both(url, first, tools=[{"type": "function", "function": function}])
    assert [(block.type, getattr(block, "id", "")) for block in message.content] == [("tool_use", "call_1")]
    assert [call.id for call in completion.tool_calls] == ["call_1"]


def test_what_only_the_first_can_carry_ends_with_the_firsts_own_error(url: str, upstream: ScriptedUpstream) -> None:
    """That the other one cannot say it is no answer to the client: it did nothing wrong."""
    upstream.script("anthropic-first", status=529)
    with (
        anthropic.Anthropic(base_url=url, api_key="unused", max_retries=0, timeout=20) as client,
        pytest.raises(anthropic.OverloadedError),
    ):
        client.messages.create(
            model="anthropic",
            messages=QUESTION,
            max_tokens=2048,
            thinking={"type": "enabled", "budget_tokens": 1024},
        )
