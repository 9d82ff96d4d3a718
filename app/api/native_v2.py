"""/api/v2/generate and /api/v2/chat: the native surface's current shape, before the same streams as /api/v1."""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.api.access import Guarded
from app.api.context import caller, context, upstream_headers
from app.api.native import Accept, StreamQuery, wants_stream
from app.api.openapi import RESUME_HEADERS, native_responses
from app.api.schemas_v2 import ChatBodyV2, ContentV2, GenerateAnswerV2, GenerateBodyV2, UsageV2
from app.api.wanted import Wanted
from app.limits.declared import GENERATE, declared, tier_rates
from app.providers.base import GenerationRequest
from app.streams.answer import Answer
from app.streams.log import StreamRecord
from app.streams.sse import NativeEncoder

router = APIRouter(prefix="/api/v2", tags=["native"], route_class=Guarded)


@router.post("/generate", responses=native_responses(GenerateAnswerV2), openapi_extra=RESUME_HEADERS)
@declared.shared_limit(tier_rates, scope=GENERATE)
async def generate(
    request: Request, body: GenerateBodyV2, stream: StreamQuery = None, accept: Accept = None
) -> Response:
    """Answer an input."""
    return _respond(request, body, wants_stream(body.options.stream, stream, accept))


@router.post("/chat", responses=native_responses(GenerateAnswerV2), openapi_extra=RESUME_HEADERS)
@declared.shared_limit(tier_rates, scope=GENERATE)
async def chat(request: Request, body: ChatBodyV2, stream: StreamQuery = None, accept: Accept = None) -> Response:
    """Answer the next thing that is said in a conversation."""
    return _respond(request, body, wants_stream(body.options.stream, stream, accept), body.conversation_id)


def _respond(request: Request, body: GenerateBodyV2, streamed: bool, conversation_id: str | None = None) -> Response:
    ctx, who, options = context(request), caller(request), body.options
    instructions: list[dict[str, Any]] = []
    if body.instructions:
        instructions = [{"role": "system", "content": body.instructions}]
    generation = GenerationRequest(
        model=body.model or ctx.models[0],
        messages=[*instructions, {"role": "user", "content": body.content}],
        max_tokens=options.max_tokens,
        temperature=options.temperature,
        simulator=ctx.simulator(options.simulator),
        extra={} if options.seed is None else {"seed": options.seed},
        headers=upstream_headers(request),
    )
    policy = ctx.asked_policy("native", options.on_disconnect, streamed)
    wanted = Wanted(
        ctx,
        who,
        "native",
        generation,
        policy,
        conversation_id=conversation_id,
        metadata=body.metadata,
        cached=options.cache,
    )

    def metadata(record: StreamRecord) -> Mapping[str, str]:
        # A cached answer was begun with another request's; whoever goes on behind an id has asked for nothing.
        return body.metadata if who.last_event_id is None else record.metadata

    if streamed:
        return wanted.stream(lambda reader: _encoder(reader.record, metadata(reader.record)), who.resumable)
    return wanted.batch(lambda whole: _answer(whole, metadata(whole.record), conversation_id))


def _encoder(record: StreamRecord, metadata: Mapping[str, str]) -> NativeEncoder:
    return NativeEncoder(record.stream_id, record.request.model, metadata)


def _answer(whole: Answer, metadata: Mapping[str, str], conversation_id: str | None) -> dict[str, Any]:
    record, usage = whole.record, whole.done.usage
    content = [ContentV2(type="thought", text=whole.thoughts)] if whole.thoughts else []
    if whole.text:
        content.append(ContentV2(type="text", text=whole.text))
    for call in whole.tool_calls:
        function = call["function"]
        content.append(
            ContentV2(type="tool_call", id=call.get("id"), name=function["name"], arguments=function["arguments"])
        )
    return GenerateAnswerV2(
        id=record.stream_id,
        model=record.request.model,
        created_at=record.created_unix,
        content=content,
        finish_reason=whole.done.finish_reason,
        usage=UsageV2(
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            total_tokens=usage.input_tokens + usage.output_tokens,
        ),
        metadata=dict(metadata),
        conversation_id=conversation_id,
    ).model_dump(mode="json", exclude_none=True)
