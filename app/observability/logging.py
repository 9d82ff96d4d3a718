"""One JSON line format for Gunicorn, Uvicorn, libraries and the app, whoever writes."""

import atexit
import logging
import sys
from datetime import UTC, datetime
from typing import Any

import msgspec
import structlog
from gunicorn import glogging
from structlog.typing import EventDict, Processor

from app.observability.log_writer import LogWriter
from app.observability.redaction import may_have_secrets, redact

# What a person looks for first comes first.
_HEAD: dict[str, Any] = {"timestamp": None, "level": None, "event": None}


def _begin(_logger: Any, method: str, fields: EventDict) -> EventDict:
    """When, how bad and what: one step of our own, where structlog's would each do less and need another at the end."""
    line = {**_HEAD, **fields}
    line["timestamp"] = datetime.now(UTC)  # msgspec writes it faster than it writes itself
    line["level"] = method
    return line


_SHARED: list[Processor] = [
    structlog.contextvars.merge_contextvars,
    _begin,
    structlog.processors.format_exc_info,
]
_encoder = msgspec.json.Encoder(enc_hook=str)
_writer: LogWriter | None = None


def _render(_logger: Any, _method: str, line: EventDict) -> bytes:
    encoded = _encoded(line)
    return _encoded(redact(line)) if may_have_secrets(line, encoded) else encoded


def _encoded(line: EventDict) -> bytes:
    try:
        return _encoder.encode(line)
    except Exception:
        # Half a surrogate pair, a value whose __str__ fails: the line is not worth the request that wrote it.
        return _encoder.encode({_plain(name): _plain(value) for name, value in line.items()})


def _plain(value: Any) -> Any:
    if type(value) is datetime:
        return value
    try:
        return str(value).encode("utf-8", "backslashreplace").decode()
    except Exception:
        return f"<{type(value).__name__}>"


class _Lines:
    """What structlog calls with a finished line."""

    def __init__(self, writer: LogWriter) -> None:
        self.msg = self.debug = self.info = self.warning = self.error = self.critical = self.exception = writer.write


class _Handler(logging.Handler):
    """Records of the standard library, in the same format, by the same way out."""

    def __init__(self, writer: LogWriter) -> None:
        super().__init__()
        self._writer = writer
        strip = structlog.stdlib.ProcessorFormatter.remove_processors_meta
        self.setFormatter(
            structlog.stdlib.ProcessorFormatter(
                foreign_pre_chain=[*_SHARED, structlog.stdlib.add_logger_name], processors=[strip, _text]
            )
        )

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._writer.write(self.format(record).encode())
        except Exception:
            self.handleError(record)


def _text(logger: Any, method: str, fields: EventDict) -> str:
    return _render(logger, method, fields).decode()


def configure_logging(level: str) -> LogWriter:
    """Send everything that this process logs to stdout; the first call decides."""
    global _writer  # noqa: PLW0603 - one way out for the process is the point
    if _writer is not None:
        return _writer
    _writer = LogWriter(sys.stdout.fileno())
    structlog.configure(
        processors=[*_SHARED, _render],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: _Lines(_writer),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers = [_Handler(_writer)]
    root.setLevel(level.upper())
    logging.captureWarnings(True)
    atexit.register(_writer.flush)
    return _writer


def adopt_stdlib_logger(name: str) -> None:
    """Take a library's own handlers away, so that its records come to the root's."""
    logger = logging.getLogger(name)
    logger.handlers = []
    logger.propagate = True


class GunicornLogger(glogging.Logger):  # type: ignore[misc]
    """Gunicorn's logger without handlers and formats of its own."""

    def setup(self, cfg: Any) -> None:
        configure_logging(cfg.loglevel)
        self.cfg = cfg
        self.loglevel = self.LOG_LEVELS.get(cfg.loglevel, logging.INFO)
        self._access_log_enabled = False
        for name in ("gunicorn.error", "gunicorn.access"):
            adopt_stdlib_logger(name)
        self.error_log.setLevel(self.loglevel)
