"""Anthropic's surface: POST /v1/messages, for the unmodified SDK."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.api.access import Guarded
from app.api.anthropic_chat import Chat
from app.api.anthropic_schemas import MessagesBody
from app.api.context import caller, context, upstream_headers
from app.api.openapi import KEY_HEADER, anthropic_responses
from app.api.wanted import Wanted
from app.limits.declared import GENERATE, declared, tier_rates
from app.providers.base import GenerationRequest
from app.providers.own_terms import ANTHROPIC_BETA, ANTHROPIC_MARK, original, with_original
from app.streams.reader import Reader
from app.streams.sse_anthropic import AnthropicEncoder, anthropic_message

router = APIRouter(prefix="/v1", tags=["anthropic"], route_class=Guarded)
VERSION = "2023-06-01"  # where the caller names none
OURS = {"model", "stream", "max_tokens", "simulator"}


@router.post("/messages", responses=anthropic_responses(), openapi_extra=KEY_HEADER)
@declared.shared_limit(tier_rates, scope=GENERATE)
async def messages(request: Request, body: MessagesBody) -> Response:
    """Answer a conversation."""
    ctx, who = context(request), caller(request)
    given = body.model_dump(exclude_unset=True, exclude=OURS)
    chat = Chat(given)
    generation = GenerationRequest(
        model=body.model,
        messages=chat.messages,
        max_tokens=body.max_tokens,
        temperature=body.temperature,
        simulator=ctx.simulator(body.simulator),
        extra=with_original(chat.extra, chat.messages, given, chat.uncarried),
        headers=_headers(request),
    )
    wanted = Wanted(ctx, who, "anthropic", generation, ctx.asked_policy("anthropic", None, body.stream))
    if not body.stream:
        return wanted.batch(lambda whole: anthropic_message(whole, body.model))
    # Not resumable: this surface has no ids to come back with.
    return wanted.stream(_encoder, resumable=False)


def _headers(request: Request) -> dict[str, str]:
    headers = upstream_headers(request)
    headers[ANTHROPIC_MARK] = request.headers.get(ANTHROPIC_MARK, VERSION)
    if ANTHROPIC_BETA in request.headers:
        headers[ANTHROPIC_BETA] = request.headers[ANTHROPIC_BETA]
    return headers


def _encoder(reader: Reader) -> AnthropicEncoder:
    record = reader.record
    asked: dict[str, Any] = original(record.request) or {}
    thinks = (asked.get("thinking") or {}).get("type") != "disabled"
    return AnthropicEncoder(f"msg_{record.stream_id}", record.request.model, thinks and bool(asked.get("tools")))
