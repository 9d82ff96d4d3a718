"""LangChain's own chat models, streaming: `python langchain_client.py openai|anthropic URL MODEL`.

Run in an environment of its own (scripts/interop-clients.sh): its pins are not the product's. Prints what came as JSON,
and ends with exit code 1 where LangChain raised.
"""

import json
import sys
from typing import Any

from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI


def weather(city: str) -> str:
    """Tells the weather of a city."""
    del city
    return "Rain."


WEATHER: Any = tool(weather)


def chat_model(surface: str, url: str, model: str) -> Any:
    if surface == "openai":
        return ChatOpenAI(model=model, base_url=f"{url}/v1", api_key="unused", max_retries=0, stream_usage=True)
    return ChatAnthropic(model=model, base_url=url, api_key="unused", max_retries=0, max_tokens=2000)


def main(surface: str, url: str, model: str) -> None:
    chat = chat_model(surface, url, model).bind_tools([WEATHER])
    messages: list[Any] = [HumanMessage("Hello")]
    texts = []
    while True:
        whole: Any = None
        for chunk in chat.stream(messages):
            whole = chunk if whole is None else whole + chunk
        texts.append(whole.text)
        if not whole.tool_calls:
            break
        results = [ToolMessage(WEATHER.invoke(call["args"]), tool_call_id=call["id"]) for call in whole.tool_calls]
        messages += [whole, *results]
    print(json.dumps({"texts": texts, "output_tokens": whole.usage_metadata["output_tokens"]}))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(1)
