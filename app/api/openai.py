"""OpenAI's surface: POST /v1/chat/completions and GET /v1/models, for the unmodified SDK."""

from time import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from app.api.context import Context, context, upstream_headers
from app.api.openai_schemas import ChatCompletionBody, ModelCard, ModelList
from app.api.openapi import openai_responses
from app.events import Done
from app.providers.base import GenerationRequest
from app.streams.producer import Generation
from app.streams.response import content
from app.streams.sse import OpenAIEncoder, openai_usage
from app.streams.tool_calls import tool_calls

router = APIRouter(prefix="/v1", tags=["openai"])

Ctx = Annotated[Context, Depends(context)]


@router.post("/chat/completions", responses=openai_responses())
async def chat_completions(request: Request, body: ChatCompletionBody, ctx: Ctx) -> Response:
    """Answer a conversation."""
    wanted = GenerationRequest(
        model=body.model,
        messages=[message.model_dump(exclude_unset=True) for message in body.messages],
        max_tokens=body.max_completion_tokens or body.max_tokens,
        temperature=body.temperature,
        simulator=ctx.simulator(body.simulator),
        extra=body.model_extra or {},
        headers=upstream_headers(request),
    )
    created = int(time())
    if not body.stream:
        return ctx.batch(wanted, lambda generation, done: _completion(generation, done, created))
    usage = body.stream_options is not None and body.stream_options.include_usage
    return ctx.stream(wanted, lambda g: OpenAIEncoder(f"chatcmpl-{g.stream_id}", wanted.model, created, usage))


@router.get("/models")
async def models(ctx: Ctx) -> ModelList:
    """The models that are served."""
    return ModelList(data=[ModelCard(id=name) for name in ctx.providers])


@router.get("/models/{model:path}", responses=openai_responses())
async def model(model: str, ctx: Ctx) -> ModelCard:
    """One model."""
    ctx.provider(model)
    return ModelCard(id=model)


def _completion(generation: Generation, done: Done, created: int) -> dict[str, Any]:
    calls = tool_calls(generation.events)
    message: dict[str, Any] = {"role": "assistant", "content": content(generation) or (None if calls else "")}
    if thoughts := "".join(event.text for event in generation.tokens("thought")):
        message["reasoning_content"] = thoughts
    if calls:
        message["tool_calls"] = calls
    return {
        "id": f"chatcmpl-{generation.stream_id}",
        "object": "chat.completion",
        "created": created,
        "model": generation.request.model,
        "choices": [{"index": 0, "message": message, "finish_reason": done.finish_reason}],
        "usage": openai_usage(done),
    }
