"""The application in the tests' own process, to be looked at and not to be served."""

import structlog
from fastapi import FastAPI

from app.main import create_app
from app.settings import Settings


def application() -> FastAPI:
    """One with the defaults. It sets logging up for its process: here that would hide lines from `capture_logs`, since
    loggers keep what they first found."""
    before = structlog.get_config() if structlog.is_configured() else None
    try:
        return create_app(Settings())
    finally:
        structlog.reset_defaults()
        if before is not None:
            structlog.configure(**before)
