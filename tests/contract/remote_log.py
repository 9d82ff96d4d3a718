"""A log in a process of its own, that a test may kill or stop: every method of `Log`, over a pipe.

python -m tests.contract.remote_log <address> <options as JSON>     # the other end
"""

import asyncio
import contextlib
import itertools
import os
import pickle
import signal
import struct
import sys
from pathlib import Path
from typing import Any, BinaryIO, Self

import msgspec

from tests.contract.logs import Options, open_log

ROOT = Path(__file__).parents[2]
START_SECONDS = 20.0
_LENGTH = struct.Struct("=I")


class ProcessGone(Exception):
    """The process ended before it answered."""


class RemoteLog:
    """The near end: `await remote.append(batch)` and all the others, as on a log of one's own."""

    def __init__(self, address: str, options: Options) -> None:
        self._arguments = [address, msgspec.json.encode(options).decode()]
        self._numbers = itertools.count()
        self._answers: dict[int, asyncio.Future[Any]] = {}

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.contract.remote_log",
            *self._arguments,
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        self._reader = asyncio.create_task(self._read())
        async with asyncio.timeout(START_SECONDS):
            await self.ping()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()

    def __getattr__(self, method: str) -> Any:
        async def call(*arguments: Any) -> Any:
            number = next(self._numbers)
            answer = self._answers[number] = asyncio.get_running_loop().create_future()
            assert self._process.stdin is not None
            self._process.stdin.write(_frame((number, method, arguments)))
            return await answer

        return call

    def send(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        self._process.send_signal(number)

    async def kill(self) -> None:
        """Kill -9, and wait until it is gone."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        await self._reader
        assert self._process.stdin is not None
        with contextlib.suppress(ConnectionError):
            self._process.stdin.close()
            await self._process.stdin.wait_closed()

    async def _read(self) -> None:
        assert self._process.stdout is not None
        try:
            while True:
                (length,) = _LENGTH.unpack(await self._process.stdout.readexactly(_LENGTH.size))
                number, error, value = pickle.loads(await self._process.stdout.readexactly(length))
                answer = self._answers.pop(number)
                if answer.cancelled():
                    continue
                if error is None:
                    answer.set_result(value)
                else:
                    answer.set_exception(error)
        except asyncio.IncompleteReadError:
            for answer in self._answers.values():
                if not answer.done():
                    answer.set_exception(ProcessGone())
                    answer.exception()  # nobody has to look at it


def _frame(value: Any) -> bytes:
    packed = pickle.dumps(value)
    return _LENGTH.pack(len(packed)) + packed


async def _serve(address: str, options: Options, answers: BinaryIO) -> None:
    """The far end: each call a task of its own, so that a `wait` holds nobody else."""
    log = await open_log(address, options)
    requests = asyncio.StreamReader(limit=2**26)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(requests), sys.stdin)

    async def answer(number: int, method: str, arguments: Any) -> None:
        try:
            value, error = (None if method == "ping" else await getattr(log, method)(*arguments)), None
        except Exception as raised:
            value, error = None, raised
        answers.write(_frame((number, error, value)))
        answers.flush()

    running = set()
    while True:
        (length,) = _LENGTH.unpack(await requests.readexactly(_LENGTH.size))
        task = asyncio.create_task(answer(*pickle.loads(await requests.readexactly(length))))
        running.add(task)
        task.add_done_callback(running.discard)


if __name__ == "__main__":
    # The pipe carries answers only: whatever else prints goes to stderr.
    pipe = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with contextlib.suppress(asyncio.IncompleteReadError):
        asyncio.run(_serve(sys.argv[1], msgspec.json.decode(sys.argv[2], type=Options), pipe))
