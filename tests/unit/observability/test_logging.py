"""Whoever writes a line, it comes out as one line of JSON with the same fields, and writing it harms nobody."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from datetime import datetime
from pathlib import Path
from textwrap import dedent
from typing import Any

ROOT = Path(__file__).parents[3]


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
    return kept | {"PYTHONPATH": str(ROOT)} | more


def parsed(output: str) -> list[dict[str, Any]]:
    """Every line of the output, each of which has what each has."""
    lines = [json.loads(line) for line in output.splitlines()]
    for line in lines:
        assert list(line)[:3] == ["timestamp", "level", "event"]
        assert line["timestamp"].endswith("Z")
        assert datetime.fromisoformat(line["timestamp"]).year > 2000
        assert line["level"] in {"debug", "info", "warning", "error", "critical"}
    return lines


def logged(code: str, level: str = "info") -> list[dict[str, Any]]:
    """What a process of its own logs."""
    setup = f"""
import asyncio, logging, os, sys, warnings
import structlog
from app.observability.logging import adopt_stdlib_logger, configure_logging
configure_logging({level!r})
log = structlog.get_logger("app.test")
"""
    command = [sys.executable, "-c", setup + dedent(code)]
    ran = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=30)
    assert (ran.returncode, ran.stderr) == (0, "")
    return parsed(ran.stdout)


def test_a_line_of_the_app_has_its_event_and_its_fields() -> None:
    (line,) = logged('log.info("stream ended", stream="s1", tokens=7, cause=None)')
    assert (line["event"], line["level"]) == ("stream ended", "info")
    assert (line["stream"], line["tokens"], line["cause"]) == ("s1", 7, None)


def test_a_line_carries_the_request_that_it_is_about() -> None:
    first, second = logged("""
        structlog.contextvars.bind_contextvars(request_id="r1")
        log.info("a")
        logging.getLogger("library").warning("b")
    """)
    assert (first["request_id"], second["request_id"]) == ("r1", "r1")


def test_a_record_of_the_standard_library_looks_the_same() -> None:
    (line,) = logged('logging.getLogger("library").warning("%d things", 3)')
    assert (line["event"], line["level"], line["logger"]) == ("3 things", "warning", "library")


def test_a_traceback_is_one_line_whoever_logs_it() -> None:
    lines = logged("""
        for write in (log.exception, logging.getLogger("library").exception):
            try:
                1 / 0
            except ZeroDivisionError:
                write("failed")
    """)
    assert [line["level"] for line in lines] == ["error", "error"]
    for line in lines:
        assert line["exception"].startswith("Traceback (most recent call last):\n")
        assert line["exception"].endswith("ZeroDivisionError: division by zero")


def test_a_line_cannot_be_forged_by_what_it_says() -> None:
    forged = '\n{"timestamp":"2026-01-01T00:00:00Z","level":"info","event":"forged"}\r'
    app, library = logged(f'log.info("a", text={forged!r}); logging.getLogger("x").error("b %s", {forged!r})')
    assert (app["text"], library["event"]) == (forged, f"b {forged}")


def test_what_cannot_be_written_does_not_harm_whoever_writes_it() -> None:
    lines = logged("""
        class Sullen:
            def __str__(self):
                raise ValueError("no")
            __repr__ = __str__
        log.info("half \\ud800", text="b\\udfff", more={"c": "\\ud800"})
        log.info("sullen", value=Sullen())
        log.info("odd", path=__import__("pathlib").Path("/x"), big=2**80, nan=float("nan"), pair={1, }, data=b"b")
        logging.getLogger("library").error("half \\ud800")
        log.info("after")
    """)
    assert [line["event"].split()[0] for line in lines] == ["half", "sullen", "odd", "half", "after"]
    assert (lines[0]["event"], lines[0]["text"]) == (r"half \ud800", r"b\udfff")
    assert lines[1]["value"] == "<Sullen>"
    assert lines[2]["path"] == "/x"


def test_the_level_holds_for_everybody() -> None:
    lines = logged(
        """
        for write in (log, logging.getLogger("library")):
            write.debug("d"); write.info("i"); write.warning("w"); write.error("e")
        """,
        level="warning",
    )
    assert [line["event"] for line in lines] == ["w", "e", "w", "e"]


def test_warnings_come_as_lines() -> None:
    (line,) = logged('warnings.warn("old", FutureWarning)')
    assert line["level"] == "warning"
    assert "FutureWarning: old" in line["event"]


def test_a_task_whose_failure_nobody_sees_is_logged() -> None:
    (line,) = logged("""
        async def fail():
            raise OSError("lost")
        async def main():
            asyncio.create_task(fail())
            await asyncio.sleep(0.01)
            import gc; gc.collect()
        asyncio.run(main())
    """)
    assert (line["logger"], line["level"]) == ("asyncio", "error")
    assert "OSError: lost" in line["exception"]


def test_configuring_twice_changes_nothing() -> None:
    (line,) = logged('configure_logging("debug"); configure_logging("debug"); log.info("once")')
    assert line["event"] == "once"


def test_a_librarys_own_handlers_can_be_taken_away() -> None:
    (line,) = logged("""
        library = logging.getLogger("noisy")
        library.addHandler(logging.StreamHandler(sys.stdout))
        library.propagate = False
        adopt_stdlib_logger("noisy")
        library.error("once")
    """)
    assert (line["event"], line["logger"]) == ("once", "noisy")


def test_a_child_process_logs_too() -> None:
    lines = logged("""
        log.info("before")
        pid = os.fork()
        log.info("child" if pid == 0 else "parent")
        if pid == 0:
            sys.exit(0)
        os.waitpid(pid, 0)
    """)
    assert sorted(line["event"] for line in lines) == ["before", "child", "parent"]


def test_gunicorn_uvicorn_and_the_app_speak_one_format() -> None:
    """Nothing that the real server writes, from its start to its end, is anything else than such a line."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    gunicorn = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "-c", "deploy/gunicorn.conf.py"],
        cwd=ROOT,
        env=environment(SLUICE_BIND=address, WORKERS="1", SLUICE_STREAM_LOG="memory://"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert gunicorn.stdout is not None
        lines = []
        for line in gunicorn.stdout:
            lines.append(line)
            if "Application startup complete" in line:
                break
        urllib.request.urlopen(f"http://{address}/health", timeout=10).close()
        gunicorn.send_signal(signal.SIGTERM)
        rest, _ = gunicorn.communicate(timeout=30)
    finally:
        gunicorn.kill()
        gunicorn.wait()
    told = parsed("".join(lines) + rest)
    assert {"gunicorn.error", "uvicorn.error"} <= {line.get("logger") for line in told}
    (request,) = [line for line in told if line["event"] == "request"]
    assert (request["path"], request["status"]) == ("/health", 200)
