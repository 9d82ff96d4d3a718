"""An upstream of other people's: llama.cpp's server, through Sluice, to OpenAI's SDK. `make interop` runs it."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from deploy.processes import die_with_parent
from tests.support.call import Call, ask
from tests.support.chain import Chain
from tests.support.launched import HOME
from tests.support.surfaces import NATIVE
from tests.support.workers import producing_worker, until

pytestmark = pytest.mark.interop

FOLDER = Path(__file__).parent
# The same words each time, and an end only where it is asked for.
EXACT: dict[str, Any] = {"temperature": 0, "max_tokens": 300}
QUESTION: Any = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where it listens."""
    folder = tmp_path_factory.mktemp("llama")
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [HOME / ".tools/interop/bin/python", FOLDER / "llama_cpp.py", folder],
            stdout=subprocess.PIPE,
            stderr=log,
            preexec_fn=die_with_parent(),  # noqa: PLW1509 - two system calls, no lock
        )
    try:
        assert server.stdout is not None
        url = server.stdout.readline().decode().strip()
        assert url, (folder / "log").read_text(errors="replace")[-2000:]
        yield url
    finally:
        server.kill()
        server.communicate()


@pytest.fixture(scope="module")
def chain(llama: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    upstream = {"provider": "openai", "base_url": f"{llama}/v1", "model": "tiny", "prefill": "assistant"}
    path = tmp_path_factory.mktemp("models") / "models.json"
    path.write_text(json.dumps({"models": {"llama": [upstream]}}))
    with Chain({"SLUICE_CONFIG": str(path)}, workers=2) as running:
        yield running


@pytest.fixture(scope="module")
def direct(llama: str) -> str:
    """What llama.cpp itself says to the question."""
    with openai.OpenAI(base_url=f"{llama}/v1", api_key="unused") as client:
        said = client.chat.completions.create(model="tiny", messages=QUESTION, **EXACT)
    text: str | None = said.choices[0].message.content
    assert text
    return text


@pytest.fixture
def client(chain: Chain) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{chain.url}/v1", api_key="unused", max_retries=0, timeout=30) as made:
        yield made


def test_a_stream_says_what_llama_cpp_says_and_counts_as_it_counts(client: openai.OpenAI, direct: str) -> None:
    options: Any = {"stream_options": {"include_usage": True}, **EXACT}
    chunks = list(client.chat.completions.create(model="llama", messages=QUESTION, stream=True, **options))
    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == direct
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices][-1] == "length"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == EXACT["max_tokens"]
    assert chunks[-1].usage.prompt_tokens > 5


def test_a_document_says_the_same(client: openai.OpenAI, direct: str) -> None:
    said = client.chat.completions.create(model="llama", messages=QUESTION, **EXACT)
    assert said.choices[0].message.content == direct


def test_the_responses_api_and_anthropic_s_say_the_same(chain: Chain, client: openai.OpenAI, direct: str) -> None:
    exact = {"temperature": 0, "max_output_tokens": 300}
    assert client.responses.create(model="llama", input="Hello", **exact).output_text == direct  # type: ignore[call-overload]
    message = ask(chain.url, "/v1/messages", {"model": "llama", "messages": QUESTION, **EXACT}).json
    assert "".join(block["text"] for block in message["content"]) == direct


def test_a_killed_worker_s_stream_goes_on_behind_its_last_word_without_a_seam(chain: Chain, direct: str) -> None:
    body = {"model": "llama", "prompt": "Hello", "stream": True, "on_disconnect": "finish", **EXACT}
    body["max_tokens"] = 2500
    whole = ask(chain.url, NATIVE.path, body).text
    assert whole.startswith(direct)
    with Call(chain.url, NATIVE.path, body, headers={"Sluice-Resume": "1"}) as call:
        stream_id = call.until(20).headers["x-stream-id"]
        os.kill(producing_worker(chain), signal.SIGKILL)
        call.finish()
    last = call.frames[-1].id
    seen = call.text

    def go_on() -> bool:
        nonlocal seen, last
        again = ask(chain.url, f"/api/v1/streams/{stream_id}", last_event_id=str(last))
        if again.status != 200:
            return False
        seen += again.text
        last = again.frames[-1].id or last if again.frames else last
        return again.terminals == ["done"]

    until(go_on, 30, "the stream has ended well")
    # Tokens of the text so far may be cut otherwise when it is read again, so that the words behind it may differ.
    assert seen.startswith(call.text)
    assert len(seen) > len(call.text) + 100
    assert whole.startswith(call.text)


def test_who_leaves_stops_llama_cpp(chain: Chain, llama: str) -> None:
    body = {"model": "llama", "messages": QUESTION, "stream": True, "temperature": 0, "max_tokens": 3500}
    with Call(chain.url, "/v1/chat/completions", body) as call:
        call.until(5)
    until(lambda: not any(slot["is_processing"] for slot in ask(llama, "/slots").json), 5, "no slot works")
