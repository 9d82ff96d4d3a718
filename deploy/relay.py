"""Copies the programs' output to ours, and never lets a terminal that stopped reading hold the programs up.

Supervisor would otherwise write to our output itself: a paused terminal would then keep it from restarting anything,
and its `/dev/fd/1` cannot be opened at all where that is a socket.
"""

import os
import queue
import threading

CHUNK_BYTES = 64 * 1024
CHUNKS_MAX = 64


class Relay:
    """Reads `source` until its end; what `target` does not take in time is dropped and counted."""

    def __init__(self, source: int, target: int) -> None:
        self._source, self._target = source, target
        self._chunks: queue.Queue[bytes | None] = queue.Queue(CHUNKS_MAX)
        self._dropped_bytes = 0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._writer = threading.Thread(target=self._write, daemon=True)
        self._reader.start()
        self._writer.start()

    def say(self, text: str) -> None:
        """Our own words, in line with the programs'."""
        self._offer(f"{text}\n".encode())

    def finish(self, seconds_max: float) -> None:
        """Writes what is left, once the programs have ended."""
        self._reader.join(seconds_max)
        self._writer.join(seconds_max)

    def _offer(self, chunk: bytes) -> None:
        try:
            self._chunks.put_nowait(chunk)
        except queue.Full:
            self._dropped_bytes += len(chunk)

    def _read(self) -> None:
        while chunk := os.read(self._source, CHUNK_BYTES):
            self._offer(chunk)
        self._chunks.put(None)

    def _write(self) -> None:
        while (chunk := self._chunks.get()) is not None:
            if dropped := self._dropped_bytes:
                self._dropped_bytes = 0
                chunk += f"sluice: {dropped} bytes of output were dropped: nobody read them\n".encode()
            try:
                while chunk:
                    chunk = chunk[os.write(self._target, chunk) :]
            except OSError:
                continue  # the terminal is gone; go on emptying the queue
