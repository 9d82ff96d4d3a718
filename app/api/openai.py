"""OpenAI's surface: POST /v1/chat/completions and GET /v1/models, for the unmodified SDK."""

from time import time
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.api.access import Guarded
from app.api.context import Ctx, caller, context, upstream_headers
from app.api.openai_schemas import ChatCompletionBody, ModelCard, ModelList
from app.api.openapi import KEY_HEADER, openai_errors, openai_responses
from app.api.wanted import Wanted
from app.errors import ModelNotFound
from app.limits.declared import GENERATE, declared, tier_rates
from app.providers.base import GenerationRequest
from app.streams.answer import Answer
from app.streams.reader import Reader
from app.streams.sse import OpenAIEncoder, openai_usage

router = APIRouter(prefix="/v1", tags=["openai"], route_class=Guarded)


@router.post("/chat/completions", responses=openai_responses(), openapi_extra=KEY_HEADER)
@declared.shared_limit(tier_rates, scope=GENERATE)
async def chat_completions(request: Request, body: ChatCompletionBody) -> Response:
    """Answer a conversation."""
    ctx, who = context(request), caller(request)
    generation = GenerationRequest(
        model=body.model,
        messages=[message.model_dump(exclude_unset=True) for message in body.messages],
        max_tokens=body.max_completion_tokens or body.max_tokens,
        temperature=body.temperature,
        simulator=ctx.simulator(body.simulator),
        extra=body.model_extra or {},
        headers=upstream_headers(request),
    )
    wanted = Wanted(ctx, who, "openai", generation, ctx.asked_policy("openai", None, body.stream))
    created = int(time())
    if not body.stream:
        return wanted.batch(lambda whole: _completion(whole, body.model, created))
    usage = body.stream_options is not None and body.stream_options.include_usage
    # Not resumable: this surface has no ids to come back with.
    return wanted.stream(lambda reader: _encoder(reader, usage), resumable=False)


@router.get("/models", responses=openai_errors(401))
async def models(ctx: Ctx) -> ModelList:
    """The models that are served."""
    data = [ModelCard(id=name, display_name=name) for name in ctx.models]
    return ModelList(data=data, first_id=data[0].id, last_id=data[-1].id)


@router.get("/models/{model:path}", responses=openai_errors(400, 401, 404, 422))
async def model(model: str, ctx: Ctx) -> ModelCard:
    """One model."""
    if model not in ctx.models:
        raise ModelNotFound(f"There is no model {model[:100]!r}.")
    return ModelCard(id=model, display_name=model)


def _encoder(reader: Reader, include_usage: bool) -> OpenAIEncoder:
    # The stream's own time, so that all who join it see the same.
    record = reader.record
    return OpenAIEncoder(f"chatcmpl-{record.stream_id}", record.request.model, record.created_unix, include_usage)


def _completion(whole: Answer, model: str, created: int) -> dict[str, Any]:
    calls = whole.tool_calls
    message: dict[str, Any] = {"role": "assistant", "content": whole.text or (None if calls else "")}
    if whole.thoughts:
        message["reasoning_content"] = whole.thoughts
    if calls:
        message["tool_calls"] = calls
    return {
        "id": f"chatcmpl-{whole.stream_id}",
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": whole.done.finish_reason}],
        "usage": openai_usage(whole.done),
    }
