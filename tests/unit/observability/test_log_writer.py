"""Lines go out whole and in order, and whatever the other end does, nobody who logs waits for it."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.observability.log_writer import LogWriter


class Pipe:
    """A pipe whose reader reads when it is told to."""

    def __init__(self) -> None:
        self.read_fd, self.write_fd = os.pipe()
        self._read = b""
        self._writers: list[LogWriter] = []

    def writer(self, lines_max: int = 10_000) -> LogWriter:
        """A writer to this pipe."""
        self._writers.append(LogWriter(self.write_fd, lines_max))
        return self._writers[-1]

    def lines(self, until: bytes, within_seconds: float = 10) -> list[bytes]:
        """Everything so far, read until a line has `until` in it."""
        os.set_blocking(self.read_fd, False)
        deadline = time.monotonic() + within_seconds
        while until not in self._read or not self._read.endswith(b"\n"):
            assert time.monotonic() < deadline, f"{until!r} did not come"
            try:
                self._read += os.read(self.read_fd, 65_536)
            except BlockingIOError:
                time.sleep(0.002)
        return self._read.splitlines()

    def close(self) -> None:
        """End all writers' threads' waits first: the next test's pipe will have the same numbers."""
        with contextlib.suppress(OSError):
            os.close(self.read_fd)
        for writer in self._writers:
            writer.flush(10)
        with contextlib.suppress(OSError):
            os.close(self.write_fd)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


def test_lines_come_out_in_order(pipe: Pipe) -> None:
    writer = pipe.writer()
    sent = [b"line %d" % number for number in range(2000)]
    for line in sent:
        writer.write(line)
    assert pipe.lines(b"line 1999\n") == sent
    assert writer.dropped == 0


def test_a_line_that_is_longer_than_a_pipe_comes_out_whole(pipe: Pipe) -> None:
    writer = pipe.writer()
    sent = [b"before", b"x" * 300_000, b"after"]
    for line in sent:
        writer.write(line)
    assert pipe.lines(b"after\n") == sent


def test_writing_to_a_stalled_pipe_never_waits(pipe: Pipe) -> None:
    """A log collector that hangs would otherwise stop every stream."""
    writer = pipe.writer()
    longest, began = 0.0, time.monotonic()
    for number in range(50_000):
        before = time.monotonic()
        writer.write(b"%0100d" % number)
        longest = max(longest, time.monotonic() - before)
    assert time.monotonic() - began < 5
    assert longest < 0.5
    assert writer.dropped >= 50_000 - 10_000 - 1_000


def test_what_was_dropped_is_counted_and_told_when_the_pipe_flows_again(pipe: Pipe) -> None:
    writer = pipe.writer(lines_max=100)
    for number in range(5000):
        writer.write(b"%0100d" % number)
    assert writer.dropped > 0
    pipe.lines(b"log lines dropped")
    writer.flush(5)
    writer.write(b"99999")
    lines = pipe.lines(b"99999\n")
    reports = [json.loads(line) for line in lines if line.startswith(b"{")]
    for report in reports:
        assert (report["level"], report["event"]) == ("warning", "log lines dropped")
        assert report["timestamp"].endswith("Z")
    written = [int(line) for line in lines if not line.startswith(b"{")]
    assert written == sorted(written)
    assert sum(report["lines"] for report in reports) == writer.dropped == 5000 + 1 - len(written)


def test_every_stall_is_told_with_its_own_count(pipe: Pipe) -> None:
    writer = pipe.writer(lines_max=10)
    for stall in (b"first", b"second"):
        for _ in range(2000):
            writer.write(b"x" * 100)
        pipe.lines(b"dropped")
        writer.flush(5)
        writer.write(stall)
    told = [json.loads(line)["lines"] for line in pipe.lines(b"second") if line.startswith(b"{")]
    assert len(told) >= 2
    assert sum(told) == writer.dropped


def test_flushing_waits_until_all_is_written(pipe: Pipe) -> None:
    writer = pipe.writer()
    for number in range(500):
        writer.write(b"%d" % number)
    writer.flush(10)
    assert len(os.read(pipe.read_fd, 65_536).splitlines()) == 500


def test_flushing_into_a_stalled_pipe_is_bounded(pipe: Pipe) -> None:
    writer = pipe.writer()
    for _ in range(2000):
        writer.write(b"x" * 100)
    began = time.monotonic()
    writer.flush(0.2)
    assert 0.19 <= time.monotonic() - began < 1.5


def test_flushing_nothing_takes_no_time(pipe: Pipe) -> None:
    began = time.monotonic()
    pipe.writer().flush(10)
    assert time.monotonic() - began < 1


def test_a_reader_that_is_gone_is_harmless(pipe: Pipe) -> None:
    writer = pipe.writer()
    os.close(pipe.read_fd)
    for _ in range(3000):
        writer.write(b"x" * 100)
    writer.flush(10)
    assert writer.dropped == 3000


def test_a_reader_that_goes_while_the_pipe_is_full_is_harmless(pipe: Pipe) -> None:
    writer = pipe.writer()
    for _ in range(2000):
        writer.write(b"x" * 100)
    time.sleep(0.05)
    os.close(pipe.read_fd)
    writer.flush(10)
    writer.write(b"more")
    writer.flush(10)


