"""Where log lines go: a bounded queue and a thread, so that a stalled stdout never stalls the event loop.

When the pipe is full and the queue too, lines are dropped and counted; the count is logged once lines flow again.
"""

import contextlib
import os
import queue
import select
import threading
import time
from datetime import UTC, datetime

LINES_MAX = 10_000
FLUSH_SECONDS = 1.0
# How often a pipe that somebody made non-blocking is looked at while it is full.
RETRY_SECONDS = 1.0


class LogWriter:
    """Writes whole lines to a file descriptor, from a thread of each process that logs.

    Args:
        fd: where lines go.
        lines_max: how many may wait.
    """

    def __init__(self, fd: int, lines_max: int = LINES_MAX) -> None:
        self._fd = fd
        self._lines_max = lines_max
        self._reset()
        # A thread does not survive a fork, and a lock may be held by another one at that moment.
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._queue: queue.Queue[bytes] = queue.Queue(self._lines_max)
        self._thread: threading.Thread | None = None
        self._reported = 0
        self.dropped = 0

    def write(self, line: bytes) -> None:
        """Queue one line, without its end; never blocks."""
        try:
            self._queue.put_nowait(line)
        except queue.Full:
            self.dropped += 1
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
            self._thread.start()

    def flush(self, seconds: float = FLUSH_SECONDS) -> None:
        """Wait until the queue is written, at most `seconds`."""
        deadline = time.monotonic() + seconds
        while self._queue.unfinished_tasks and time.monotonic() < deadline:
            time.sleep(0.005)

    def _run(self) -> None:
        following: bytes | None = None
        while True:
            lines = [self._queue.get() if following is None else following]
            size, following = len(lines[0]), None
            with contextlib.suppress(queue.Empty):
                # The workers share one pipe, and only up to this size does a write not mingle with another's: pipe(7).
                while (size := size + 1 + len(following := self._queue.get_nowait())) < select.PIPE_BUF:
                    lines.append(following)
                    following = None
            self._write(b"\n".join(lines) + b"\n")
            self._report_dropped()
            for _ in lines:
                self._queue.task_done()

    def _report_dropped(self) -> None:
        if (dropped := self.dropped) != self._reported:
            now = datetime.now(UTC).isoformat().replace("+00:00", "Z").encode()
            self._write(
                b'{"timestamp":"%b","level":"warning","event":"log lines dropped","lines":%d}\n'
                % (now, dropped - self._reported)
            )
            self._reported = dropped

    def _write(self, data: bytes) -> None:
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:
                select.select([], [self._fd], [], RETRY_SECONDS)
            except OSError:
                return  # a reader that is gone must not end the server: from now on there is nobody to tell
