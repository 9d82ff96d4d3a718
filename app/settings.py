"""Every knob once: its type, default, range and one sentence. A bad one stops the start and names itself.

Only `main`, `worker`, the exporter and what starts them read this; everything else takes plain values.
"""

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

Seconds = Annotated[float, Field(gt=0, le=86_400)]


class SettingsError(ValueError):
    """A setting is wrong; the message is one line that names the variable."""


class Settings(BaseSettings):
    """Read from the environment, prefix `SLUICE_`; `PORT` and `WORKERS` have none."""

    model_config = SettingsConfigDict(env_prefix="SLUICE_", frozen=True, extra="ignore")

    environment: Literal["development", "production"] = Field(
        "development", description="`production` refuses to start with defaults that are only for development."
    )
    config: Path | None = Field(
        None, description="YAML file with the models and their upstreams; without it the one model is `simulator`."
    )
    port: int = Field(
        8080,
        ge=1,
        le=65_535,
        validation_alias=AliasChoices("PORT", "port"),
        description="Port on which NGINX listens, on 127.0.0.1.",
    )
    workers: int = Field(
        default_factory=lambda: len(os.sched_getaffinity(0)),
        ge=1,
        le=256,
        validation_alias=AliasChoices("WORKERS", "workers"),
        description="Gunicorn's worker processes; by default one for each core.",
    )
    bind: str = Field(
        "127.0.0.1:8000", description="Where Gunicorn listens when it runs alone (`make serve`), as host:port."
    )
    socket_dir: Path | None = Field(
        None, description="Folder for one Unix socket a worker; set, it replaces `bind`. `make run` sets it."
    )
    state_dir: Path = Field(
        Path("var"), description="Folder for sockets, NGINX's temporary files and everything else that is written."
    )
    metrics_bind: str = Field("127.0.0.1:9464", description="Where the exporter serves /metrics and /livez.")
    heartbeat_seconds: Seconds = Field(
        15, description="Longest silence on a stream before a heartbeat; also the window for a real HTTP error status."
    )
    send_seconds: Seconds = Field(30, description="A reader that accepts no byte for this long is cut off.")
    stream_seconds_max: Seconds = Field(600, description="Longest life of one generation.")
    drain_seconds: Seconds = Field(60, description="Time that open streams get to finish when a worker stops.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe level logged.")


def load_settings() -> Settings:
    """The settings of this process.

    Raises:
        SettingsError: a variable does not fit; the message names it, what it should be and what it is.
    """
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        variable = name if name.isupper() else f"SLUICE_{name.upper()}"
        raise SettingsError(f"{variable}: {first['msg']} (it is {first['input']!r})") from None
