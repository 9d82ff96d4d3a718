"""Every knob once: its type, default, range and one sentence. A bad one stops the start and names itself.

Only `main`, `worker`, the exporter and what starts them read this; everything else takes plain values.
"""

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.capacity import capacity
from app.timeouts import TimeoutsError, check, ledger

Seconds = Annotated[float, Field(gt=0, le=86_400)]
# NGINX counts with 16 bits, and refuses a configuration that says more (limit_conn).
EDGE_STREAMS_MAX = 65_535


# As browsers write them: no path, no slash at the end, no default port.
ORIGIN = re.compile(r"https?://(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(:\d{1,5})?")
OnDisconnect = Literal["cancel", "grace", "finish"]


def _wait(name: str, description: str) -> Any:
    """A setting whose default is in the ledger."""
    return Field(default_factory=lambda: ledger()[name], description=description)


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
        description="Port on which NGINX listens.",
    )
    host: str = Field("127.0.0.1", description="Address on which NGINX listens; 0.0.0.0 for all of IPv4.")
    server_names: str = Field(
        "", description="Hosts that are served, with blanks; others get 421. Without it, all are."
    )
    tls_certificate: Path | None = Field(
        None, description="Certificate with its chain; set, NGINX serves by TLS and HTTP/2, and redirects what is not."
    )
    tls_key: Path | None = Field(None, description="The certificate's key.")
    tls_port: int = Field(8443, ge=1, le=65_535, description="Port on which NGINX serves by TLS.")
    http3: bool = Field(False, description="HTTP/3 beside TLS, on the same port; for an NGINX that was built with it.")
    ops_bind: str = Field(
        "", description="host:port of NGINX's /stub_status and health besides the Unix socket `ops.sock`; loopback."
    )
    edge_streams_max: int | None = Field(
        None,
        ge=1,
        le=EDGE_STREAMS_MAX,
        description="Most requests that NGINX lets generate or stream at a time; more get 429.",
    )
    client_streams_max: int | None = Field(
        None,
        ge=1,
        le=EDGE_STREAMS_MAX,
        description="The same for one client: one key, or one address without a key. By default, all of it.",
    )
    client_requests_per_second: int = Field(
        1000, ge=1, le=100_000, description="Requests that one client may begin in a second; more get 429."
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
    metrics_dir: Path | None = Field(
        None,
        description="Folder of the files in which workers keep their figures, best in memory; "
        "by default `metrics` in the state folder. `make run` puts it below /dev/shm.",
    )
    metrics_tenants: str = Field(
        "",
        description="Principals that metrics tell apart (`key:acme`, `user:ann`), with commas; all others are `other`.",
    )
    nginx_status: Path | None = Field(
        None, description="NGINX's Unix socket for its status; by default `ops.sock` beside the workers' sockets."
    )
    stream_log: str = Field(
        "", description="memory://, lmdb:///folder, redis://…, rediss://…; by default lmdb in the state folder."
    )
    log_bytes_max: int = Field(
        512 * 1024 * 1024, ge=4 * 1024 * 1024, description="Size of the LMDB store, which is allocated at once."
    )
    streams_max: int = Field(
        default_factory=lambda: capacity().admission_streams_per_worker,
        ge=1,
        le=100_000,
        description="Streams that one worker generates at a time, and, times `WORKERS`, all of the machine's; "
        "half as many more wait for up to `SLUICE_ADMISSION_SECONDS`, the rest get 503.",
    )
    admission_seconds: Seconds = _wait(
        "admission_seconds", "How long a request waits for a place; less where the heartbeat is short."
    )
    stream_bytes_max: int = Field(8 * 1024 * 1024, ge=1024, description="Most text that one stream may hold.")
    without_log: Literal["refuse", "degrade"] = Field(
        "refuse", description="New streams while the log is away: 503, or streams that cannot be resumed."
    )
    on_disconnect: OnDisconnect = Field(
        "grace", description="What becomes of a native stream that nobody reads: `cancel`, `grace` or `finish`."
    )
    on_disconnect_openai: OnDisconnect | None = Field(
        None, description="The same of a chat completion's; unset: `cancel`, and `grace` with an `Idempotency-Key`."
    )
    on_disconnect_anthropic: OnDisconnect | None = Field(
        None, description="The same of a message's; unset: `cancel`, and `grace` with an `Idempotency-Key`."
    )
    on_disconnect_responses: OnDisconnect = Field(
        "grace", description="The same of a response's that is not in the background."
    )
    on_disconnect_max: OnDisconnect = Field("finish", description="The most lasting policy that a request may ask for.")
    heartbeat_seconds: Seconds = _wait(
        "heartbeat_seconds", "Longest silence on a stream before a heartbeat; also the window for a real error status."
    )
    send_seconds: Seconds = _wait("send_seconds", "A reader that accepts no byte for this long is cut off.")
    grace_seconds: Seconds = _wait("grace_seconds", "How long a generation waits for a reader to come back.")
    lease_seconds: Seconds = _wait("lease_seconds", "A worker that was silent for this long has lost its streams.")
    stream_seconds_max: Seconds = _wait("stream_seconds_max", "Longest life of one generation.")
    task_seconds_max: Seconds = _wait("task_seconds_max", "Longest life of one task, all its prompts together.")
    stream_ttl_seconds: Seconds = _wait(
        "stream_ttl_seconds", "How long an ended stream can still be read, and a conversation gone on with."
    )
    conversation_messages_max: int = Field(
        100, ge=2, le=10_000, description="Most messages of a conversation; the oldest are forgotten."
    )
    conversation_bytes_max: int = Field(
        128 * 1024, ge=1024, le=8 * 1024 * 1024, description="Most text of a conversation; the oldest is forgotten."
    )
    socket_bytes_max: int = Field(
        256 * 1024, ge=1024, le=16 * 1024 * 1024, description="Longest message that a WebSocket takes."
    )
    age_seconds_max: Seconds = _wait("age_seconds_max", "Longest life of a resumable connection, about.")
    drain_seconds: Seconds = _wait("drain_seconds", "Time that open streams get to finish when a worker stops.")
    drain_spread_seconds: Seconds = _wait("drain_spread_seconds", "Time over which a stopping worker's readers leave.")
    api_keys_file: Path | None = Field(
        None, description="YAML file with the hashes of API keys; read again when it changes."
    )
    api_keys_in_redis: bool = Field(
        False, description="Look API keys up in the Redis of `SLUICE_LIMITS_STORE` that the file does not have."
    )
    users_file: Path | None = Field(
        None, description="YAML file with users and their argon2 hashes, who get tokens for their passwords."
    )
    token_key_file: Path | None = Field(
        None,
        description="Secrets for the tokens that are issued here, one a line, the first signs; "
        "by default one is made in the state folder. Machines that serve together need the same.",
    )
    token_seconds: Seconds = Field(
        900, description="How long a token that is issued here is good for, and a ticket for a conversation."
    )
    limits_store: str = Field(
        "",
        description="Where callers' limits are counted: memory://, lmdb:///folder, redis://…; "
        "by default beside the stream log.",
    )
    trusted_proxies: str = Field(
        "",
        description="Networks of proxies whose word on a client's address NGINX and the app believe; with commas.",
    )
    body_bytes_max: int = Field(
        10 * 1024 * 1024,
        ge=1024,
        le=10 * 1024 * 1024,
        description="Largest body of a request; NGINX takes no more than 10 MiB either.",
    )
    cors_origins: str = Field(
        "", description="Other sites whose scripts may use the API, as browsers name them, with commas; `*` for all."
    )
    cors_credentials: bool = Field(
        False, description="Let those sites' scripts send cookies, which only a proxy in front may want; not with `*`."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe level logged.")

    @property
    def stream_log_url(self) -> str:
        """Where the stream log is, also where nothing was said."""
        return self.stream_log or f"lmdb://{self.state_dir.absolute() / 'streams'}"

    @property
    def limits_store_url(self) -> str:
        """Where limits are counted, also where nothing was said."""
        if self.limits_store:
            return self.limits_store
        if self.stream_log_url.startswith("lmdb:"):
            return f"lmdb://{self.state_dir.absolute() / 'limits'}"
        return self.stream_log_url

    @property
    def metrics_path(self) -> Path:
        """The folder of the workers' figures, also where nothing was said."""
        return self.metrics_dir or self.state_dir.absolute() / "metrics"

    @property
    def nginx_status_path(self) -> Path:
        """The socket of NGINX's status, also where nothing was said."""
        return self.nginx_status or (self.socket_dir or self.state_dir.absolute() / "run") / "ops.sock"

    @property
    def token_key_path(self) -> Path:
        """The file with the secrets of our own tokens, also where nothing was said."""
        return self.token_key_file or self.state_dir.absolute() / "token.keys"

    @property
    def cors_allowed(self) -> tuple[str, ...]:
        """The origins of `cors_origins`."""
        return _listed(self.cors_origins)

    @property
    def hosts(self) -> tuple[str, ...]:
        """The names of `server_names`."""
        return tuple(self.server_names.lower().split())

    def derived_waits(self) -> dict[str, float]:
        """Waits that follow from settings, so that one setting does not need another."""
        waits = ledger()
        longer_drain = max(0.0, self.drain_seconds - waits["drain_seconds"])
        return {
            "kill_seconds": waits["kill_seconds"] + longer_drain,
            "gunicorn_stop_seconds": waits["gunicorn_stop_seconds"] + longer_drain,
            "pod_grace_seconds": waits["pod_grace_seconds"] + longer_drain,
            "admission_seconds": min(self.admission_seconds, self.heartbeat_seconds * 0.4),
            "beat_seconds": self.lease_seconds * 0.3,
            "drain_spread_seconds": min(self.drain_spread_seconds, self.drain_seconds / 2),
            "nginx_read_seconds": max(waits["nginx_read_seconds"], self.stream_seconds_max + 60),
            "nginx_shutdown_seconds": max(waits["nginx_shutdown_seconds"], self.stream_seconds_max + 60),
            "nginx_send_seconds": max(waits["nginx_send_seconds"], self.send_seconds * 2),
            "trace_decision_seconds": max(waits["trace_decision_seconds"], self.stream_seconds_max + 30),
        }


def load_settings() -> Settings:
    """The settings of this process.

    Raises:
        SettingsError: a variable does not fit; the message names it, what it should be and what it is. Or two do not
            fit each other.
    """
    try:
        settings = Settings()
        waits = ledger().keys() & Settings.model_fields.keys()
        check({name: getattr(settings, name) for name in waits} | settings.derived_waits())
    except TimeoutsError as error:
        raise SettingsError(_variables(str(error))) from None
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        variable = name if name.isupper() else f"SLUICE_{name.upper()}"
        raise SettingsError(f"{variable}: {first['msg']} (it is {first['input']!r})") from None
    if settings.environment == "production" and settings.workers > 1 and settings.stream_log_url.startswith("memory:"):
        raise SettingsError(
            "SLUICE_STREAM_LOG: memory:// cannot be shared by several WORKERS; production needs lmdb or redis"
        )
    _check_edges(settings)
    return settings


def _check_edges(settings: Settings) -> None:
    """
    Raises:
        SettingsError: other sites could do what they should not.
    """
    for origin in settings.cors_allowed:
        if origin != "*" and not ORIGIN.fullmatch(origin):
            raise SettingsError(f"SLUICE_CORS_ORIGINS: {origin!r} is no origin such as https://app.example:8443")
    if "*" in settings.cors_allowed:
        if settings.cors_credentials:
            raise SettingsError("SLUICE_CORS_ORIGINS: * with SLUICE_CORS_CREDENTIALS would let every site act for you")
        if settings.environment == "production":
            raise SettingsError("SLUICE_CORS_ORIGINS: * is only for development; production needs the sites' names")


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _variables(text: str) -> str:
    """Settings by the name of their variable, which is what a person can change."""
    return re.sub(r"[a-z_]+_seconds(_max)?", lambda found: _variable(found[0]), text)


def _variable(name: str) -> str:
    return f"SLUICE_{name.upper()}" if name in Settings.model_fields else name
