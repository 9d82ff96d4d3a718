"""OpenAI's Responses API on the stream log: the unmodified SDK reads a response again, from any frame on."""

from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Path, Query, Request
from starlette.responses import JSONResponse, Response

from app.api.access import Guarded
from app.api.context import Caller, Context, Ctx, Who, caller, context, resume, upstream_headers
from app.api.openapi import KEY_HEADER, openai_errors, responses_responses
from app.api.responses_chat import echo, extra_of, instructed, messages_of, without_instructions
from app.api.responses_schemas import ResponseAnswer, ResponsesBody
from app.api.streams import known_id
from app.api.wanted import BACKGROUND, Wanted
from app.errors import InvalidRequest, NotFound
from app.limits.declared import GENERATE, declared, tier_rates
from app.providers.base import GenerationRequest
from app.streams.answer import Answer
from app.streams.log import START, StreamRecord
from app.streams.reader import PAGE_EVENTS_MAX, Reader
from app.streams.sse_responses import NO_FRAMES, ResponsesEncoder, outline

router = APIRouter(prefix="/v1/responses", tags=["openai"], route_class=Guarded)
SURFACE: Final = "responses"
PREFIX = "resp_"

ResponseId = Annotated[str, Path(max_length=64, examples=["resp_pYnkZ0gC2rT1uVwX3yZaBcDe"])]


@router.post("", responses=responses_responses(), openapi_extra=KEY_HEADER)
@declared.shared_limit(tier_rates, scope=GENERATE)
async def create(request: Request, body: ResponsesBody) -> Response:
    """Answer; in the background, if asked to, whatever becomes of the connection."""
    ctx, who = context(request), caller(request)
    generation = GenerationRequest(
        model=body.model,
        messages=[*instructed(body), *messages_of(body.input)],
        max_tokens=body.max_output_tokens,
        temperature=body.temperature,
        simulator=ctx.simulator(body.simulator),
        extra=extra_of(body),
        headers=upstream_headers(request),
    )
    if body.previous_response_id is not None:
        # Before all of that one is read: who is refused is to cost no more than that.
        await ctx.quotas.look(who.scope, who.identity, who.limits, who.key, generation)
        before = await _before(ctx, who, body.previous_response_id)
        messages = [*instructed(body), *before, *messages_of(body.input)]
        generation = msgspec.structs.replace(generation, messages=messages)
    policy = ctx.asked_policy(SURFACE, None, body.stream)
    wanted = Wanted(ctx, who, BACKGROUND if body.background else SURFACE, generation, policy)
    if body.stream:
        # Not resumable in the sense of a drain: the SDK reads on to the end of a connection.
        return wanted.stream(lambda reader: ResponsesEncoder(_outline(reader.record)), resumable=False)
    if body.background:
        record = await wanted.begin("bound", background=True)
        answer = await _answer(ctx, record)
        return JSONResponse(answer, headers={"X-Stream-Id": record.stream_id})
    return wanted.batch(_whole)


@router.get("/{response_id}", responses=responses_responses())
async def read(
    response_id: ResponseId,
    ctx: Ctx,
    who: Who,
    stream: Annotated[bool, Query(description="As server-sent events, from the beginning.")] = False,
    starting_after: Annotated[int | None, Query(ge=0, description="Behind the frame of this number.")] = None,
) -> Response:
    """A response as far as it is, or its stream."""
    record = await _record(ctx, who, response_id)
    if not stream:
        if starting_after is not None:
            raise InvalidRequest("starting_after: only with stream=true.")
        return JSONResponse(await _answer(ctx, record), headers={"X-Stream-Id": record.stream_id})

    async def reader() -> Reader:
        # From the beginning: which frame has which number follows from all that came before.
        return await ctx.attach(who, record.stream_id, START)

    after = -1 if starting_after is None else starting_after
    return resume(ctx, who, reader, lambda _: ResponsesEncoder(_outline(record), after), resumable=False)


@router.post("/{response_id}/cancel", responses=openai_errors(400, 401, 404, 422, 503))
async def cancel(response_id: ResponseId, ctx: Ctx, who: Who) -> ResponseAnswer:
    """Stop the generation. A response that has ended stays as it is."""
    record = await _record(ctx, who, response_id)
    await ctx.streams.cancel(record.stream_id, who.principal)
    answer = await _answer(ctx, record)
    if answer["status"] == "in_progress":
        answer["status"] = "cancelled"  # by a worker elsewhere, within a second
    return ResponseAnswer(**answer)


def _outline(record: StreamRecord) -> dict[str, Any]:
    return outline(record, record.surface == BACKGROUND, echo)


def _whole(whole: Answer) -> dict[str, Any]:
    encoder = ResponsesEncoder(_outline(whole.record), NO_FRAMES)
    for token in whole.tokens:
        encoder.encode(None, token)
    encoder.encode(None, whole.done)
    return encoder.response


async def _answer(ctx: Context, record: StreamRecord) -> dict[str, Any]:
    """The response as far as it is in the log."""
    encoder, after = ResponsesEncoder(_outline(record), NO_FRAMES), START
    while page := await ctx.streams.backend.read(record.stream_id, after, PAGE_EVENTS_MAX):
        for cursor, event in page:
            encoder.encode(cursor, event)
        after = page[-1][0]
    return encoder.snapshot()


async def _record(ctx: Context, who: Caller, response_id: str) -> StreamRecord:
    if not response_id.startswith(PREFIX):
        raise NotFound("There is no such response.")
    found = await ctx.streams.backend.describe(known_id(response_id.removeprefix(PREFIX)))
    if found is None or found[0].principal != who.principal or found[0].surface not in (SURFACE, BACKGROUND):
        raise NotFound("There is no such response.")
    return found[0]


async def _before(ctx: Context, who: Caller, response_id: str) -> list[dict[str, Any]]:
    """What was said up to the end of that response."""
    record = await _record(ctx, who, response_id)
    answer = await _answer(ctx, record)
    if answer["status"] not in ("completed", "incomplete"):
        raise InvalidRequest("previous_response_id: that response is not complete.")
    return [*without_instructions(record.request.messages), *messages_of(answer["output"])]
