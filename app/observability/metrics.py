"""Every metric, declared once: name, kind, help, labels, and buckets with their reasons.

Nothing is counted here. `deploy/METRICS.md` is written from this file; rules, panels and documents name
nothing else. Label values come from the configuration or from the lists below: what a client sends is none.
"""

from typing import Literal, NamedTuple, get_args

Kind = Literal["counter", "gauge", "histogram"]
# How a gauge's figures of several workers become one; dead ones never count.
Merge = Literal["livesum", "livemax", "livemin"]
Place = Literal["workers", "exporter"]
# By what a generation is asked for; a WebSocket's is `native`.
Surface = Literal["native", "openai", "anthropic", "responses", "responses.background", "tasks"]
SURFACES: tuple[Surface, ...] = get_args(Surface)


class Buckets(NamedTuple):
    """Upper bounds, without the infinite one, and why these."""

    bounds: tuple[float, ...]
    reason: str


class Declared(NamedTuple):
    """One metric. `place`: who has the figures."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: Buckets = Buckets((), "")
    merge: Merge = "livesum"
    place: Place = "workers"


FIRST_TOKEN = Buckets(
    (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.2, 0.25, 0.5, 0.75, 1, 2, 2.5, 3, 5, 7.5, 10, 15, 30, 60, 120),
    "OpenTelemetry's advice for gen_ai.server.time_to_first_token, which ends at 10 s: queues and hedged attempts take "
    "longer, so up to 120 s; 0.2, 2 and 3 s are where objectives are commonly set",
)
GAP = Buckets(
    (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 10, 15, 30, 60),
    "OpenTelemetry's advice for gen_ai.server.time_per_output_token; above it the heartbeat (15 s), twice that, and "
    "the longest silence that an upstream is commonly allowed",
)
DURATION = Buckets(
    (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84, 327.68, 655.36),
    "OpenTelemetry's advice for gen_ai.client.operation.duration (doubling up to 81.92 s), and on to the longest "
    "stream (600 s)",
)
REQUEST = Buckets(
    (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10),
    "OpenTelemetry's advice for http.server.request.duration; no stream is in here",
)
WAIT = Buckets(
    (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 2.5, 5, 7.5, 10, 15),
    "from no wait at all to the longest queue: half a heartbeat (7.5 s), or what an operator sets up to the heartbeat",
)
COMMIT = Buckets(
    (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1),
    "LMDB commits in 0.1 to 0.5 ms, Redis in one round trip; after 1 s the log counts as unavailable",
)
BATCH = Buckets(
    (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024),
    "doubling: at rest a commit holds one event, under load as many as there are streams",
)
LAG = Buckets(
    (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
    "a millisecond is a timer's resolution, 25 ms half a token's pace, and beyond 5 s the watchdog is near",
)

# How a generation ended, by what its end says. In objectives completed and spliced are good; those of the
# caller (client_cancelled, rejected) and `moved` do not count; everything else is bad.
OUTCOMES = {
    "completed": "its upstream said all of it",
    "spliced": "complete, after an upstream failed in the middle and the answer was rescued",
    "client_cancelled": "nobody reads it any more, or somebody asked for its end",
    "rejected": "refused for what was asked: content filter, too long a context, an invalid request",
    "upstream_error": "an upstream failed, could not be reached or spoke nonsense",
    "upstream_truncated": "the connection to an upstream ended before the answer did",
    "upstream_timeout": "no first token, or no end, in time",
    "stalled": "the upstream stopped in the middle of its answer",
    "limit_cut": "a bound on what one stream may take was reached",
    "shed": "no place, in the queue or at any upstream",
    "log_unavailable": "the stream log did not answer, or had no room",
    "producer_lost": "its worker died, and nobody could go on",
    "drained": "still running at the deadline of a drain that nobody takes it over from",
    "moved": "another worker goes on with it and will count it",
    "internal_error": "a defect",
}

# Where a label's values come from. Whatever is not in there becomes `other`.
LABELS = {
    "model": "the models of `SLUICE_CONFIG`",
    "upstream": "`<model>/<its place in the model's list, from 0>`",
    "surface": ", ".join(f"`{surface}`" for surface in SURFACES) + "; `native` by WebSocket too",
    "outcome": "of streams: the table below; of readers: `completed`, `client_cancelled`, `slow_reader`, `drain`, "
    "`max_age`, `reauthenticate`, `past_end`, `server_error`, or an error's code; of attempts: `ok`, `given_up` or an "
    "error's code",
    "reason": "codes of errors, as in [PROTOCOL.md](../app/api/PROTOCOL.md)",
    "cause": "`queue_full`, `timeout`, `lag`",
    "direction": "`input`, `output`",
    "tenant": "the principals that `SLUICE_METRICS_TENANTS` names",
    "draining": "`true`, `false`",
    "route": "templates of routes, as `/api/v1/streams/{stream_id}`",
    "method": "`GET`, `POST`, `DELETE`, `OPTIONS`, `HEAD`",
    "code": "HTTP status; `499`: the caller left before the answer",
    "result": "of resumes: `ok`, `past_end`, `gone`; of takeovers: `continued`, `ended`",
    "way": "`continue`, `splice`, `reset`",
    "worker": "a number from 1 on, which a successor takes over from a worker that is gone",
    "slot": "from 1 to `WORKERS`",
    "state": "`reading`, `writing`, `waiting`",
    "version": "Sluice's",
    "python": "Python's version",
}


def _counter(name: str, text: str, *labels: str, place: Place = "workers") -> Declared:
    return Declared(name, "counter", text, labels, place=place)


def _gauge(name: str, text: str, *labels: str, merge: Merge = "livesum", place: Place = "workers") -> Declared:
    return Declared(name, "gauge", text, labels, merge=merge, place=place)


def _histogram(name: str, text: str, buckets: Buckets, *labels: str) -> Declared:
    return Declared(name, "histogram", text, labels, buckets)


# Requests

REQUESTS = _counter("sluice_requests_total", "HTTP requests that were answered.", "route", "method", "code")
REQUEST_SECONDS = _histogram(
    "sluice_request_duration_seconds", "Duration of requests that read no stream.", REQUEST, "route"
)
REFUSED = _counter(
    "sluice_refused_total",
    "Requests that were refused with an error before they had a stream, messages on WebSockets included.",
    "reason",
)

# Streams

STREAMS = _counter("sluice_streams_total", "Generations that ended, by how.", "model", "surface", "outcome")
ACTIVE_STREAMS = _gauge("sluice_active_streams", "Generations that a worker owns; whether it drains.", "draining")
ACTIVE_READERS = _gauge(
    "sluice_active_readers", "Connections that read a stream; whether their worker drains.", "draining"
)
FIRST_TOKEN_SECONDS = _histogram(
    "sluice_time_to_first_token_seconds",
    "From the request to the first token of the answer, with every wait; thoughts and heartbeats are no tokens.",
    FIRST_TOKEN,
    "model",
)
NO_FIRST_TOKEN = _counter("sluice_no_first_token_total", "Generations that ended without a token.", "model", "outcome")
TOKEN_GAP_SECONDS = _histogram(
    "sluice_inter_token_latency_seconds", "Time between two tokens of a stream, as they reach the log.", GAP, "model"
)
TOKEN_SECONDS = _histogram(
    "sluice_time_per_output_token_seconds",
    "Mean time between a stream's tokens, once for each worker that had it.",
    GAP,
    "model",
)
GAP_SECONDS_MAX = _histogram(
    "sluice_stream_max_gap_seconds",
    "Longest silence inside a stream, once for each worker that had it; that before a takeover is the later one's.",
    GAP,
    "model",
)
STREAM_SECONDS = _histogram(
    "sluice_stream_duration_seconds", "From the request to a stream's end, on whichever worker.", DURATION, "model"
)
EVENTS = _counter("sluice_events_total", "Events of streams that went into the log, counted as they do.")
TOKENS = _counter("sluice_tokens_total", "Tokens, as upstreams count them, at a stream's end.", "model", "direction")
COST = _counter("sluice_cost_total", "Cost by the configured prices, in their currency.", "model")
TENANT_STREAMS = _counter("sluice_tenant_streams_total", "Generations that ended, by tenant.", "tenant", "outcome")
TENANT_TOKENS = _counter("sluice_tenant_tokens_total", "Tokens, by tenant.", "tenant", "direction")

# Connections

READERS = _counter(
    "sluice_readers_total",
    "Connections that read a stream, by how that ended; a WebSocket counts for each stream that it reads.",
    "outcome",
)
HEARTBEATS = _counter("sluice_heartbeats_total", "Heartbeats sent into silent streams.")
RESUMES = _counter("sluice_resumes_total", "Readers that came back for the rest of a stream.", "result")
TAKEOVERS = _counter("sluice_takeovers_total", "Streams taken over from a worker that is gone.", "result")
RESETS = _counter("sluice_resets_total", "Answers that began again, voiding what was said.", "reason")
RELEASED = _counter("sluice_drain_released_streams_total", "Streams still running at a drain's deadline.")

# Admission and limits

STREAMS_MAX = _gauge("sluice_streams_max", "Streams that are admitted at a time.")
ADMISSION_QUEUE = _gauge("sluice_admission_queue_depth", "Requests that wait to be admitted.")
ADMISSION_WAIT = _histogram("sluice_admission_wait_seconds", "How long requests waited to be admitted.", WAIT)
ADMISSION_SHED = _counter("sluice_admission_shed_total", "Requests that found no place, by why.", "cause")
LIMITER_FALLBACKS = _counter(
    "sluice_limiter_fallbacks_total", "Requests whose limits were counted by one worker alone, for want of the store."
)

# Upstreams

ATTEMPTS = _counter(
    "sluice_upstream_attempts_total", "Requests to upstreams that ended, by how.", "upstream", "outcome"
)
UPSTREAM_FIRST_TOKEN = _histogram(
    "sluice_upstream_first_token_seconds", "From asking an upstream to its first token.", FIRST_TOKEN, "upstream"
)
UPSTREAM_ACTIVE = _gauge("sluice_upstream_active_requests", "Requests that run on an upstream.", "upstream")
UPSTREAM_QUEUE = _gauge("sluice_upstream_queue_depth", "Requests that wait for a place at an upstream.", "upstream")
UPSTREAM_WAIT = _histogram("sluice_upstream_queue_wait_seconds", "How long requests waited for it.", WAIT, "upstream")
BREAKER = _gauge(
    "sluice_breaker_state", "0 closed, 1 half open, 2 open; the worst of all workers.", "upstream", merge="livemax"
)
RETRIES = _counter("sluice_retries_total", "Attempts on the upstream that had just failed.", "upstream", "reason")
FAILOVERS = _counter("sluice_failovers_total", "Attempts on another upstream after a failure.", "model", "reason")
RESCUES = _counter("sluice_rescues_total", "Ways in which answers went on after a failure.", "way")

# The stream log

COMMIT_SECONDS = _histogram("sluice_log_commit_seconds", "Duration of one commit to the stream log.", COMMIT)
COMMIT_EVENTS = _histogram("sluice_log_commit_events", "Events in one commit.", BATCH)
LOG_BYTES = _gauge("sluice_log_used_bytes", "Bytes of the stream log in use.", merge="livemax")
LOG_BYTES_MAX = _gauge("sluice_log_max_bytes", "Bytes that the stream log may use; 0: unknown.", merge="livemax")
LOG_AVAILABLE = _gauge("sluice_log_available", "1 while the stream log answers every worker.", merge="livemin")
LOG_MISSED = _counter("sluice_log_unlogged_events_total", "Events delivered without an id, since the log was away.")

# Workers

LOOP_LAG = _histogram("sluice_event_loop_lag_seconds", "How much later than asked a timer of a worker's loop ran.", LAG)
LOG_LINES_DROPPED = _counter("sluice_log_lines_dropped_total", "Log lines that were dropped, since nobody took them.")
WORKER_STARTS = _counter("sluice_worker_starts_total", "Workers that began to serve.")
DRAINING_WORKERS = _gauge("sluice_draining_workers", "Workers that drain.")
CPU_SECONDS = _counter("sluice_worker_cpu_seconds_total", "CPU time of the workers.")
MEMORY_BYTES = _gauge("sluice_worker_resident_bytes", "Memory of a worker, shared pages included.", "worker")
OPEN_FILES = _gauge("sluice_worker_open_files", "Open file descriptors of a worker.", "worker")
OPEN_FILES_MAX = _gauge("sluice_worker_max_files", "File descriptors that each worker may open.", merge="livemin")

# The exporter's own

BUILD_INFO = _gauge("sluice_build_info", "What runs, as labels; always 1.", "version", "python", place="exporter")
WORKERS = _gauge("sluice_workers", "Workers that are configured.", place="exporter")
WORKERS_ALIVE = _gauge("sluice_workers_alive", "Workers that give figures, draining ones included.", place="exporter")
BEAT_AGE = _gauge(
    "sluice_worker_heartbeat_age_seconds", "Since the last sign of life from a worker's loop.", "slot", place="exporter"
)
METRIC_FILES = _gauge("sluice_metric_files", "Files in which the workers keep their figures.", place="exporter")
METRIC_FILES_SKIPPED = _counter(
    "sluice_metric_files_skipped_total", "Damaged ones that were left out, at each scrape.", place="exporter"
)
METRIC_FILES_FULL = _counter(
    "sluice_metric_files_full_total", "Workers some of whose figures found no room, at each scrape.", place="exporter"
)
NGINX_UP = _gauge("sluice_nginx_up", "1 while NGINX tells its figures.", place="exporter")
NGINX_CONNECTIONS = _gauge(
    "sluice_nginx_connections", "Open connections to NGINX, by what they do.", "state", place="exporter"
)
NGINX_ACCEPTED = _counter("sluice_nginx_accepted_connections_total", "Connections accepted.", place="exporter")
NGINX_HANDLED = _counter(
    "sluice_nginx_handled_connections_total", "Connections handled; fewer than accepted: dropped.", place="exporter"
)
NGINX_REQUESTS = _counter("sluice_nginx_requests_total", "Requests to NGINX.", place="exporter")
CERTIFICATE_EXPIRY = _gauge(
    "sluice_certificate_expiry_timestamp_seconds", "When NGINX's certificate is over, as Unix time.", place="exporter"
)

ALL: dict[str, Declared] = {each.name: each for each in list(globals().values()) if isinstance(each, Declared)}
