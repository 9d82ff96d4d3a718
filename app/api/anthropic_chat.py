"""A body of Anthropic's Messages API as a chat of OpenAI's, for upstreams that speak that.

What is left out is listed, field by field: an upstream of Anthropic's own protocol gets the original, and any other one
refuses what the list names. What no event of ours could bring back from any upstream is refused here.
"""

import json
from typing import Any

from app.errors import InvalidRequest

# Tools that the caller runs: the model's call comes back as any other. Those that the API runs itself answer with
# blocks that no token carries.
CALLERS_TOOLS = ("bash_", "text_editor_", "computer_", "memory_", "browser_")
# They change nothing in the answer, or every protocol has them.
_WITHOUT_EFFECT = {"cache_control", "diagnostics", "max_tokens", "metadata", "service_tier", "temperature"}
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}

Message = dict[str, Any]


class Chat:
    """The translation, made at once: `messages`, `extra`, and in `uncarried` what they leave out.

    Raises:
        InvalidRequest: a field is not what the API takes, or its answer could not be carried.
    """

    def __init__(self, body: dict[str, Any]) -> None:
        self.messages: list[Message] = []
        self.extra: dict[str, Any] = {}
        self.uncarried: list[str] = []
        given = {name: value for name, value in body.items() if value is not None}
        self._instructions(given.pop("system", ""), "system")
        for at, message in enumerate(given.pop("messages")):
            self._turn(message, f"messages.{at}")
        if body["messages"][-1]["role"] == "assistant":
            self._leave(f"messages.{len(body['messages']) - 1}", "the beginning of an answer cannot be carried")
        self._tools(given.pop("tools", []), given.pop("tool_choice", {}))
        self._output(given.pop("output_config", {}), given.pop("thinking", {}))
        self._options(given)

    def _leave(self, field: str, why: str = "cannot be carried") -> None:
        self.uncarried.append(f"{field}: {why}")

    def _options(self, given: dict[str, Any]) -> None:
        if stop := given.pop("stop_sequences", None):
            self.extra["stop"] = stop
        if isinstance(user := given.get("metadata", {}).get("user_id"), str):
            self.extra["user"] = user
        self.extra |= {name: given.pop(name) for name in ("top_p", "top_k") if name in given}
        for name in ("mcp_servers", "container"):
            if given.get(name):
                raise InvalidRequest(f"{name}: what the API runs itself cannot be carried.")
        for name in sorted(given.keys() - _WITHOUT_EFFECT):  # the same at every worker: it is part of the request
            self._leave(name[:100])

    def _instructions(self, content: Any, field: str) -> None:
        text = "\n\n".join(self._texts(content, field))
        if text:
            self.messages.append({"role": "system", "content": text})

    def _texts(self, content: Any, field: str) -> list[str]:
        """The texts of content that can be nothing else in OpenAI's protocol."""
        if isinstance(content, str):
            return [content]
        if not isinstance(content, list) or not all(isinstance(block, dict) for block in content):
            raise InvalidRequest(f"{field}: a string or a list of blocks is required.")
        texts = []
        for at, block in enumerate(content):
            if block.get("type") == "text":
                texts.append(_string(block, "text", f"{field}.{at}"))
            else:
                self._leave(f"{field}.{at}", f"{str(block.get('type'))[:100]!r} cannot be carried here")
        return texts

    def _turn(self, message: dict[str, Any], field: str) -> None:
        content, role = message["content"], message["role"]
        if role == "system":
            self._instructions(content, f"{field}.content")
        elif isinstance(content, str):
            self.messages.append({"role": role, "content": content})
        elif role == "assistant":
            self._said(content, f"{field}.content")
        else:
            self._asked(content, f"{field}.content")

    def _asked(self, blocks: list[dict[str, Any]], field: str) -> None:
        """The results of tools are messages of their own, ahead of what the user says besides."""
        parts = []
        for at, block in enumerate(blocks):
            if block.get("type") == "tool_result":
                self._result(block, f"{field}.{at}")
            elif part := self._part(block, f"{field}.{at}"):
                parts.append(part)
        if parts:
            plain = parts[0]["text"] if len(parts) == 1 and parts[0]["type"] == "text" else parts
            self.messages.append({"role": "user", "content": plain})

    def _result(self, block: dict[str, Any], field: str) -> None:
        text = "\n\n".join(self._texts(block.get("content") or "", f"{field}.content"))
        if block.get("is_error"):
            text = f"Error: {text}"  # OpenAI's protocol has no field for it
        identity = _string(block, "tool_use_id", field)
        self.messages.append({"role": "tool", "tool_call_id": identity, "content": text})

    def _part(self, block: dict[str, Any], field: str) -> dict[str, Any] | None:
        kind = block.get("type")
        if kind == "text":
            return {"type": "text", "text": _string(block, "text", field)}
        citations = block.get("citations")
        if isinstance(citations, dict) and citations.get("enabled"):
            raise InvalidRequest(f"{field}.citations: citations cannot be carried.")
        source = block.get("source")
        if isinstance(source, dict):
            data = f"data:{source.get('media_type')};base64,{source.get('data')}"
            if kind == "image" and source.get("type") in ("base64", "url"):
                return {"type": "image_url", "image_url": {"url": source.get("url") or data}}
            if kind == "document" and source.get("type") == "base64":
                return {"type": "file", "file": {"filename": block.get("title") or "document.pdf", "file_data": data}}
            if kind == "document" and source.get("type") == "text":
                return {"type": "text", "text": _string(source, "data", f"{field}.source")}
        self._leave(field, f"{str(kind)[:100]!r} cannot be carried")
        return None

    def _said(self, blocks: list[dict[str, Any]], field: str) -> None:
        texts, calls = [], []
        for at, block in enumerate(blocks):
            kind = block.get("type")
            if kind == "text":
                texts.append(_string(block, "text", f"{field}.{at}"))
            elif kind == "tool_use":
                calls.append(_call(block, f"{field}.{at}"))
            elif kind not in ("thinking", "redacted_thinking"):  # which only whoever thought it can make use of
                self._leave(f"{field}.{at}", f"{str(kind)[:100]!r} cannot be carried")
        message: Message = {"role": "assistant", "content": "".join(texts) or (None if calls else "")}
        self.messages.append(message | ({"tool_calls": calls} if calls else {}))

    def _tools(self, tools: list[dict[str, Any]], choice: dict[str, Any]) -> None:
        found = []
        for at, tool in enumerate(tools):
            kind = tool.get("type") or "custom"
            if kind == "custom":
                found.append(_tool(tool, f"tools.{at}"))
            elif isinstance(kind, str) and kind.startswith(CALLERS_TOOLS):
                self._leave(f"tools.{at}.type", f"{kind[:100]!r} cannot be carried")
            else:
                raise InvalidRequest(f"tools.{at}.type: tools that the API runs itself cannot be carried.")
        if found:
            self.extra["tools"] = found
            self._choice(choice)

    def _choice(self, choice: dict[str, Any]) -> None:
        kind = choice.get("type")
        if kind == "tool":
            function = {"name": _string(choice, "name", "tool_choice")}
            self.extra["tool_choice"] = {"type": "function", "function": function}
        elif isinstance(kind, str) and kind in _CHOICES:
            self.extra["tool_choice"] = _CHOICES[kind]
        elif choice:
            raise InvalidRequest("tool_choice.type: one of auto, any, tool and none.")
        if choice.get("disable_parallel_tool_use"):
            self.extra["parallel_tool_calls"] = False

    def _output(self, config: dict[str, Any], thinking: dict[str, Any]) -> None:
        if thinking.get("type") not in (None, "adaptive", "disabled"):
            # A number of tokens to think with has no counterpart. How much is thought has: output_config.effort.
            self._leave("thinking", f"{str(thinking['type'])[:100]!r} cannot be carried; adaptive can")
        for name, value in config.items():
            if name == "effort" and value in ("low", "medium", "high", "xhigh"):
                self.extra["reasoning_effort"] = value
            elif name == "format" and isinstance(value, dict) and value.get("type") == "json_schema":
                schema = {"name": "answer", "schema": value.get("schema"), "strict": True}
                self.extra["response_format"] = {"type": "json_schema", "json_schema": schema}
            elif value is not None:
                self._leave(f"output_config.{name[:100]}")


def _tool(tool: dict[str, Any], field: str) -> dict[str, Any]:
    function = {"name": _string(tool, "name", field), "parameters": tool.get("input_schema")}
    function |= {name: tool[name] for name in ("description", "strict") if tool.get(name) is not None}
    return {"type": "function", "function": function}


def _call(block: dict[str, Any], field: str) -> dict[str, Any]:
    arguments = json.dumps(block.get("input") or {}, ensure_ascii=False, separators=(",", ":"))
    function = {"name": _string(block, "name", field), "arguments": arguments}
    return {"id": _string(block, "id", field), "type": "function", "function": function}


def _string(block: dict[str, Any], name: str, field: str) -> str:
    value = block.get(name)
    if not isinstance(value, str):
        raise InvalidRequest(f"{field}.{name}: a string is required.")
    return value
