"""Tasks: generations that nobody waits for. A task is a stream, and what is true of one is true of the other."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from app.api.access import Guarded, Ticketed
from app.api.context import Context, Ctx, Who, caller, context, resume, upstream_headers
from app.api.openapi import KEY_HEADER, LAST_HEADER, native_errors, task_events
from app.api.schemas import UsageAnswer
from app.api.streams import GONE, StreamId, known_id
from app.api.task_schemas import ItemAnswer, ItemError, TaskAnswer, TaskBody, TaskResult, TaskStatus
from app.api.wanted import Wanted
from app.errors import InvalidCursor, NotFound
from app.events import Failed, Token
from app.limits.declared import GENERATE, declared, tier_rates
from app.providers.base import GenerationRequest
from app.routing.batch import TASKS, Line, read_lines, split_prompts
from app.streams.log import START, Cursor, State, StreamRecord, StreamState, parse_id
from app.streams.reader import PAGE_EVENTS_MAX, Reader
from app.streams.sse_tasks import TaskEncoder

router = APIRouter(prefix="/tasks", tags=["tasks"], route_class=Guarded)
ticketed = APIRouter(prefix="/tasks", tags=["tasks"], route_class=Ticketed)

_STATUS: dict[State, TaskStatus] = {
    "running": "running",
    "done": "completed",
    "error": "failed",
    "cancelled": "cancelled",
}


@router.post(
    "",
    status_code=202,
    response_model=TaskAnswer,
    responses=native_errors(400, 401, 404, 413, 422, 429, 503),
    openapi_extra=KEY_HEADER,
)
@declared.shared_limit(tier_rates, scope=GENERATE)
async def create(request: Request, body: TaskBody) -> Response:
    """Begin a task. It goes on whatever becomes of this connection, and of the worker that has it."""
    ctx, who = context(request), caller(request)
    system: list[dict[str, Any]] = [{"role": "system", "content": body.system}] if body.system else []
    generation = GenerationRequest(
        model=body.model or ctx.models[0],
        messages=[*system, *({"role": "user", "content": prompt} for prompt in body.prompts)],
        max_tokens=body.max_tokens,
        temperature=body.temperature,
        simulator=ctx.simulator(body.simulator),
        headers=upstream_headers(request),
    )
    record = await Wanted(ctx, who, TASKS, generation, "finish", answers=len(body.prompts)).begin(
        "waiting", background=True
    )
    answer = await _answer(ctx, record.stream_id, who.principal)
    headers = {"Location": f"{request.url.path}/{record.stream_id}", "X-Stream-Id": record.stream_id}
    return JSONResponse(answer.model_dump(mode="json"), 202, headers)


@router.get("/{task_id}", responses=native_errors(401, 404, 422, 503))
async def read(task_id: StreamId, ctx: Ctx, who: Who) -> TaskAnswer:
    """How the task is; once it has ended, what came of it."""
    return await _answer(ctx, task_id, who.principal)


@ticketed.get(
    "/{task_id}/events",
    response_class=Response,
    responses=task_events() | GONE | native_errors(400, 401, 403, 404, 422, 503),
    openapi_extra=LAST_HEADER,
)
async def events(task_id: StreamId, ctx: Ctx, who: Who) -> Response:
    """How the task gets on, from its beginning or behind Last-Event-ID on."""

    async def reader() -> Reader:
        after = START
        if who.last_event_id is not None:
            named, after = parse_id(who.last_event_id)
            if named != task_id:
                raise InvalidCursor("Last-Event-ID is of another task.")
        await _described(ctx, task_id, who.principal)
        return await ctx.attach(who, task_id, after)

    return resume(ctx, who, reader, lambda found: TaskEncoder(task_id, _total(found.record)))


@router.delete("/{task_id}", status_code=204, responses=native_errors(401, 404, 422, 503))
async def cancel(task_id: StreamId, ctx: Ctx, who: Who) -> Response:
    """Stop the task. What is through is kept; a task that has ended stays as it is."""
    await _described(ctx, task_id, who.principal)
    await ctx.streams.cancel(task_id, who.principal)
    return Response(status_code=204)


async def _described(ctx: Context, task_id: str, principal: str) -> tuple[StreamRecord, StreamState]:
    found = await ctx.streams.backend.describe(known_id(task_id))
    if found is None or found[0].principal != principal or found[0].surface != TASKS:
        raise NotFound("There is no such task.")
    return found


async def _answer(ctx: Context, task_id: str, principal: str) -> TaskAnswer:
    record, state = await _described(ctx, task_id, principal)
    total = _total(record)
    ended = state.state != "running"
    # A task that runs is looked at often, and its newest event says how far it is.
    after = START if ended else Cursor(state.last.epoch, max(0, state.last.seq - 1))
    tokens, failed = await _read(ctx, task_id, after)
    completed = max((token.index for token in tokens), default=0)
    status = "pending" if state.last == START else _STATUS[state.state]
    lines = read_lines("".join(token.text for token in tokens if token.kind == "content")) if ended else []
    return TaskAnswer(
        task_id=task_id,
        status=status,
        progress=round(completed / total, 4),
        completed=completed,
        total=total,
        created=datetime.fromtimestamp(record.created_unix, UTC),
        result=_result(record, lines) if ended else None,
        error=_error(failed) if failed is not None else None,
    )


async def _read(ctx: Context, task_id: str, after: Cursor) -> tuple[list[Token], Failed | None]:
    """What was said behind a place, and how it failed."""
    tokens: list[Token] = []
    while page := await ctx.streams.backend.read(task_id, after, PAGE_EVENTS_MAX):
        for cursor, event in page:
            if type(event) is Token:
                tokens.append(event)
            elif type(event) is Failed:
                return tokens, event
            elif cursor.seq == 0:
                tokens.clear()
        after = page[-1][0]
    return tokens, None


def _result(record: StreamRecord, lines: Sequence[Line]) -> TaskResult:
    items = [_item(line) for line in sorted(lines, key=lambda line: line.index)]
    usages = [item.usage for item in items if item.usage is not None]
    return TaskResult(
        model=record.request.model,
        items=items,
        succeeded=sum(item.error is None for item in items),
        failed=sum(item.error is not None for item in items),
        usage=UsageAnswer(
            input_tokens=sum(usage.input_tokens for usage in usages),
            output_tokens=sum(usage.output_tokens for usage in usages),
        ),
    )


def _item(line: Line) -> ItemAnswer:
    usage = None if line.usage is None else UsageAnswer(**msgspec.structs.asdict(line.usage))
    error = None if line.error is None else ItemError(**msgspec.structs.asdict(line.error))
    return ItemAnswer(
        index=line.index, response=line.response, finish_reason=line.finish_reason, usage=usage, error=error
    )


def _error(failed: Failed) -> ItemError:
    return ItemError(code=failed.code, message=failed.message, retryable=failed.retryable)


def _total(record: StreamRecord) -> int:
    return len(split_prompts(record.request)[1])
