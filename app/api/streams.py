"""A stream by its id: resume, status and cancel. Always in native events, whatever surface began it."""

from typing import Annotated

from fastapi import APIRouter, Path, Query
from starlette.responses import Response

from app.api.access import Guarded, Ticketed
from app.api.context import Ctx, Who, resume
from app.api.openapi import EVENT_ID, LAST_HEADER, Responses, native_errors, ticketed_responses
from app.api.schemas import ErrorAnswer, StatusAnswer
from app.errors import InvalidCursor, NotFound
from app.streams.log import START, STREAM_ID, parse_id
from app.streams.reader import Reader
from app.streams.sse import NativeEncoder

router = APIRouter(prefix="/streams", tags=["streams"], route_class=Guarded)
ticketed = APIRouter(prefix="/streams", tags=["streams"], route_class=Ticketed)

LastEventId = Annotated[
    str | None,
    Query(description="For clients that cannot set the header.", json_schema_extra={"pattern": EVENT_ID}),
]
StreamId = Annotated[str, Path(description="As `X-Stream-Id` said.", examples=["pYnkZ0gC2rT1uVwX3yZaBcDe"])]
GONE: Responses = {
    204: {"description": "The id is that of the stream's end: there is no more."},
    410: {"model": ErrorAnswer, "description": "The log no longer holds what follows the id."},
}


@ticketed.get("/{stream_id}", response_class=Response, responses=ticketed_responses() | GONE, openapi_extra=LAST_HEADER)
async def read(
    stream_id: StreamId,
    ctx: Ctx,
    who: Who,
    last_event_id: LastEventId = None,
) -> Response:
    """Go on behind Last-Event-ID, or read the stream from its beginning."""
    del last_event_id  # for the documentation; `who` has the stronger of the two

    async def reader() -> Reader:
        after = START
        if who.last_event_id is not None:
            named, after = parse_id(who.last_event_id)
            if named != stream_id:
                raise InvalidCursor("Last-Event-ID is of another stream.")
        return await ctx.attach(who, known_id(stream_id), after)

    return resume(ctx, who, reader, lambda found: NativeEncoder.of(found.record))


@router.delete("/{stream_id}", status_code=204, responses=native_errors(401, 404, 422, 503))
async def cancel(stream_id: StreamId, ctx: Ctx, who: Who) -> Response:
    """Stop the generation; its readers get the error `cancelled`. A stream that has ended stays as it is."""
    await ctx.streams.cancel(known_id(stream_id), who.principal)
    return Response(status_code=204)


@router.get("/{stream_id}/status", responses=native_errors(401, 404, 422, 503))
async def status(stream_id: StreamId, ctx: Ctx, who: Who) -> StatusAnswer:
    """How far the stream is."""
    found = await ctx.streams.status(known_id(stream_id), who.principal)
    return StatusAnswer(**found._asdict())


def known_id(stream_id: str) -> str:
    """The id, if it may be one.

    Raises:
        NotFound
    """
    if STREAM_ID.fullmatch(stream_id) is None:
        raise NotFound("There is no such stream.")
    return stream_id
