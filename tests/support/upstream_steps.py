"""What a script makes the upstream do, as steps: a pure function, so that the server has only to carry them out."""

import json
from collections.abc import Iterator
from typing import Any

import msgspec

from tests.support.upstream_script import Script

PIECE_BYTES = 65_536


class Send(msgspec.Struct, frozen=True):
    """Bytes of the body; `token` when they carry one."""

    data: bytes
    token: bool = False


class Wait(msgspec.Struct, frozen=True):
    """Silence, for ever when `seconds` is None."""

    seconds: float | None


class Die(msgspec.Struct, frozen=True):
    """Ends the connection where it is, in the way that the script says."""


class End(msgspec.Struct, frozen=True):
    """Ends the body here, as HTTP wants it."""


Step = Send | Wait | Die | End


def head(script: Script) -> tuple[int, dict[str, str]]:
    """Status and headers of the answer, framing apart."""
    kind = "text/event-stream; charset=utf-8"
    if script.status != 200 or script.plain_json:
        kind = "application/json"
    elif script.html:
        kind = "text/html; charset=utf-8"
    return script.status, {"Content-Type": kind, **script.headers}


def body(script: Script, request: dict[str, Any]) -> Iterator[Step]:
    """The steps of the answer's body."""
    if script.body_hex is not None:
        yield Send(bytes.fromhex(script.body_hex))
    elif script.status != 200:
        yield Send((script.body if script.body is not None else _error(script.status)).encode())
    elif script.html:
        yield Send((script.body or "<!doctype html><html><body><h1>It works!</h1></body></html>").encode())
    elif script.plain_json or not request.get("stream"):
        yield Wait(script.first_delay_seconds + script.delay_seconds * len(script.texts))
        yield Send(script.body.encode() if script.body is not None else _completion(script, request))
    else:
        yield from _stream(script, request)
    if script.eof_delay_seconds:
        yield Wait(script.eof_delay_seconds)
    if script.die_at_end:
        yield Die()


def _stream(script: Script, request: dict[str, Any]) -> Iterator[Step]:
    if script.bom:
        yield Send(b"\xef\xbb\xbf")
    if script.first_frame is not None:
        yield Send(script.first_frame.encode())
    model = str(request.get("model", ""))
    if script.role_chunk:
        yield Send(_event(script, _chunk(model, {"role": "assistant", "content": ""})))
    if script.giant_line_bytes:
        yield from _giant_line(script.giant_line_bytes)
    yield Wait(script.first_delay_seconds)
    sent = 0
    for delta in _deltas(script):
        if sent and script.delay_seconds:
            yield Wait(script.delay_seconds)
        yield from faults(script, sent)
        yield Send(script.between.encode() + _event(script, _chunk(model, delta)), token=True)
        sent += 1
    yield from faults(script, sent)
    yield from _ending(script, request, model, sent)


def _deltas(script: Script) -> Iterator[dict[str, Any]]:
    for text in script.reasoning:
        yield {script.reasoning_field: text}
    for text in script.texts:
        yield {"content": text}
    for calls in script.tool_calls:
        yield {"tool_calls": calls}


def faults(script: Script, sent: int) -> Iterator[Step]:
    """What the script wants to go wrong after `sent` tokens."""
    if script.error_at == sent:
        yield Send(script.error_frame.encode() + script.newline.encode() * 2)
        yield End()
    if script.die_after == sent:
        yield Die()
    if script.stall_after == sent:
        yield Wait(None)


def _ending(script: Script, request: dict[str, Any], model: str, sent: int) -> Iterator[Step]:
    if script.finish_reason is not None:
        yield Send(_event(script, _chunk(model, {}, script.finish_reason)))
    asked = (request.get("stream_options") or {}).get("include_usage", False)
    if asked if script.usage is None else script.usage:
        usage = {"prompt_tokens": 7, "completion_tokens": sent, "total_tokens": 7 + sent}
        yield Send(_event(script, {**_chunk(model, {}), "choices": [], "usage": usage}))
    if not script.missing_done:
        yield Send(_frame(script, "[DONE]"))


def _giant_line(size: int) -> Iterator[Step]:
    yield Send(b"data: ")
    for _ in range(size // PIECE_BYTES):
        yield Send(b"x" * PIECE_BYTES)
    yield Send(b"x" * (size % PIECE_BYTES) + b"\n\n")


def _chunk(model: str, delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return {
        "id": "c1",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": model,
        "choices": [choice],
    }


def _completion(script: Script, request: dict[str, Any]) -> bytes:
    message = {"role": "assistant", "content": script.text}
    count = len(script.texts)
    answer = {
        "id": "c1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": request.get("model"),
        "choices": [{"index": 0, "message": message, "finish_reason": script.finish_reason}],
        "usage": {"prompt_tokens": 7, "completion_tokens": count, "total_tokens": 7 + count},
    }
    return json.dumps(answer).encode()


def _error(status: int) -> str:
    kind = "rate_limit_error" if status == 429 else "invalid_request_error" if status < 500 else "server_error"
    return json.dumps({"error": {"message": f"scripted {status}", "type": kind, "param": None, "code": kind}})


def _event(script: Script, payload: dict[str, Any]) -> bytes:
    # Unescaped, as most upstreams send it: multi-byte characters and U+2028 must survive splits.
    return _frame(script, json.dumps(payload, ensure_ascii=False, separators=(",", ":")))


def _frame(script: Script, data: str) -> bytes:
    return f"data: {data}{script.newline * 2}".encode()
