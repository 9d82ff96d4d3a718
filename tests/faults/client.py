"""What a client gets: the unmodified OpenAI SDK, or one of the native surface."""

import time
from dataclasses import dataclass
from typing import Any

import openai

from tests.faults.case import Case
from tests.support.call import Call
from tests.support.surfaces import NATIVE, OPENAI

SECONDS_MAX = 20.0


@dataclass
class Got:
    """All that was seen from outside.

    Args:
        end: `done`, the code of an error, or `incomplete`.
        raw: everything that was said, to be searched for what must not be in it.
    """

    status: int = 0
    end: str = "incomplete"
    text: str = ""
    resets: int = 0
    seconds: float = 0.0
    stream_id: str = ""
    retry_after: str | None = None
    heartbeats: int = 0
    raw: str = ""


def ask(url: str, model: str, case: Case) -> Got:
    """The answer to one request, read to its end."""
    started = time.monotonic()
    got = _native(url, model, case) if case.client.startswith("native") else _sdk(url, model, case)
    got.seconds = time.monotonic() - started
    return got


def _native(url: str, model: str, case: Case) -> Got:
    streamed = case.client == "native"
    with Call(url, NATIVE.path, NATIVE.body(model, stream=streamed, **case.body)) as call:
        call.finish(SECONDS_MAX)
    got = Got(call.status, retry_after=call.headers.get("retry-after"), stream_id=call.headers.get("x-stream-id", ""))
    got.raw = str(call.headers) + call.body.decode()
    got.heartbeats = len(call.heartbeat_times)
    for frame in call.frames:
        if frame.event == "reset":
            got.text, got.resets = "", got.resets + 1
        elif frame.event == "token" and frame.json()["type"] == "content":
            got.text += frame.json()["token"]
    if call.verdict == "complete":
        got.end = "done"
        got.text = got.text if streamed else call.json["response"]
    elif call.verdict == "error":
        got.end = NATIVE.error(call)["code"]
    return got


def _sdk(url: str, model: str, case: Case) -> Got:
    got = Got()
    streamed = case.client == "SDK"
    with openai.OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0, timeout=SECONDS_MAX) as client:
        try:
            answer = client.chat.completions.with_raw_response.create(
                model=model, stream=streamed, **OPENAI.question, **case.body
            )
            got.status, got.stream_id = answer.status_code, answer.headers.get("x-stream-id", "")
            _read(answer.parse(), got, streamed)
        except openai.APIStatusError as error:
            got.status, got.end = error.status_code, str(error.code)
            got.stream_id = error.response.headers.get("x-stream-id", "")
            got.retry_after = error.response.headers.get("retry-after")
            got.raw += f"{error} {error.response.headers} {error.response.text}"
        except openai.APIError as error:
            got.end = str(error.code)
            got.raw += f"{error} {error.body}"
    return got


def _read(parsed: Any, got: Got, streamed: bool) -> None:
    if not streamed:
        got.text, got.end = parsed.choices[0].message.content, "done"
        return
    finished = False
    for chunk in parsed:
        for choice in chunk.choices:
            got.text += choice.delta.content or ""
            finished = finished or choice.finish_reason is not None
    # The SDK ends its loop at [DONE], and also where a connection ends without one: a finish_reason tells them apart.
    got.end = "done" if finished else "incomplete"
