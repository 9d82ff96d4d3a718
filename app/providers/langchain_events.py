"""LangChain's events (`astream_events`, version 2) as tokens: what models say, think and call, and how it ended.

Imports nothing of LangChain: messages are taken by their public attributes.
"""

from typing import Any

import msgspec

from app.events import Done, Token, TokenKind, Usage

# LangGraph's and LangSmith's tags for models whose words are not for the reader.
UNHEARD = frozenset({"nostream", "langsmith:nostream"})
# Of providers, in OpenAI's words.
_FINISHES = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "tool_use": "tool_calls"}


class Conversation:
    """The state of one run: feed it every event, then ask it for `done`.

    Models that stream are heard as they do. Where none was heard by the end, the run's own output is the answer: text
    that it streams, or what its last message says.
    """

    def __init__(self) -> None:
        self._streamed: set[str] = set()  # runs of models that were heard
        self._calls: dict[tuple[str, Any], int] = {}
        self._finish_reason = ""
        self._input_tokens = self._output_tokens = 0
        self._content_tokens = 0

    def feed(self, event: dict[str, Any]) -> list[Token]:
        """The tokens in one event."""
        kind, data = event["event"], event["data"]
        if not UNHEARD.isdisjoint(event.get("tags") or ()):
            return []
        if kind == "on_chat_model_stream":
            self._streamed.add(event["run_id"])
            return self._counted(self._said(data["chunk"], event["run_id"]))
        if kind == "on_chat_model_end":
            return self._model_ended(data["output"], event["run_id"])
        if kind == "on_llm_stream" and data.get("chunk") is not None:
            self._streamed.add(event["run_id"])
            return self._counted(_texts(getattr(data["chunk"], "text", data["chunk"])))
        if event.get("parent_ids") or self._streamed:
            return []
        # The outermost run, of which no model was heard.
        if kind == "on_chain_stream":
            return self._counted(_texts(data["chunk"]))
        return (
            self._counted(_texts(_last_text(data.get("output")))) if kind == "on_chain_end" and not self.spoke else []
        )

    @property
    def spoke(self) -> bool:
        """Whether any content was said."""
        return self._content_tokens > 0

    def done(self, input_words: int) -> Done:
        """The end. Where the models counted no usage, words and pieces were counted here."""
        if not (self._input_tokens or self._output_tokens):
            self._input_tokens, self._output_tokens = input_words, self._content_tokens
        reason = _FINISHES.get(self._finish_reason, self._finish_reason) or "stop"
        return Done(reason, Usage(self._input_tokens, self._output_tokens))

    def _said(self, message: Any, run: str) -> list[Token]:
        tokens: list[Token] = []
        for block in message.content_blocks:
            kind = block["type"]
            if kind == "text":
                tokens += _texts(block["text"])
            elif kind == "reasoning":
                tokens += _texts(block.get("reasoning"), "thought")
            elif kind in ("tool_call_chunk", "tool_call"):
                tokens.append(self._call(block, run))
        return tokens

    def _call(self, block: Any, run: str) -> Token:
        """Each model that is asked counts its calls from 0; a reader is given one count of them all."""
        place = (run, block.get("index", block.get("id")))
        index = self._calls.setdefault(place, len(self._calls))
        args = block.get("args") or ""
        arguments = args if isinstance(args, str) else msgspec.json.encode(args).decode()
        delta: dict[str, Any] = {"index": index, "function": {"arguments": arguments}}
        if block.get("id"):
            delta |= {"id": block["id"], "type": "function"}
        if block.get("name"):
            delta["function"]["name"] = block["name"]
        return Token(msgspec.json.encode([delta]).decode(), "tool_call")

    def _model_ended(self, message: Any, run: str) -> list[Token]:
        """What it said, if it did not stream; what it read and wrote."""
        tokens = [] if run in self._streamed else self._counted(self._said(message, run))
        self._streamed.add(run)
        usage = message.usage_metadata or {}
        self._input_tokens += usage.get("input_tokens", 0)
        self._output_tokens += usage.get("output_tokens", 0)
        said = message.response_metadata or {}
        # The last model's, whose words the answer ends with. What it calls is for the reader only if nothing follows.
        self._finish_reason = str(said.get("finish_reason") or said.get("stop_reason") or "")
        if message.tool_calls and not self._finish_reason:
            self._finish_reason = "tool_calls"
        return tokens

    def _counted(self, tokens: list[Token]) -> list[Token]:
        self._content_tokens += sum(token.kind == "content" for token in tokens)
        return tokens


def _texts(text: Any, kind: TokenKind = "content") -> list[Token]:
    return [Token(text, kind)] if isinstance(text, str) and text else []


def _last_text(output: Any) -> Any:
    """What a run that streamed nothing says in the end: text, a message, or a graph's state with messages."""
    if isinstance(output, dict):
        output = (output.get("messages") or [None])[-1]
    return getattr(output, "text", output)
