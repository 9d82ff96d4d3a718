"""What a script makes the upstream do where it is asked in Anthropic's protocol; the steps are those of any answer."""

import json
from collections.abc import Iterator
from typing import Any

from tests.support import upstream_steps
from tests.support.upstream_script import Script
from tests.support.upstream_steps import Send, Step, Wait, faults

STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
ERROR_TYPES = {
    401: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}
INPUT_TOKENS = 7
Payload = dict[str, Any]


def body(script: Script, request: Payload) -> Iterator[Step]:
    """The steps of the answer's body."""
    if script.status != 200 and script.body is None and script.body_hex is None:
        yield Send(error(script.status))
    elif script.body is not None or script.body_hex is not None or script.html:
        yield from upstream_steps.body(script, request)
    elif script.plain_json or not request.get("stream"):
        yield Send(json.dumps(_message(script, request, [{"type": "text", "text": script.text}])).encode())
    else:
        yield from _stream(script, request)


def error(status: int) -> bytes:
    """An error's whole answer."""
    said = {"type": ERROR_TYPES.get(status, "invalid_request_error"), "message": f"scripted {status}"}
    return json.dumps({"type": "error", "error": said, "request_id": "req_1"}).encode()


def block(index: int, begin: Payload, *deltas: Payload) -> list[Payload]:
    """The events of one content block."""
    return [
        {"type": "content_block_start", "index": index, "content_block": begin},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def text_block(index: int, *texts: str) -> list[Payload]:
    """Text in pieces."""
    return block(index, {"type": "text", "text": ""}, *({"type": "text_delta", "text": text} for text in texts))


def thinking_block(index: int, *texts: str, signature: str = "") -> list[Payload]:
    """Thoughts in pieces, and their signature."""
    deltas: list[Payload] = [{"type": "thinking_delta", "thinking": text} for text in texts]
    if signature:
        deltas.append({"type": "signature_delta", "signature": signature})
    return block(index, {"type": "thinking", "thinking": "", "signature": ""}, *deltas)


def tool_block(index: int, identity: str, name: str, *pieces: str) -> list[Payload]:
    """A tool call, its input's JSON in pieces; the API begins with an empty one."""
    deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in ("", *pieces)]
    return block(index, {"type": "tool_use", "id": identity, "name": name, "input": {}}, *deltas)


def frame(payload: Payload, newline: str = "\n") -> bytes:
    """One event."""
    data = json.dumps(payload, ensure_ascii=False, separators=(",", ":"))
    return f"event: {payload['type']}{newline}data: {data}{newline * 2}".encode()


def _stream(script: Script, request: Payload) -> Iterator[Step]:
    if script.first_frame is not None:
        yield Send(script.first_frame.encode())
    message = _message(script, request, []) | {"stop_reason": None}
    yield Send(frame({"type": "message_start", "message": message}, script.newline))
    yield Send(frame({"type": "ping"}, script.newline))
    yield Wait(script.first_delay_seconds)
    sent = 0
    for payload in script.events or _events(script):
        is_token = payload["type"] == "content_block_delta"
        if is_token:
            if sent and script.delay_seconds:
                yield Wait(script.delay_seconds)
            yield from faults(script, sent)
        yield Send(script.between.encode() + frame(payload, script.newline), token=is_token)
        sent += is_token
    yield from faults(script, sent)
    if script.finish_reason is not None:
        delta = {"stop_reason": STOP_REASONS.get(script.finish_reason, script.finish_reason), "stop_sequence": None}
        usage = {} if script.usage is False else {"usage": {"output_tokens": sent}}
        yield Send(frame({"type": "message_delta", "delta": delta, **usage}, script.newline))
    if not script.missing_done:
        yield Send(frame({"type": "message_stop"}, script.newline))


def _events(script: Script) -> list[Payload]:
    events = thinking_block(0, *script.reasoning, signature="signed") if script.reasoning else []
    return events + text_block(len(script.reasoning) and 1, *script.texts)


def _message(script: Script, request: Payload, content: list[Payload]) -> Payload:
    counts = {"input_tokens": INPUT_TOKENS, "output_tokens": len(script.texts) if content else 1, **script.usage_fields}
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": request.get("model"),
        "content": content,
        "stop_reason": STOP_REASONS.get(script.finish_reason or "", script.finish_reason),
        "stop_sequence": None,
        **({} if script.usage is False else {"usage": counts}),
    }
