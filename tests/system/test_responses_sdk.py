"""The unmodified OpenAI SDK against /v1/responses: streams that it comes back to, whatever became of their worker."""

import os
import signal
from collections.abc import Iterable, Iterator
from time import monotonic
from typing import Any

import openai
import pytest

from tests.support.chain import Chain
from tests.support.models import Models
from tests.support.upstream import ScriptedUpstream
from tests.support.upstream_script import Script
from tests.support.workers import producing_worker, until

PACED: Any = {"simulator": {"seed": 3, "tokens": 120, "tokens_per_second": 30, "first_token_ms": 0}}
AT_ONCE: Any = {"simulator": PACED["simulator"] | {"tokens_per_second": 0}}


@pytest.fixture(scope="module")
def chain(models: Models) -> Iterator[Chain]:
    with Chain({"SLUICE_CONFIG": str(models.path)}, workers=2) as running:
        yield running


@pytest.fixture
def client(chain: Chain) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{chain.url}/v1", api_key="unused", max_retries=0, timeout=20) as made:
        yield made


def whole_text(client: openai.OpenAI) -> str:
    """What the simulator says to the paced request, at once."""
    return client.responses.create(model="simulator", input="Hello", extra_body=AT_ONCE).output_text


def text_of(events: Iterable[Any]) -> str:
    return "".join(event.delta for event in events if event.type == "response.output_text.delta")


def test_a_stream_is_read_by_the_sdk_s_helper_to_its_end(client: openai.OpenAI) -> None:
    with client.responses.stream(model="simulator", input="Hello", extra_body=AT_ONCE) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    assert final.status == "completed"
    assert final.output_text == whole_text(client)
    assert final.usage is not None
    assert final.usage.output_tokens == 120
    assert client.responses.retrieve(final.id).output_text == final.output_text


def test_a_background_response_cut_in_the_middle_is_resumed_behind_any_number_after_its_worker_was_killed(
    chain: Chain, client: openai.OpenAI
) -> None:
    seen: list[Any] = []
    with client.responses.create(
        model="simulator", input="Hello", background=True, stream=True, extra_body=PACED
    ) as stream:
        for event in stream:
            seen.append(event)
            if len(text_of(seen).split()) >= 20:
                break
    response_id = seen[0].response.id
    os.kill(producing_worker(chain), signal.SIGKILL)
    after = seen[-1].sequence_number
    rest = list(client.responses.retrieve(response_id, stream=True, starting_after=after))
    assert [event.sequence_number for event in rest] == list(range(after + 1, after + 1 + len(rest)))
    assert rest[-1].type == "response.completed"
    assert text_of(seen) + text_of(rest) == whole_text(client) == client.responses.retrieve(response_id).output_text


def test_a_number_that_was_not_yet_given_is_waited_for(client: openai.OpenAI) -> None:
    response = client.responses.create(model="simulator", input="Hello", background=True, extra_body=PACED)
    rest = list(client.responses.retrieve(response.id, stream=True, starting_after=60))
    assert [event.sequence_number for event in rest] == list(range(61, 61 + len(rest)))
    assert rest[-1].type == "response.completed"


def test_a_background_response_is_polled(client: openai.OpenAI) -> None:
    begun = monotonic()
    response = client.responses.create(model="simulator", input="Hello", background=True, extra_body=PACED)
    assert monotonic() - begun < 3
    assert response.status == "in_progress"
    until(lambda: client.responses.retrieve(response.id).status == "completed", 15, "the response is complete")
    assert client.responses.retrieve(response.id).output_text == whole_text(client)


def test_a_background_response_is_cancelled(client: openai.OpenAI) -> None:
    response = client.responses.create(model="simulator", input="Hello", background=True, extra_body=PACED)
    assert client.responses.cancel(response.id).status == "cancelled"
    until(lambda: client.responses.retrieve(response.id).status == "cancelled", 5, "the response is cancelled")


def test_a_response_follows_another_without_its_instructions(
    client: openai.OpenAI, upstream: ScriptedUpstream, model: str
) -> None:
    upstream.script(model, Script(tokens=["Good ", "morning."]))
    first = client.responses.create(model=model, input="Hello", instructions="Be polite.")
    assert first.output_text == "Good morning."
    assert first.instructions == "Be polite."
    client.responses.create(model=model, input="And now?", previous_response_id=first.id)
    asked, then = upstream.requests(model)
    assert [message["role"] for message in asked.body["messages"]] == ["system", "user"]
    assert then.body["messages"] == [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Good morning."},
        {"role": "user", "content": "And now?"},
    ]


def test_functions_are_called_and_answered(client: openai.OpenAI, upstream: ScriptedUpstream, model: str) -> None:
    calls = [
        [{"index": 0, "id": "call_1", "type": "function", "function": {"name": "depth", "arguments": ""}}],
        [{"index": 0, "function": {"arguments": '{"at":'}}],
        [{"index": 0, "function": {"arguments": '"weir"}'}}],
    ]
    upstream.script(model, Script(tokens=0, tool_calls=calls, finish_reason="tool_calls"))
    tools: Any = [{"type": "function", "name": "depth", "parameters": {"type": "object"}, "strict": False}]
    with client.responses.stream(model=model, input="How deep?", tools=tools) as stream:
        final = stream.get_final_response()
    (call,) = final.output
    assert call.type == "function_call"
    assert (call.name, call.arguments, call.call_id) == ("depth", '{"at":"weir"}', "call_1")
    answer: Any = [
        {"role": "user", "content": "How deep?"},
        call.model_dump(exclude_none=True, exclude={"parsed_arguments"}),
        {"type": "function_call_output", "call_id": call.call_id, "output": "3 m"},
    ]
    client.responses.create(model=model, input=answer, tools=tools)
    asked = upstream.requests(model)[-1].body
    assert asked["messages"][1]["tool_calls"][0]["function"] == {"name": "depth", "arguments": '{"at":"weir"}'}
    assert asked["messages"][2] == {"role": "tool", "tool_call_id": "call_1", "content": "3 m"}
    assert asked["tools"][0]["function"]["name"] == "depth"


def test_a_cut_answer_is_a_failed_response_with_what_there_was(
    client: openai.OpenAI, upstream: ScriptedUpstream, model: str
) -> None:
    upstream.script(model, Script(tokens=6, die_after=3))
    events: list[Any] = list(client.responses.create(model=model, input="Hello", stream=True))
    assert events[-1].type == "response.failed"
    assert events[-1].response.status == "failed"
    assert events[-1].response.error.code == "upstream_truncated"
    assert text_of(events) == "tok0 tok1 tok2 "


def test_errors_before_the_first_token_have_their_status(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="nothing", input="Hello", stream=True)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve("resp_pYnkZ0gC2rT1uVwX3yZaBcDe")
    with pytest.raises(openai.BadRequestError, match=r"tools\.0"):
        client.responses.create(model="simulator", input="Hello", tools=[{"type": "web_search"}])
