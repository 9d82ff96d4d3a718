"""Events to bytes as OpenAI's Responses API streams them, and to its response object. Pure.

Every frame has a number. It follows from the stream's events alone, however they came: who comes back after a number
is given the same frames again, without those up to it.

Source of the shapes: OpenAI's API reference, as openai 3.52 reads them.
"""

import sys
from collections.abc import Callable
from typing import Any

import msgspec

from app.events import Done, Event, Failed, Reset, Token, TokenKind
from app.streams.log import Cursor, StreamRecord
from app.streams.sse import FAREWELLS, RESTARTED, SHUTTING_DOWN, json_bytes, sse

# For whoever wants the response alone. All of a long one's text is in each of its last four frames.
NO_FRAMES = sys.maxsize
INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
_decode = msgspec.json.Decoder().decode


class ResponsesEncoder:
    """From `response.created` to `response.completed`, `.incomplete` or `.failed`.

    Args:
        outline: the response without what comes of its events; see `outline`.
        after: frames up to this number were delivered before, or are not wanted: see `NO_FRAMES`.
    """

    heartbeat = b": ping\n"

    def __init__(self, outline: dict[str, Any], after: int = -1) -> None:
        self._number = 0
        self._after = after
        self._opened = False
        self.response = outline | {"status": "in_progress", "output": []}
        self._stream_id = outline["id"].removeprefix("resp_")
        self._kind: TokenKind | None = None  # of the item that takes text
        self._pieces: list[str] = []
        self._delta_head = b""
        self._calls: dict[int, dict[str, Any]] = {}  # that are not complete, by the calls' own index

    def farewell(self, reason: str, retry_ms: int) -> bytes:
        # Not the response's end: the SDK does not take what it has for the whole answer.
        del retry_ms
        failed = FAREWELLS.get(reason, SHUTTING_DOWN)
        error = {"type": "error", "code": failed.code, "message": failed.message, "param": None}
        return sse("error", error | {"sequence_number": self._number})

    def encode(self, cursor: Cursor | None, event: Event) -> bytes:
        del cursor
        opening = b"" if self._opened else self._open()
        if type(event) is Token:
            if event.kind == "tool_call":
                return opening + b"".join([self._call(delta) for delta in _decode(event.text)])
            if event.kind != self._kind:
                opening += self._begin(event.kind)
            self._pieces.append(event.text)
            self._number += 1
            if self._number - 1 <= self._after:
                return b""
            return b'%b%b%b,"sequence_number":%d}\n\n' % (
                opening,
                self._delta_head,
                json_bytes(event.text),
                self._number - 1,
            )
        if type(event) is Done:
            return opening + self._end_all() + self._done(event)
        failed = RESTARTED if type(event) is Reset else event
        assert type(failed) is Failed
        return opening + self._end_all("incomplete") + self._failed(failed)

    def snapshot(self) -> dict[str, Any]:
        """The response as far as it was said."""
        output = self.response["output"]
        if self._kind is not None:
            output[-1]["content"][0]["text"] = "".join(self._pieces)
        for call in self._calls.values():
            output[call["index"]]["arguments"] = "".join(call["pieces"])
        return self.response

    def _frame(self, kind: str, **fields: Any) -> bytes:
        number, self._number = self._number, self._number + 1
        if number <= self._after:
            return b""
        return sse(kind, {"type": kind, **fields, "sequence_number": number})

    def _open(self) -> bytes:
        self._opened = True
        created = self._frame("response.created", response=self.response)
        return created + self._frame("response.in_progress", response=self.response)

    # An item of text: a message, or what was thought before it.

    def _begin(self, kind: TokenKind) -> bytes:
        frames = self._end_text()
        self._kind, index = kind, len(self.response["output"])
        item = _message(self._stream_id, index) if kind == "content" else _reasoning(self._stream_id, index)
        self.response["output"].append(item)
        at = {"item_id": item["id"], "output_index": index, "content_index": 0}
        frames += self._frame("response.output_item.added", output_index=index, item=item | {"content": []})
        frames += self._frame("response.content_part.added", **at, part=item["content"][0])
        name = "response.output_text.delta" if kind == "content" else "response.reasoning_text.delta"
        extra: dict[str, Any] = {"logprobs": []} if kind == "content" else {}
        # By hand, up to the text: the rest of the frame is the same for every token of the item.
        head = json_bytes({"type": name, **at, **extra})[:-1]
        self._delta_head = b"event: " + name.encode() + b"\ndata: " + head + b',"delta":'
        return frames

    def _end_text(self, status: str = "completed") -> bytes:
        if self._kind is None:
            return b""
        kind, self._kind = self._kind, None
        text, self._pieces = "".join(self._pieces), []
        index = len(self.response["output"]) - 1
        item = self.response["output"][index]
        item["status"], item["content"][0]["text"] = status, text
        at = {"item_id": item["id"], "output_index": index, "content_index": 0}
        name = "response.output_text.done" if kind == "content" else "response.reasoning_text.done"
        extra: dict[str, Any] = {"logprobs": []} if kind == "content" else {}
        frames = self._frame(name, **at, text=text, **extra)
        frames += self._frame("response.content_part.done", **at, part=item["content"][0])
        return frames + self._frame("response.output_item.done", output_index=index, item=item)

    # Calls of functions, whose arguments may come in turns.

    def _call(self, delta: dict[str, Any]) -> bytes:
        number, function = delta.get("index", 0), delta.get("function") or {}
        frames = b""
        if number not in self._calls:
            frames = self._end_text()
            index = len(self.response["output"])
            item = {
                "id": f"fc_{self._stream_id}_{index}",
                "type": "function_call",
                "status": "in_progress",
                "call_id": delta.get("id") or f"call_{self._stream_id}_{number}",
                "name": function.get("name") or "",
                "arguments": "",
            }
            self.response["output"].append(item)
            self._calls[number] = {"index": index, "pieces": []}
            frames += self._frame("response.output_item.added", output_index=index, item=item)
        call = self._calls[number]
        if arguments := function.get("arguments"):
            call["pieces"].append(arguments)
            at = {"item_id": self.response["output"][call["index"]]["id"], "output_index": call["index"]}
            frames += self._frame("response.function_call_arguments.delta", **at, delta=arguments)
        return frames

    def _end_calls(self, status: str) -> bytes:
        frames = b""
        for call in self._calls.values():
            index = call["index"]
            item = self.response["output"][index]
            item["status"], item["arguments"] = status, "".join(call["pieces"])
            at = {"item_id": item["id"], "output_index": index}
            done = "response.function_call_arguments.done"
            frames += self._frame(done, **at, name=item["name"], arguments=item["arguments"])
            frames += self._frame("response.output_item.done", output_index=index, item=item)
        self._calls = {}
        return frames

    def _end_all(self, status: str = "completed") -> bytes:
        return self._end_text(status) + self._end_calls(status)

    def _done(self, event: Done) -> bytes:
        usage = event.usage
        self.response["usage"] = {
            "input_tokens": usage.input_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": usage.output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage.input_tokens + usage.output_tokens,
        }
        reason = INCOMPLETE.get(event.finish_reason)
        if reason is None:
            self.response["status"] = "completed"
            return self._frame("response.completed", response=self.response)
        self.response |= {"status": "incomplete", "incomplete_details": {"reason": reason}}
        return self._frame("response.incomplete", response=self.response)

    def _failed(self, failed: Failed) -> bytes:
        # The SDK knows no event of a response that was cancelled.
        status = "cancelled" if failed.code == "cancelled" else "failed"
        self.response |= {"status": status, "error": {"code": failed.code, "message": failed.message}}
        return self._frame("response.failed", response=self.response)


def outline(record: StreamRecord, background: bool, echo: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    """A response as its request alone says it is.

    Args:
        echo: what of the request the API repeats.
    """
    return {
        "id": f"resp_{record.stream_id}",
        "object": "response",
        "created_at": record.created_unix,
        "background": background,
        "error": None,
        "incomplete_details": None,
        "model": record.request.model,
        "max_output_tokens": record.request.max_tokens,
        "temperature": record.request.temperature,
        "usage": None,
        **echo(record.request),
    }


def _message(stream_id: str, index: int) -> dict[str, Any]:
    part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    item = {"id": f"msg_{stream_id}_{index}", "type": "message", "status": "in_progress", "role": "assistant"}
    return item | {"content": [part]}


def _reasoning(stream_id: str, index: int) -> dict[str, Any]:
    item = {"id": f"rs_{stream_id}_{index}", "type": "reasoning", "status": "in_progress", "summary": []}
    return item | {"content": [{"type": "reasoning_text", "text": ""}]}
