"""Paths of older clients: other names of routes of /api/v1, which say in their headers where to go instead."""

from typing import Any

from fastapi import APIRouter, Request, Response

from app.api import auth, health, native
from app.api.access import Guarded, Ticketed
from app.api.auth_schemas import IdentityAnswer
from app.api.context import Ctx
from app.api.schemas import ChatBody, GenerateBody
from app.api.versions import announcement
from app.limits.declared import GENERATE, declared, tier_rates
from app.scope import set_headers

# Not in the documentation, where they would be found.
router = APIRouter(include_in_schema=False)


def _alias(path: str, endpoint: Any, method: str = "POST", kind: type[Guarded] = Guarded) -> None:
    router.add_api_route(path, endpoint, methods=[method], route_class_override=kind)


@declared.shared_limit(tier_rates, scope=GENERATE)
async def generate_stream(request: Request, body: GenerateBody) -> Response:
    """Answer a prompt as a stream."""
    return native.respond(request, body, body.prompt, streamed=True)


@declared.shared_limit(tier_rates, scope=GENERATE)
async def chat_stream(request: Request, body: ChatBody) -> Response:
    """Answer a message as a stream."""
    return native.respond(request, body, body.message, True, body.conversation_id)


_alias("/api/generate", native.generate)
_alias("/api/chat", native.chat)
_alias("/api/stream", native.stream, "GET", Ticketed)
_alias("/api/chat/stream", chat_stream)
_alias("/api/v1/stream/generate", generate_stream)


@router.get("/auth-status")
async def auth_status(request: Request, response: Response) -> IdentityAnswer:
    """Who asks, as far as this server knows."""
    set_headers(request.scope, announcement("/auth-status"))
    return await auth.status(request, response)


@router.get("/ready")
async def ready(request: Request, response: Response, ctx: Ctx) -> dict[str, str]:
    """New streams are welcome here."""
    set_headers(request.scope, announcement("/ready"))
    return await health.readyz(response, ctx)
