"""Runnables and graphs for tests of the langchain provider: real ones, around models that say what they are told."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableGenerator, RunnableLambda
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

USAGE = UsageMetadata(input_tokens=7, output_tokens=3, total_tokens=10)
LEFT: list[str] = []
"""What runs were stopped in the middle."""


class Teller(BaseChatModel):
    """Streams its chunks; an exception among them is raised, a number is waited for."""

    chunks: list[Any]

    @property
    def _llm_type(self) -> str:
        return "teller"

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        said = next(chunk for chunk in self.chunks if isinstance(chunk, AIMessage))
        return ChatResult(generations=[ChatGeneration(message=said)])

    async def _astream(self, messages: list[BaseMessage], *_: Any, **__: Any) -> AsyncIterator[ChatGenerationChunk]:
        try:
            for chunk in self.chunks:
                if isinstance(chunk, Exception):
                    raise chunk
                if isinstance(chunk, int | float):
                    await asyncio.sleep(chunk)
                else:
                    yield ChatGenerationChunk(message=chunk)
        except asyncio.CancelledError:
            LEFT.append("teller")
            raise


class Whole(Teller):
    """One that cannot stream."""

    _astream = BaseChatModel._astream


class Refused(Exception):
    """As the clients of models' own APIs raise it."""

    status_code = 429


def piece(text: Any = "", **fields: Any) -> AIMessageChunk:
    return AIMessageChunk(content=text, **fields)


END = piece(usage_metadata=USAGE, response_metadata={"finish_reason": "length"})


@tool
def depth(place: str) -> str:
    """How deep the water is."""
    return f"{place}: 3 m"


def _graph(answer: Iterable[Any], tags: list[str] | None = None) -> Any:
    """Calls `depth`, then says `answer`."""
    call = tool_call_chunk(name="depth", id="call-1", index=0, args='{"place": "weir"}')
    asks = Teller(chunks=[piece(tool_call_chunks=[call])])
    says = Teller(chunks=list(answer))

    async def speak(state: MessagesState) -> dict[str, Any]:
        first = isinstance(state["messages"][-1], HumanMessage)
        return {"messages": [await (asks if first else says).ainvoke(state["messages"], {"tags": tags or []})]}

    graph = StateGraph(MessagesState)
    graph.add_node("model", speak)
    graph.add_node("tools", ToolNode([depth]))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "model")
    return graph.compile()


async def _words(_: AsyncIterator[Any]) -> AsyncIterator[str]:
    for word in ("one ", "two ", "three"):
        yield word


graph = _graph([piece("It is "), piece("3 m deep."), END])
failing_graph = _graph([piece("It is "), ValueError("secret-host:5432 is away")])
silent_graph = _graph([piece("Not for you.")], ["nostream"])
model = Teller(chunks=[piece("one "), piece("two"), END])
thinking = Teller(chunks=[piece([{"type": "reasoning", "reasoning": "Hm."}]), piece("So.")])
two_calls = Teller(
    chunks=[
        piece(tool_call_chunks=[tool_call_chunk(name=name, id=name, index=at, args="{}")])
        for at, name in enumerate("ab")
    ]
)
whole = Whole(chunks=[AIMessage("all at once", usage_metadata=USAGE)])
chain = model | StrOutputParser()
words = RunnableGenerator(_words)
function: Any = RunnableLambda(lambda messages: f"{len(messages)} messages")
refused = Teller(chunks=[Refused("api-key-of-ours is over its limit")])
never = Teller(chunks=[60, piece("late")])
stalls = Teller(chunks=[piece("one "), 60])
slow = Teller(chunks=[piece("x "), 0.4] * 20)
not_one = object()
