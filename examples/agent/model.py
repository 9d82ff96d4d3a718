"""A chat model without a model: it picks tools by words in the question and reads out what they found.

It stands in where no key is set, so that the agent runs anywhere, and says the same each time.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage
from langchain_core.messages.tool import ToolCall, tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.tools import BaseTool

SECONDS_A_WORD = 0.03
ORDERS = {"longest": "length_km DESC", "shortest": "length_km", "most countries": "countries DESC"}


class ScriptedModel(BaseChatModel):
    """Calls `query_rivers` and `search_notes` where a question seems to want them, then answers."""

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Sequence[BaseTool], **_: Any) -> "ScriptedModel":  # type: ignore[override]
        """It knows the tools by heart."""
        return self

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **_: Any,
    ) -> ChatResult:
        message = AIMessage("".join(_words(messages)), tool_calls=_calls(messages))
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **_: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for index, call in enumerate(_calls(messages)):
            ((name, text),) = call["args"].items()
            opening = tool_call_chunk(name=call["name"], id=call["id"], index=index, args=f'{{"{name}": "')
            for chunk in (opening, tool_call_chunk(index=index, args=text), tool_call_chunk(index=index, args='"}')):
                yield ChatGenerationChunk(message=AIMessageChunk(content="", tool_call_chunks=[chunk]))
        for word in _words(messages):
            await asyncio.sleep(SECONDS_A_WORD)
            yield ChatGenerationChunk(message=AIMessageChunk(content=word))


def _calls(messages: list[BaseMessage]) -> list[ToolCall]:
    """The tools that the question wants; none once they have answered."""
    if isinstance(messages[-1], ToolMessage):
        return []
    question = messages[-1].text.lower()
    calls = []
    if "river" in question:
        order = next((order for words, order in ORDERS.items() if words in question), "name")
        sql = f"SELECT name, length_km, mouth FROM rivers ORDER BY {order} LIMIT 3"
        calls.append(ToolCall(name="query_rivers", args={"sql": sql}, id=f"call-{len(messages)}-rivers"))
    if re.search(r"\b(sluice|lock|weir)s?\b", question):
        args = {"question": re.sub(r"[^\w ]", "", question)}
        calls.append(ToolCall(name="search_notes", args=args, id=f"call-{len(messages)}-notes"))
    return calls


def _words(messages: list[BaseMessage]) -> Iterator[str]:
    """What it says: nothing while it calls tools."""
    if _calls(messages):
        return
    found: list[str] = []
    for message in reversed(messages):
        if not isinstance(message, ToolMessage):
            break
        found.insert(0, message.text.strip())
    said = "\n\n".join(found) or "Ask me about rivers, locks, weirs or sluices."
    yield from re.findall(r"\S+\s*", f"I looked it up. {said}" if found else said)