def test_a_pipe_that_somebody_made_non_blocking_loses_nothing(pipe: Pipe) -> None:
    """Whoever shares our stdout may have done so; a full pipe is then an error instead of a wait."""
    os.set_blocking(pipe.write_fd, False)
    writer = pipe.writer()
    sent = [b"%0100d" % number for number in range(3000)]
    for line in sent:
        writer.write(line)
    time.sleep(0.1)
    assert pipe.lines(sent[-1]) == sent


def test_a_fork_in_the_middle_writes_no_line_twice(pipe: Pipe) -> None:
    """The child has a copy of what waits, and no thread."""
    writer = pipe.writer()
    for number in range(2000):
        writer.write(b"parent %05d %s" % (number, b"x" * 90))
    pid = os.fork()
    if pid == 0:
        writer.write(b"child")
        writer.flush(10)
        os._exit(0)
    writer.write(b"end")
    lines = pipe.lines(b"end\n")
    if b"child" not in lines:
        lines = pipe.lines(b"child\n")
    os.waitpid(pid, 0)
    assert [line.split()[1] for line in lines if line.startswith(b"parent")] == [b"%05d" % n for n in range(2000)]
    assert lines.count(b"child") == 1


def test_a_child_that_is_forked_while_others_log_can_log(pipe: Pipe) -> None:
    """The queue's lock may be held by another thread at the moment of the fork."""
    writer, stop = pipe.writer(), threading.Event()

    def busy() -> None:
        while not stop.is_set():
            writer.write(b"busy")

    def read() -> None:
        while not stop.is_set():
            os.read(pipe.read_fd, 65_536)

    threads = [threading.Thread(target=target, daemon=True) for target in (busy, busy, read)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        pid = os.fork()
        if pid == 0:
            writer.write(b"child")
            writer.flush(5)
            os._exit(1 if writer.unwritten else 0)
        assert exit_status(pid) == 0
    stop.set()
    writer.write(b"last")
    for thread in threads:
        thread.join(5)


def exit_status(pid: int, within_seconds: float = 10) -> int:
    deadline = time.monotonic() + within_seconds
    while time.monotonic() < deadline:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    raise AssertionError("the child hangs")


def test_lines_of_workers_that_share_a_pipe_are_not_mingled(pipe: Pipe) -> None:
    """A write is only atomic up to 4096 bytes; a batch of more would be cut into by another worker's."""
    code = """
import json, sys
from app.observability.log_writer import LogWriter
writer = LogWriter(1, lines_max=100_000)
print("ready", file=sys.stderr, flush=True)
sys.stdin.read()
for number in range(2000):
    writer.write(json.dumps({"worker": sys.argv[1], "number": number, "filler": sys.argv[1] * 150}).encode())
writer.flush(30)
"""
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", code, name], stdin=subprocess.PIPE, stdout=pipe.write_fd, stderr=subprocess.PIPE
        )
        for name in "abc"
    ]
    os.close(pipe.write_fd)
    for worker in workers:
        assert worker.stderr is not None
        assert worker.stderr.readline() == b"ready\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.close()
    data = b""
    while piece := os.read(pipe.read_fd, 4096):  # in small pieces, so that the pipe is full most of the time
        data += piece
    for worker in workers:
        assert worker.wait(10) == 0
        assert worker.stderr is not None
        worker.stderr.close()
    seen: dict[str, list[int]] = {"a": [], "b": [], "c": []}
    for line in data.splitlines():
        fields: dict[str, Any] = json.loads(line)
        seen[fields["worker"]].append(fields["number"])
    assert all(numbers == list(range(2000)) for numbers in seen.values())


@pytest.mark.parametrize("together", [False, True])
def test_what_a_full_disk_took_no_more_of_is_counted_and_told_when_there_is_room(
    tmp_path: Path, together: bool
) -> None:
    """By the bound on a file's size, which fails a write in the middle as a full disk does."""
    program = f"""
import resource, signal, sys
from app.observability.log_writer import LogWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with open({str(tmp_path / "log")!r}, "wb", buffering=0) as file:
    resource.setrlimit(resource.RLIMIT_FSIZE, (250, resource.RLIM_INFINITY))
    writer = LogWriter(file.fileno())
    def say(word, count):
        for number in range(count):
            writer.write(b'{{"%s":%d,"pad":"%s"}}' % (word, number, b"x" * 20))
            {"" if together else "writer.flush()"}
        writer.flush()
    say(b"before", 12)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    say(b"after", 2)
    print(writer.dropped)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "log").read_bytes().splitlines()
    dropped = int(done.stdout)
    assert 4 <= dropped < 12
    # One was torn; the others are each a line of their own.
    torn = [line for line in lines if not line.endswith(b"}")]
    assert len(torn) == 1
    events = [json.loads(line) for line in lines if line not in torn]
    assert [event["lines"] for event in events if event.get("event") == "log lines dropped"] == [dropped]
    assert [event["after"] for event in events if "after" in event] == [0, 1]
    assert sum("before" in event for event in events) == 12 - dropped
