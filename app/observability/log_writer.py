"""Where log lines go: a bounded queue and a thread, so that a stalled stdout never stalls the event loop.

When the pipe is full and the queue too, lines are dropped and counted; the count is logged once lines flow again.
"""

import contextlib
import os
import queue
import threading
import time

LINES_MAX = 10_000
FLUSH_SECONDS = 1.0


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
        self._unreported = 0
        self.dropped = 0

    def write(self, line: bytes) -> None:
        """Queue one line, without its end; never blocks."""
        try:
            self._queue.put_nowait(line)
        except queue.Full:
            self.dropped += 1
            self._unreported += 1
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
        while True:
            lines = [self._queue.get()]
            with contextlib.suppress(queue.Empty):
                while len(lines) < 100:
                    lines.append(self._queue.get_nowait())
            if self._unreported:
                lines.append(b'{"event":"log lines dropped","level":"warning","lines":%d}' % self._unreported)
                self._unreported = 0
            self._write(b"\n".join(lines) + b"\n")
            for _ in lines:
                with contextlib.suppress(ValueError):  # the line about drops was never queued
                    self._queue.task_done()

    def _write(self, data: bytes) -> None:
        # A reader that is gone must not end the server: from then on there is nobody to tell.
        with contextlib.suppress(OSError):
            while data:
                data = data[os.write(self._fd, data) :]
