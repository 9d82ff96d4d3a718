"""What a process knows of itself and nobody outside can see: its tasks, by name, its threads, and how long something
holds its event loop."""

import asyncio
import gc
import importlib
import json
import os
import re
import socket
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

LOOK_SECONDS = 0.005
# A task's name ends in what it is for: a stream's id, a number.
_OF = re.compile(r"-[0-9A-Za-z_-]{22,40}$|-\d+$")


def serve(folder: str) -> None:
    """Answer everybody who connects to this process's socket, from a thread."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{folder}/{os.getpid()}")
    listener.listen()
    threading.Thread(target=_answer, args=(listener,), name="test-probe", daemon=True).start()


def ask(folder: Path, pid: int) -> "Insides":
    """What that process says of itself."""
    found = _asked(folder, pid, b"insides")
    return Insides(Counter(found["tasks"]), found["threads"])


def held_seconds(folder: Path, pid: int) -> float:
    """For how long that process's event loop was held at a stretch since this was asked last, at worst: the first time,
    0. In its thread's own time, in which nothing is that another process does."""
    return float(_asked(folder, pid, b"held"))


def _asked(folder: Path, pid: int, what: bytes) -> Any:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(folder / str(pid)))
        client.sendall(what + b"\n")
        with client.makefile("rb") as answer:
            said = answer.read()
    if not said:
        raise ConnectionError(f"{pid} ended before it answered")
    return json.loads(said)


class Insides:
    """One process's.

    Args:
        tasks: how many of each name are not done.
    """

    def __init__(self, tasks: Counter[str], threads: int) -> None:
        self.tasks = tasks
        self.threads = threads


def call(name: str) -> None:
    """Call `module:function`."""
    module, _, function = name.partition(":")
    getattr(importlib.import_module(module), function)()


def _answer(listener: socket.socket) -> None:
    held = _Held()
    while True:
        client, _ = listener.accept()
        with client, client.makefile("rb") as asked:
            if asked.readline() == b"held\n":
                said: Any = held.take()
            else:
                said = {"tasks": _tasks(), "threads": threading.active_count()}
            client.sendall(json.dumps(said).encode())


def _tasks() -> Counter[str]:
    tasks = [task for loop in _loops() for task in asyncio.all_tasks(loop)]
    return Counter(_OF.sub("", task.get_name()) for task in tasks)


def _loops() -> list[asyncio.AbstractEventLoop]:
    return [found for found in gc.get_objects() if isinstance(found, asyncio.AbstractEventLoop)]


class _Held:
    """Looks at the loop's thread's time once in a turn of the loop, some hundred times a second, once it was asked."""

    def __init__(self) -> None:
        self._last: float | None = None
        self._longest = 0.0

    def take(self) -> float:
        if self._last is None:
            (loop,) = [found for found in _loops() if found.is_running()]
            loop.call_soon_threadsafe(self._look, loop)
        longest, self._longest = self._longest, 0.0
        return longest

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = time.thread_time()
        if self._last is not None:
            self._longest = max(self._longest, now - self._last)
        self._last = now
        loop.call_later(LOOK_SECONDS, self._look, loop)
