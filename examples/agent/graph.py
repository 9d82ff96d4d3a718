"""A LangGraph agent that Sluice streams: a model that calls two tools until it can answer.

With `OPENAI_API_KEY` and langchain-openai it asks a real model, else one that only picks words.
"""

import os
from typing import Any

from langchain_core.language_models import BaseChatModel
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

from examples.agent.model import ScriptedModel
from examples.agent.tools import query_rivers, search_notes

TOOLS = [query_rivers, search_notes]


def _model() -> BaseChatModel:
    if not os.environ.get("OPENAI_API_KEY"):
        return ScriptedModel()
    from langchain_openai import ChatOpenAI

    model: BaseChatModel = ChatOpenAI(model=os.environ.get("OPENAI_MODEL", "gpt-4o-mini"))
    return model


_bound = _model().bind_tools(TOOLS)


async def _speak(state: MessagesState) -> dict[str, Any]:
    return {"messages": [await _bound.ainvoke(state["messages"])]}


def _graph() -> Any:
    graph = StateGraph(MessagesState)
    graph.add_node("model", _speak)
    graph.add_node("tools", ToolNode(TOOLS))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "model")
    return graph.compile()


graph = _graph()
