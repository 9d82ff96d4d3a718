"""Where log lines go: a bounded queue and a thread, so that a stalled stdout never stalls the event loop.

When the pipe is full and the queue too, or the disk is, lines are dropped and counted; the count is logged once lines
flow again.
"""

import os
import select
import threading
import time
from collections import deque
from datetime import UTC, datetime

LINES_MAX = 10_000
FLUSH_SECONDS = 1.0
# Lines of so long go out together: waking the thread for each of them would take a tenth of a request's CPU, most of it
# for handing the interpreter to and fro.
BATCH_SECONDS = 0.02
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
        self._lines: deque[bytes] = deque()
        self._news = threading.Event()
        self._writing = False
        self._thread: threading.Thread | None = None
        self._reported = 0
        self._torn = False
        # Each of one thread: adding to a number is no single step.
        self._refused = self._lost = 0

    def write(self, line: bytes) -> None:
        """Queue one line, without its end; never blocks."""
        if len(self._lines) >= self._lines_max:
            self._refused += 1
            return
        self._lines.append(line)
        if not self._news.is_set():
            self._news.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
            self._thread.start()

    @property
    def dropped(self) -> int:
        """Lines that found no room, here or where they go."""
        return self._refused + self._lost

    @property
    def unwritten(self) -> bool:
        """Whether a line has not been written yet."""
        return bool(self._lines) or self._writing

    def flush(self, seconds: float = FLUSH_SECONDS) -> None:
        """Wait until the queue is written, at most `seconds`."""
        deadline = time.monotonic() + seconds
        while self.unwritten and time.monotonic() < deadline:
            time.sleep(0.005)

    def _run(self) -> None:
        while True:
            self._news.wait()
            time.sleep(BATCH_SECONDS)
            # In this order: a line that comes from here on is news again.
            self._writing = True
            self._news.clear()
            while self._lines:
                self._lost += self._write(self._batch()).count(b"\n")
                self._report_dropped()
            self._writing = False

    def _batch(self) -> bytes:
        """As many lines as go into one write. The workers share one pipe, and only up to this size does a write not
        mingle with another's: pipe(7)."""
        lines = [self._lines.popleft()]
        size = len(lines[0]) + 1
        while self._lines and (size := size + len(self._lines[0]) + 1) <= select.PIPE_BUF:
            lines.append(self._lines.popleft())
        return b"\n".join(lines) + b"\n"

    def _report_dropped(self) -> None:
        if (dropped := self.dropped) != self._reported:
            now = datetime.now(UTC).isoformat().replace("+00:00", "Z").encode()
            line = b'{"timestamp":"%b","level":"warning","event":"log lines dropped","lines":%d}\n'
            if not self._write(line % (now, dropped - self._reported)):
                self._reported = dropped

    def _write(self, data: bytes) -> bytes:
        """What could not be written of it."""
        if self._torn:
            data = b"\n" + data
        whole = len(data)
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:
                select.select([], [self._fd], [], RETRY_SECONDS)
            except OSError:
                # A disk that is full has room again some day; a reader that is gone must not end the server either.
                # What follows must not be taken for the rest of a line of which only the beginning is there.
                if len(data) == whole:
                    return data.removeprefix(b"\n")  # ours, behind the beginning that is there
                self._torn = True
                return data
        self._torn = False
        return b""
