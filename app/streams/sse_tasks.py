"""Events to bytes as a task's readers get them: how far it is, and how it ended."""

from typing import Any

import msgspec

from app.events import Done, Event, Failed, Reset, Token
from app.streams.log import Cursor
from app.streams.sse import sse


class TaskEncoder:
    """The events of /api/v1/tasks/{id}/events: `progress`, `done`, `error`, `reset`, and on a connection only,
    `reconnect` and `notice`.

    Args:
        total: how many prompts the task has.
    """

    heartbeat = b": ping\n\n"

    def __init__(self, task_id: str, total: int) -> None:
        self._task_id = task_id
        self._total = total
        self._resumable = True

    def encode(self, cursor: Cursor | None, event: Event) -> bytes:
        head = b"" if cursor is None else b"id: %s.%d.%d\n" % (self._task_id.encode(), *cursor)
        if (cursor is not None) is not self._resumable:
            self._resumable = not self._resumable
            head = sse("notice", {"resumable": self._resumable}) + head
        if type(event) is Token:
            item = {"item": msgspec.Raw(event.text.rstrip("\n").encode())} if event.kind == "content" else {}
            return head + sse("progress", self._progress("running", event.index) | item)
        if type(event) is Done:
            ended = self._progress("completed", self._total) | {"usage": event.usage, "duration_ms": event.duration_ms}
            return head + sse("done", ended)
        if type(event) is Reset:
            return head + sse("reset", {"reason": event.reason})
        assert type(event) is Failed
        status = "cancelled" if event.code == "cancelled" else "failed"
        error = {"code": event.code, "message": event.message, "retryable": event.retryable}
        return head + sse("error", {"task_id": self._task_id, "status": status} | error)

    def farewell(self, reason: str, retry_ms: int) -> bytes:
        return b"retry: %d\n" % retry_ms + sse("reconnect", {"reason": reason, "retry_ms": retry_ms})

    def _progress(self, status: str, completed: int) -> dict[str, Any]:
        share = round(completed / self._total, 4)
        return {
            "task_id": self._task_id,
            "status": status,
            "progress": share,
            "completed": completed,
            "total": self._total,
        }
