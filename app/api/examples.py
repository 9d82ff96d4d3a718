"""The examples that OpenAPI shows: what to send to each operation, and what it answers. One table, each entry tried by
`tests/system/test_openapi_examples.py` against a running chain.

Ids stand for a caller's own: whoever sends one as it is gets 404.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from app.api.health import HOME
from app.version import VERSION

STREAM_ID = "pYnkZ0gC2rT1uVwX3yZaBcDe"
API_KEY = "sk-sluice-example-0123456789abcdefghijklmnopqr"
USER, PASSWORD = "ana", "correct horse battery"
_RESPONSE_ID = f"resp_{STREAM_ID}"
CONVERSATION = "about-the-sky"
_ASKED, _SAID, _HELLO = "Why is the sky blue?", "Rayleigh scattering.", "Good morning!"
_MOMENT, _UNIX = "2026-11-21T12:00:00Z", 1_795_262_400
# Of a parameter, wherever one has this name.
PARAMETERS: dict[str, Any] = {
    "stream_id": STREAM_ID,
    "task_id": STREAM_ID,
    "response_id": _RESPONSE_ID,
    "conversation_id": CONVERSATION,
    "prompt": _ASKED,
    "model": "simulator",
    "system": "Answer in one sentence.",
    "max_tokens": 24,
    "temperature": 0.7,
    "simulator": '{"seed": 7, "tokens": 12}',
    "stream": True,
    "starting_after": 4,
    "last_event_id": f"{STREAM_ID}.0.2",
    "accept": "text/event-stream",
    "Idempotency-Key": "order-4711-try-1",
    "Last-Event-ID": f"{STREAM_ID}.0.2",
    "Sluice-Resume": "1",
}


class Example(NamedTuple):
    """Of one operation.

    Args:
        answer: of its success, where that is JSON.
        requests: bodies, by what each of them shows.
    """

    answer: Any = None
    requests: Mapping[str, Any] = MappingProxyType({})


def _messages(*said: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(said)]


_USAGE = {"input_tokens": 5, "output_tokens": 4}
_MODEL = {
    "id": "simulator",
    "object": "model",
    "created": 0,
    "owned_by": "sluice",
    "type": "model",
    "display_name": "simulator",
    "created_at": "1970-01-01T00:00:00Z",
    "lifecycle": "active",
}
_WHOLE = {
    "success": True,
    "response": _SAID,
    "prompt": _ASKED,
    "model": "simulator",
    "timestamp": _MOMENT,
    "tokens_used": 9,
    "stream_id": STREAM_ID,
    "finish_reason": "stop",
    "usage": _USAGE,
}
_WHOLE_V2 = {
    "id": STREAM_ID,
    "model": "simulator",
    "created_at": _UNIX,
    "content": [{"type": "text", "text": _SAID}],
    "finish_reason": "stop",
    "usage": {**_USAGE, "total_tokens": 9},
    "metadata": {"page": "7"},
}
_RESPONSE = {
    "id": _RESPONSE_ID,
    "object": "response",
    "created_at": _UNIX,
    "status": "completed",
    "background": False,
    "model": "simulator",
    "output": [
        {
            "id": f"msg_{STREAM_ID}_0",
            "type": "message",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "text": _SAID, "annotations": [], "logprobs": []}],
        }
    ],
    "error": None,
    "usage": {**_USAGE, "total_tokens": 9},
}
_RESPONSE_CANCELLED = _RESPONSE | {
    "status": "cancelled",
    "background": True,
    "output": [],
    "error": {"code": "cancelled", "message": "The stream was cancelled."},
    "usage": None,
}
_COMPLETION = {
    "id": f"chatcmpl-{STREAM_ID}",
    "object": "chat.completion",
    "created": _UNIX,
    "model": "simulator",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": _SAID}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 4, "total_tokens": 9},
}
_MESSAGE = {
    "id": f"msg_{STREAM_ID}",
    "type": "message",
    "role": "assistant",
    "model": "simulator",
    "content": [{"type": "text", "text": _SAID}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": _USAGE,
}
_TASK = {
    "task_id": STREAM_ID,
    "kind": "batch",
    "status": "running",
    "progress": 0.5,
    "completed": 1,
    "total": 2,
    "created": _MOMENT,
    "result": None,
    "error": None,
}
_LIMITS = {
    "requests_per_minute": 300,
    "requests_per_hour": 10_000,
    "tokens_per_minute": 1_000_000,
    "concurrent_streams": 50,
    "max_tokens": 16_384,
    "priority": 5,
}
# What is served under /api/v2 as it is under /api/v1 stands here once.
EXAMPLES: dict[tuple[str, str], Example] = {
    ("get", "/"): Example(HOME),
    ("get", "/livez"): Example({"status": "ok"}),
    ("get", "/readyz"): Example({"status": "ready"}),
    ("get", "/health"): Example(
        {
            "status": "ok",
            "uptime_seconds": 86.4,
            "version": VERSION,
            "checks": {"event_loop": "ok", "stream_log": "ok", "active_streams": "3"},
        }
    ),
    ("post", "/api/v1/generate"): Example(
        _WHOLE,
        {
            "stream": {"prompt": _ASKED, "max_tokens": 24, "stream": True},
            "one answer": {"prompt": _ASKED, "system": PARAMETERS["system"], "max_tokens": 24, "temperature": 0.7},
            "whoever reads it or not": {"prompt": _ASKED, "max_tokens": 24, "on_disconnect": "finish", "stream": True},
            "simulator": {"prompt": _ASKED, "stream": True, "simulator": {"seed": 7, "tokens": 12, "jitter": 0.5}},
        },
    ),
    ("post", "/api/v1/chat"): Example(
        _WHOLE | {"prompt": _HELLO, "response": "Good morning! How can I help?"},
        {
            "one answer": {"message": _HELLO, "max_tokens": 24},
            "conversation": {"message": _HELLO, "max_tokens": 24, "conversation_id": CONVERSATION, "stream": True},
        },
    ),
    ("post", "/api/v2/generate"): Example(
        _WHOLE_V2,
        {
            "stream": {"input": _ASKED, "options": {"stream": True, "max_tokens": 24}},
            "parts": {
                "input": [
                    {"type": "text", "text": "What is on this picture?"},
                    {"type": "image", "url": "https://images.example/sky.png"},
                ],
                "instructions": PARAMETERS["system"],
                "metadata": {"page": "7"},
                "options": {"max_tokens": 24},
            },
            "cached": {"input": _ASKED, "options": {"seed": 7, "temperature": 0, "cache": True, "max_tokens": 24}},
        },
    ),
    ("post", "/api/v2/chat"): Example(
        _WHOLE_V2 | {"conversation_id": CONVERSATION},
        {
            "one answer": {"input": _HELLO, "options": {"max_tokens": 24}},
            "conversation": {
                "input": "And why?",
                "conversation_id": CONVERSATION,
                "options": {"stream": True, "max_tokens": 24},
            },
        },
    ),
    ("get", "/api/v1/stream"): Example(),
    ("get", "/api/v1/streams/{stream_id}"): Example(),
    ("delete", "/api/v1/streams/{stream_id}"): Example(),
    ("get", "/api/v1/streams/{stream_id}/status"): Example(
        {"stream_id": STREAM_ID, "state": "running", "last_id": f"{STREAM_ID}.0.17", "resumable": True}
    ),
    ("get", "/api/v1/conversations/{conversation_id}"): Example(
        {"conversation_id": CONVERSATION, "messages": _messages(_ASKED, _SAID), "stream_id": None}
    ),
    ("delete", "/api/v1/conversations/{conversation_id}"): Example(),
    ("post", "/api/v1/tasks"): Example(
        _TASK | {"status": "pending", "progress": 0, "completed": 0},
        {
            "batch": {"kind": "batch", "prompts": [_ASKED, "Why is grass green?"], "max_tokens": 24},
            "alike": {"prompts": ["river", "weir"], "system": "Translate to French.", "temperature": 0},
        },
    ),
    ("get", "/api/v1/tasks/{task_id}"): Example(
        _TASK
        | {"status": "completed", "progress": 1, "completed": 1, "total": 1}
        | {
            "result": {
                "model": "simulator",
                "items": [{"index": 0, "response": _SAID, "finish_reason": "stop", "usage": _USAGE, "error": None}],
                "succeeded": 1,
                "failed": 0,
                "usage": _USAGE,
            }
        }
    ),
    ("delete", "/api/v1/tasks/{task_id}"): Example(),
    ("get", "/api/v1/tasks/{task_id}/events"): Example(),
    ("post", "/api/v1/tickets"): Example(
        {"ticket": "mZ7QW0m3dV1xq8n5cY2fT9sK4hL6pR0bG3jE7uA1wXo", "expires_in_seconds": 60},
        {
            "begin a stream": {"scope": "create"},
            "read a stream": {"scope": f"stream:{STREAM_ID}"},
            "join a conversation": {"scope": f"conversation:{CONVERSATION}"},
        },
    ),
    ("post", "/api/v1/auth/token"): Example(
        {"access_token": "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.…", "token_type": "Bearer", "expires_in": 900},
        {
            "API key": {"grant_type": "client_credentials", "client_secret": API_KEY},
            "password": {"grant_type": "password", "username": USER, "password": PASSWORD},
        },
    ),
    ("get", "/api/v1/auth/status"): Example(
        {
            "authenticated": True,
            "required": True,
            "principal": "acme",
            "tier": "pro",
            "expires_at": None,
            "limits": _LIMITS,
        }
    ),
    ("get", "/v1/models"): Example(
        {"object": "list", "data": [_MODEL], "has_more": False, "first_id": "simulator", "last_id": "simulator"}
    ),
    ("get", "/v1/models/{model}"): Example(_MODEL),
    ("post", "/v1/chat/completions"): Example(
        _COMPLETION,
        {
            "stream": {"model": "simulator", "messages": _messages(_HELLO), "max_tokens": 24, "stream": True},
            "one answer": {
                "model": "simulator",
                "messages": [{"role": "system", "content": PARAMETERS["system"]}, *_messages(_ASKED)],
                "max_completion_tokens": 24,
            },
            "stream with usage": {
                "model": "simulator",
                "messages": _messages(_HELLO, "How can I help?", _ASKED),
                "max_tokens": 24,
                "stream": True,
                "stream_options": {"include_usage": True},
            },
        },
    ),
    ("post", "/v1/responses"): Example(
        _RESPONSE,
        {
            "stream": {"model": "simulator", "input": _HELLO, "max_output_tokens": 24, "stream": True},
            "one answer": {"model": "simulator", "input": _messages(_ASKED), "max_output_tokens": 24},
            "background": {"model": "simulator", "input": _ASKED, "max_output_tokens": 24, "background": True},
            "next turn": {
                "model": "simulator",
                "input": "And at night?",
                "previous_response_id": _RESPONSE_ID,
                "max_output_tokens": 24,
            },
        },
    ),
    ("get", "/v1/responses/{response_id}"): Example(_RESPONSE),
    ("post", "/v1/responses/{response_id}/cancel"): Example(_RESPONSE_CANCELLED),
    ("post", "/v1/messages"): Example(
        _MESSAGE,
        {
            "stream": {"model": "simulator", "max_tokens": 24, "messages": _messages(_HELLO), "stream": True},
            "one answer": {
                "model": "simulator",
                "max_tokens": 24,
                "system": PARAMETERS["system"],
                "messages": [{"role": "user", "content": [{"type": "text", "text": _ASKED}]}],
            },
        },
    ),
}


def show_examples(schema: dict[str, Any]) -> None:
    """Put each where OpenAPI has it.

    Raises:
        KeyError: an operation, or one of its parameters, has none here.
    """
    for path, item in schema["paths"].items():
        for method, operation in item.items():
            key = (method, path)
            example = EXAMPLES[key if key in EXAMPLES else (method, path.replace("/api/v2/", "/api/v1/"))]
            for parameter in operation.get("parameters", ()):
                parameter["example"] = PARAMETERS[parameter["name"]]
            for content in operation.get("requestBody", {}).get("content", {}).values():
                content["examples"] = {name: {"value": body} for name, body in example.requests.items()}
            success = next(answer for status, answer in operation["responses"].items() if status.startswith("2"))
            if "application/json" in success.get("content", {}):
                success["content"]["application/json"]["example"] = example.answer
