"""What a process knows of itself and nobody outside can see: its tasks, by name, and its threads."""

import asyncio
import gc
import importlib
import json
import os
import re
import socket
import threading
from collections import Counter
from pathlib import Path

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
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(folder / str(pid)))
        with client.makefile("rb") as answer:
            said = answer.read()
    if not said:
        raise ConnectionError(f"{pid} ended before it answered")
    found = json.loads(said)
    return Insides(Counter(found["tasks"]), found["threads"])


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
    while True:
        client, _ = listener.accept()
        with client:
            client.sendall(json.dumps({"tasks": _tasks(), "threads": threading.active_count()}).encode())


def _tasks() -> Counter[str]:
    loops = [found for found in gc.get_objects() if isinstance(found, asyncio.AbstractEventLoop)]
    tasks = [task for loop in loops for task in asyncio.all_tasks(loop)]
    return Counter(_OF.sub("", task.get_name()) for task in tasks)
