"""What OpenAPI says of answers that FastAPI cannot see, since they are raw: media types, shapes and examples."""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from app.api.anthropic_schemas import AnthropicErrorAnswer, MessageAnswer
from app.api.examples import STREAM_ID, show_examples
from app.api.openai_schemas import ChatCompletion, OpenAIErrorAnswer
from app.api.responses_schemas import ResponseAnswer
from app.api.schemas import ErrorAnswer
from app.events import Done, Event, Token, Usage
from app.streams.log import Cursor
from app.streams.sse import Encoder, NativeEncoder, OpenAIEncoder
from app.streams.sse_anthropic import AnthropicEncoder
from app.streams.sse_responses import ResponsesEncoder
from app.streams.sse_tasks import TaskEncoder

# Of an event, or nothing: an `EventSource` that has seen none sends it empty.
EVENT_ID = r"^(|[0-9A-Za-z_-]{22,40}\.(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8}))$"

Responses = dict[int | str, dict[str, Any]]


def _example(encoder: Encoder) -> str:
    done = Done("stop", Usage(5, 1), duration_ms=41)
    return (encoder.encode(Cursor(0, 1), Token("Why ", index=1)) + encoder.encode(Cursor(0, 2), done)).decode()


def _task_example(encoder: TaskEncoder) -> str:
    line = Token('{"index":0,"response":"Rayleigh scattering."}', index=1)
    events: tuple[Event, ...] = (Token("", "thought"), line, Done("stop", Usage(5, 2), duration_ms=41))
    return b"".join(encoder.encode(Cursor(0, seq), event) for seq, event in enumerate(events, 1)).decode()


_RESPONSE = {"id": f"resp_{STREAM_ID}", "object": "response", "created_at": 1_790_000_000, "model": "simulator"}
NATIVE_STREAM = _example(NativeEncoder(STREAM_ID, "simulator"))
OPENAI_STREAM = _example(OpenAIEncoder(f"chatcmpl-{STREAM_ID}", "simulator", 1_790_000_000, include_usage=False))
RESPONSES_STREAM = _example(ResponsesEncoder(_RESPONSE))
ANTHROPIC_STREAM = _example(AnthropicEncoder(f"msg_{STREAM_ID}", "simulator"))
TASK_STREAM = _task_example(TaskEncoder(STREAM_ID, total=1))
_MEANINGS = {
    400: "The request cannot be carried out.",
    401: "No credentials, or none that are valid.",
    403: "The ticket is for something else.",
    404: "There is no such model or stream.",
    409: "The conversation is still being answered.",
    413: "Larger than the server takes.",
    422: "Not what the schema says.",
    429: "A limit of the caller's is reached; `Retry-After` says for how long.",
    502: "The upstream failed.",
    503: "The server takes nothing new just now.",
    504: "The upstream was silent for too long.",
}
_STREAMING = (400, 401, 404, 409, 413, 422, 429, 502, 503, 504)


def _header(name: str, description: str, **schema: Any) -> dict[str, Any]:
    schema = {"type": "string"} | schema
    return {"name": name, "in": "header", "required": False, "schema": schema, "description": description}


# One event of a stream. https://spec.openapis.org/oas/v3.2.0.html#server-sent-event-streams
_EVENT = {
    "type": "object",
    "required": ["data"],
    "properties": {
        "id": {"type": "string"},
        "event": {"type": "string"},
        "data": {"type": "string", "description": "JSON; on OpenAI's surface the last one is `[DONE]`."},
        "retry": {"type": "integer", "minimum": 0},
    },
}
_KEY = _header(
    "Idempotency-Key",
    "The same key and body join one generation; another body gets 422.",
    minLength=1,
    maxLength=255,
    pattern="^[ -~]+$",
)
_LAST = _header("Last-Event-ID", "The last id seen: goes on behind it, instead of beginning anew.", pattern=EVENT_ID)
_RESUMES = _header("Sluice-Resume", "`1`: this client can resume.")
KEY_HEADER: dict[str, Any] = {"parameters": [_KEY]}
LAST_HEADER: dict[str, Any] = {"parameters": [_LAST]}
RESUME_HEADERS: dict[str, Any] = {"parameters": [_KEY, _LAST, _RESUMES]}


def native_responses(answer: type[BaseModel] | None) -> Responses:
    """Of a native route that streams, and that answers with `answer` where it does not stream.

    One that always streams has the plain `response_class`: FastAPI would add JSON for its own.
    """
    return _responses(answer, NATIVE_STREAM, ErrorAnswer)


def task_events() -> Responses:
    """Of a task's events."""
    content: dict[str, Any] = {"text/event-stream": {"itemSchema": _EVENT, "example": TASK_STREAM}}
    return {200: {"description": "How the task gets on.", "content": content}}


def openai_responses() -> Responses:
    """Of /v1/chat/completions."""
    return _responses(ChatCompletion, OPENAI_STREAM, OpenAIErrorAnswer)


def responses_responses() -> Responses:
    """Of /v1/responses."""
    return _responses(ResponseAnswer, RESPONSES_STREAM, OpenAIErrorAnswer)


def anthropic_responses() -> Responses:
    """Of /v1/messages."""
    return _responses(MessageAnswer, ANTHROPIC_STREAM, AnthropicErrorAnswer)


def native_errors(*statuses: int) -> Responses:
    """Of a native route that does not stream, besides its answer."""
    return _errors(ErrorAnswer, statuses)


def ticketed_responses() -> Responses:
    """Of a route that a ticket opens too, and that streams."""
    return native_responses(None) | native_errors(403)


def openai_errors(*statuses: int) -> Responses:
    """Of a route under /v1 that does not stream, besides its answer."""
    return _errors(OpenAIErrorAnswer, statuses)


def _responses(answer: type[BaseModel] | None, example: str, error: type[BaseModel]) -> Responses:
    content: dict[str, Any] = {"text/event-stream": {"itemSchema": _EVENT, "example": example}}
    header = {"X-Stream-Id": {"description": "Names the stream.", "schema": {"type": "string"}}}
    success: dict[str, Any] = {"description": "The answer.", "content": content, "headers": header}
    if answer is not None:
        success["model"] = answer
    return {200: success} | _errors(error, _STREAMING)


def _errors(error: type[BaseModel], statuses: tuple[int, ...]) -> Responses:
    return {status: {"model": error, "description": _MEANINGS[status]} for status in statuses}


CREDENTIALS: dict[str, Any] = {
    "Bearer": {"type": "http", "scheme": "bearer", "description": "An API key, or a token."},
    "APIKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
# Of a route that may answer 401 although it asks for none of these, and of one that does with or without.
NO_CREDENTIALS: dict[str, Any] = {"security": []}
CREDENTIALS_IF_ANY: dict[str, Any] = {"security": [{}]}


def complete(app: FastAPI, *, closed: bool) -> None:
    """Have the schema show examples and, where the application is closed to strangers, name what opens the routes that
    may answer 401: /docs asks for it then. A route may say itself that it needs none."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is not None:
            return app.openapi_schema
        schema = plain()
        show_examples(schema)
        if closed:
            _name_credentials(schema)
        return schema

    app.openapi = openapi  # type: ignore[method-assign]


def _name_credentials(schema: dict[str, Any]) -> None:
    schema["components"]["securitySchemes"] = CREDENTIALS
    for operation in (operation for path in schema["paths"].values() for operation in path.values()):
        own = operation.get("security")
        if "401" in operation["responses"] and own != []:
            operation["security"] = [*(own or ()), *({name: []} for name in CREDENTIALS)]
