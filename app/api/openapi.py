"""What OpenAPI says of answers that FastAPI cannot see, since they are raw: media types, shapes and examples."""

from typing import Any

from pydantic import BaseModel

from app.api.openai_schemas import ChatCompletion, OpenAIErrorAnswer
from app.api.schemas import ErrorAnswer

Responses = dict[int | str, dict[str, Any]]

NATIVE_STREAM = """event: token
data: {"type":"content","token":"Why ","index":1}

event: done
data: {"done":true,"finish_reason":"stop","usage":{"input_tokens":5,"output_tokens":1},"total_tokens":6,\
"duration_ms":41,"metadata":{"stream_id":"pYnkZ0gC2rT1uVwX3yZaBcDe","model":"simulator"}}

"""
OPENAI_STREAM = """data: {"id":"chatcmpl-pYnkZ0gC2rT1uVwX3yZaBcDe","object":"chat.completion.chunk",\
"created":1790000000,"model":"simulator","choices":[{"index":0,"delta":{"content":"Why "},"finish_reason":null}]}

data: [DONE]

"""
_ERRORS = {
    400: "The request cannot be carried out.",
    404: "There is no such model.",
    413: "Larger than the server takes.",
    422: "Not what the schema says.",
    502: "The upstream failed.",
    503: "The server takes nothing new just now.",
    504: "The upstream was silent for too long.",
}


def native_responses(answer: type[BaseModel] | None) -> Responses:
    """Of a native route that streams, and that answers with `answer` where it does not stream."""
    return _responses(answer, NATIVE_STREAM, ErrorAnswer)


def openai_responses() -> Responses:
    """Of /v1/chat/completions."""
    return _responses(ChatCompletion, OPENAI_STREAM, OpenAIErrorAnswer)


def _responses(answer: type[BaseModel] | None, example: str, error: type[BaseModel]) -> Responses:
    content: dict[str, Any] = {"text/event-stream": {"schema": {"type": "string"}, "example": example}}
    header = {"X-Stream-Id": {"description": "Names the stream.", "schema": {"type": "string"}}}
    success: dict[str, Any] = {"description": "The answer.", "content": content, "headers": header}
    if answer is not None:
        success["model"] = answer
    failures: Responses = {status: {"model": error, "description": text} for status, text in _ERRORS.items()}
    return {200: success} | failures
