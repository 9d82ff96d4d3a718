"""A conversation by its name: what is kept of it, and forgetting it."""

from typing import Annotated

from fastapi import APIRouter, Path
from starlette.responses import Response

from app.api.access import Guarded
from app.api.context import Ctx, Who
from app.api.openapi import native_errors
from app.api.schemas import ConversationAnswer, ConversationMessage
from app.errors import NotFound

router = APIRouter(prefix="/conversations", tags=["conversations"], route_class=Guarded)

ConversationId = Annotated[str, Path(pattern=r"^[A-Za-z0-9._-]{1,64}$", examples=["about-the-sky"])]


@router.get("/{conversation_id}", responses=native_errors(401, 404, 422, 503))
async def read(conversation_id: ConversationId, ctx: Ctx, who: Who) -> ConversationAnswer:
    """What was said and answered, as the model will be told it."""
    found = await ctx.conversations.open(ctx.conversations.key(who.principal, conversation_id))
    if not found.version:
        raise NotFound("There is no such conversation, or no longer.")
    return ConversationAnswer(
        conversation_id=conversation_id,
        messages=[ConversationMessage(**message) for message in found.messages],
        stream_id=found.running.stream_id if found.running is not None else None,
    )


@router.delete("/{conversation_id}", status_code=204, responses=native_errors(401, 422, 503))
async def forget(conversation_id: ConversationId, ctx: Ctx, who: Who) -> Response:
    """Forget what was said. The streams that answered it are kept as all streams are."""
    await ctx.conversations.drop(ctx.conversations.key(who.principal, conversation_id))
    return Response(status_code=204)
