"""The native surface: /api/v1/generate, /api/v1/chat and /api/v1/stream, each as JSON or as server-sent events."""

import random
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.responses import Response

from app.api.access import Guarded, Ticketed
from app.api.context import caller, context, upstream_headers
from app.api.openapi import RESUME_HEADERS, native_responses, ticketed_responses
from app.api.schemas import (
    ChatBody,
    GenerateAnswer,
    GenerateBody,
    GenerationBody,
    MaxTokens,
    ModelName,
    SimulatorBody,
    Temperature,
    UsageAnswer,
)
from app.api.wanted import Wanted
from app.limits.declared import GENERATE, declared, tier_rates
from app.providers.base import GenerationRequest
from app.streams.answer import Answer
from app.streams.sse import NativeEncoder

router = APIRouter(prefix="/api/v1", tags=["native"], route_class=Guarded)
ticketed = APIRouter(tags=["native"], route_class=Ticketed)

# NGINX takes request lines of 16 KiB: so many ASCII characters fit, of others (nine bytes each, escaped) fewer. What is
# longer goes into a body.
QUERY_CHARACTERS_MAX = 4_000
# Before a browser's `EventSource` comes back by itself; they wait three seconds, all the same, where nobody says.
EVENT_SOURCE_RETRY_MS = (500, 3000)
StreamQuery = Annotated[bool | None, Query(description="As `stream` in the body, which it yields to.")]
Accept = Annotated[str | None, Header(description="`text/event-stream` asks for a stream, if nothing else decides.")]


async def _simulator_query(
    simulator: Annotated[str | None, Query(description="As in the body, as JSON.")] = None,
) -> SimulatorBody | None:
    try:
        return SimulatorBody.model_validate_json(simulator) if simulator else None
    except ValidationError as error:
        raise RequestValidationError(
            [{**item, "loc": ("query", "simulator", *item["loc"])} for item in error.errors()]
        ) from None


@router.post("/generate", deprecated=True, responses=native_responses(GenerateAnswer), openapi_extra=RESUME_HEADERS)
@declared.shared_limit(tier_rates, scope=GENERATE)
async def generate(request: Request, body: GenerateBody, stream: StreamQuery = None, accept: Accept = None) -> Response:
    """Answer a prompt."""
    return respond(request, body, body.prompt, wants_stream(body.stream, stream, accept))


@router.post("/chat", deprecated=True, responses=native_responses(GenerateAnswer), openapi_extra=RESUME_HEADERS)
@declared.shared_limit(tier_rates, scope=GENERATE)
async def chat(request: Request, body: ChatBody, stream: StreamQuery = None, accept: Accept = None) -> Response:
    """Answer a message."""
    return respond(request, body, body.message, wants_stream(body.stream, stream, accept), body.conversation_id)


@ticketed.get("/stream", response_class=Response, responses=ticketed_responses(), openapi_extra=RESUME_HEADERS)
@declared.shared_limit(tier_rates, scope=GENERATE)
async def stream(
    request: Request,
    prompt: Annotated[str, Query(min_length=1, max_length=QUERY_CHARACTERS_MAX, description="What to answer.")],
    model: Annotated[ModelName | None, Query()] = None,
    system: Annotated[str | None, Query(max_length=QUERY_CHARACTERS_MAX)] = None,
    max_tokens: Annotated[MaxTokens | None, Query()] = None,
    temperature: Annotated[Temperature | None, Query()] = None,
    simulator: Annotated[SimulatorBody | None, Depends(_simulator_query)] = None,
) -> Response:
    """Answer a prompt as a stream that a browser's `EventSource` reads."""
    body = GenerationBody(
        model=model, system=system, max_tokens=max_tokens, temperature=temperature, simulator=simulator
    )
    # Said at once: a worker that is killed says nothing any more, and its readers would all be back at one moment.
    opening = b"retry: %d\n" % random.randint(*EVENT_SOURCE_RETRY_MS)  # noqa: S311
    return respond(request, body, prompt, streamed=True, opening=opening)


def wants_stream(said: bool | None, query: bool | None, accept: str | None) -> bool:
    """Whether the answer is a stream: by the body, else by the query, else by what is accepted."""
    if said is not None:
        return said
    return query if query is not None else "text/event-stream" in (accept or "")


def respond(
    request: Request,
    body: GenerationBody,
    prompt: str,
    streamed: bool,
    conversation_id: str | None = None,
    opening: bytes = b"",
) -> Response:
    ctx, who = context(request), caller(request)
    messages: list[dict[str, Any]] = [{"role": "system", "content": body.system}] if body.system else []
    generation = GenerationRequest(
        model=body.model or ctx.models[0],
        messages=[*messages, {"role": "user", "content": prompt}],
        max_tokens=body.max_tokens,
        temperature=body.temperature,
        simulator=ctx.simulator(body.simulator),
        headers=upstream_headers(request),
    )
    policy = ctx.asked_policy("native", body.on_disconnect, streamed)
    wanted = Wanted(ctx, who, "native", generation, policy, conversation_id=conversation_id)
    if streamed:
        return wanted.stream(lambda reader: NativeEncoder.of(reader.record), who.resumable, opening)

    def answer(whole: Answer) -> dict[str, Any]:
        usage = UsageAnswer(**msgspec.structs.asdict(whole.done.usage))
        return GenerateAnswer(
            response=whole.text,
            prompt=prompt,
            model=generation.model,
            timestamp=datetime.now(UTC),
            tokens_used=usage.input_tokens + usage.output_tokens,
            stream_id=whole.stream_id,
            finish_reason=whole.done.finish_reason,
            usage=usage,
            conversation_id=conversation_id,
        ).model_dump(mode="json", exclude_none=True)

    return wanted.batch(answer)
