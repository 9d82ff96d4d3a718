"""Any LangChain Runnable or LangGraph graph as an upstream, inside this process.

It runs on the worker's event loop, beside the streams: code that blocks the loop blocks them all. LangChain runs
synchronous tools and models on threads by itself.
"""

import asyncio
import importlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import structlog

from app.errors import UpstreamError, UpstreamRejected, UpstreamStalled, UpstreamTimeout
from app.events import Done, Token
from app.providers.base import GenerationRequest, Pour
from app.providers.langchain_events import Conversation

log = structlog.get_logger(__name__)


class RunnableError(ValueError):
    """What was named cannot be used; the message says why."""


class LangChainProvider:
    """A `Provider` that runs one object for every generation.

    A graph gets `{"messages": [...]}`, everything else the messages themselves, as LangChain's. The request's bounds
    are in `config["configurable"]` as `max_tokens` and `temperature`, for whoever declares fields of these names.

    Args:
        runnable: its import path, `package.module:object`.
        first_token_seconds: until the first token.
        idle_seconds: between two events of any kind: a tool that works for longer has to stream, or needs more.
        total_seconds: for all of it.
        tool_calls: whether the reader is told which tools are called. A graph runs its own: clients that would run them
            too should not hear of them.

    Raises:
        RunnableError: there is no such object, or it cannot stream events.
    """

    def __init__(
        self,
        runnable: str,
        *,
        first_token_seconds: float,
        idle_seconds: float,
        total_seconds: float,
        tool_calls: bool = True,
    ) -> None:
        self._runnable = import_runnable(runnable)
        self._takes_state = _is_graph(self._runnable)
        self._first_token_seconds = first_token_seconds
        self._idle_seconds = idle_seconds
        self._total_seconds = total_seconds
        self._tool_calls = tool_calls

    async def generate(
        self, request: GenerationRequest, pour: Pour | None = None
    ) -> AsyncGenerator[Token | Done, None]:
        del pour  # there is always a task of its own, which runs the object
        conversation = Conversation()
        async with aclosing(self._events(request)) as events:
            async for event in events:
                for token in conversation.feed(event):
                    if self._tool_calls or token.kind != "tool_call":
                        yield token
        yield conversation.done(sum(len(str(message.get("content")).split()) for message in request.messages))

    async def _events(self, request: GenerationRequest) -> AsyncGenerator[dict[str, Any], None]:
        """The run's events within the deadlines; its failures as ours."""
        clock = asyncio.get_running_loop().time
        started = clock()
        first_at, total_at = started + self._first_token_seconds, started + self._total_seconds
        heard = False
        run: Any = self._runnable.astream_events(self._input(request), config=_config(request), version="v2")
        try:
            while True:
                due = clock() + self._idle_seconds if heard else first_at
                try:
                    async with asyncio.timeout_at(min(due, total_at)):
                        event = await _next(run)
                except TimeoutError:
                    if clock() < min(due, total_at):
                        raise  # the run's own
                    raise self._late(heard, clock() >= total_at) from None
                if event is None:
                    return
                heard = heard or event["event"].endswith("_stream")
                yield event
        except UpstreamError:
            raise
        except Exception as error:
            log.warning("runnable failed", model=request.model, exc_info=True)
            raise _failure(error) from None
        finally:
            await run.aclose()

    def _late(self, heard: bool, total: bool) -> UpstreamError:
        if total:
            return UpstreamTimeout("The upstream took too long to finish.")
        if heard:
            return UpstreamStalled("The upstream stopped sending tokens.")
        return UpstreamTimeout("The upstream sent no token in time.")

    def _input(self, request: GenerationRequest) -> Any:
        from langchain_core.messages import convert_to_messages

        messages = convert_to_messages(request.messages)
        return {"messages": messages} if self._takes_state else messages

    async def aclose(self) -> None:
        """What the object holds is its own."""


def import_runnable(path: str) -> Any:
    """The object at `package.module:object`.

    Raises:
        RunnableError: see the class.
    """
    module, _, name = path.partition(":")
    try:
        importlib.import_module("langchain_core")
    except ImportError:
        raise RunnableError("langchain is not installed (pip install 'sluice[langchain]')") from None
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:  # whatever the module does when it is imported
        raise RunnableError(f"{path} cannot be imported: {type(error).__name__}: {error}") from None
    if not callable(getattr(found, "astream_events", None)):
        raise RunnableError(f"{path} is no Runnable: it has no astream_events")
    return found


def _is_graph(runnable: Any) -> bool:
    try:
        protocol = importlib.import_module("langgraph.pregel.protocol").PregelProtocol
    except ImportError:
        return False
    return isinstance(runnable, protocol)


async def _next(run: AsyncIterator[Any]) -> Any:
    return await anext(run, None)


def _config(request: GenerationRequest) -> dict[str, Any]:
    bounds = {"max_tokens": request.max_tokens, "temperature": request.temperature}
    return {"configurable": {name: value for name, value in bounds.items() if value is not None}}


def _failure(error: Exception) -> UpstreamError:
    """As the client of the model's own API told it, where that says so; else the run's."""
    detail = f"{type(error).__name__}: {error}"[:500]
    status = getattr(error, "status_code", None)
    if isinstance(status, int) and 400 <= status <= 599:
        return UpstreamRejected(status, "The upstream refused the request.", detail=detail)
    return UpstreamError("The upstream's program failed.", detail=detail)
