"""Every field that a log line may have, and what it says. `deploy/LOGS.md` is written from this."""

# In every line.
ALWAYS = {
    "timestamp": "when, in UTC",
    "level": "`debug`, `info`, `warning`, `error` or `critical`",
    "event": "what happened, in words that never change: look for these",
}
# Where the line is about a request or a stream.
CONTEXT = {
    "request_id": "the request's id, as its caller knows it from `X-Request-ID`",
    "trace_id": "the trace that the request or the stream began in",
    "logger": "the library that wrote it",
    "exception": "a traceback",
}
# `request`: one for each request, when its answer ends. Repeated ones are sampled, see below.
REQUEST = {
    "method": "of the request",
    "path": "of the request, without its query",
    "status": "of the answer; 0: the caller left before it began",
    "client": "the address that it came from",
    "duration_ms": "from the request's first byte to the answer's last",
    "stream_id": "the stream that it read",
    "model": "as the caller named it",
    "outcome": "`completed`, how the connection ended, or an error's code",
    "tokens": "that this connection got",
    "input_tokens": "of the stream, where it ended here",
    "output_tokens": "the same",
    "cost": "the same, in the currency of the configured prices",
    "ttft_ms": "from the request to the first token that this connection got",
    "resumed": "true: it came for the rest of a stream",
    "unlogged": "requests of this kind since the last such line that have none",
}
# `socket`: one for each WebSocket, when it ends, or is refused. Repeated ones are sampled as `request` is.
SOCKET = {
    "path": "of the handshake, without its query",
    "client": "the address that it came from",
    "outcome": "how it ended: `client_cancelled`, `drain`, `max_age`, `slow_reader`, `server_error` or an error's code",
    "duration_ms": "from the handshake to the end",
    "streams": "that it read, one after the other",
    "tokens": "that it got of all of them",
    "unlogged": "sockets of this kind since the last such line that have none",
}
# `generation`: one for each stream, when it ends, or its worker lets go of it.
GENERATION = {
    "stream": "the stream's id",
    "surface": "by which it was asked for",
    "upstream": "who was asked last: the model and its place in the list",
    "attempts": "how many upstreams were asked",
    "first_token_ms": "from the request to the first token of the answer, with every wait; where it came from here",
}
OTHERS = {
    "all": "whether the whole log is away, or a part of it",
    "allocated": "bytes of the store on disk",
    "bucket": "the part of the log in Redis",
    "bytes": "of the store",
    "code": "of an error",
    "detail": "what an operator needs besides the message; no caller sees it",
    "events": "how many",
    "exc_info": "becomes `exception`",
    "folder": "where it is",
    "held_ms": "for how long a worker did nothing else",
    "keys": "how many",
    "last": "what the log ends with",
    "lines": "how many log lines were dropped",
    "next": "what comes behind it",
    "owner_before": "the worker that is gone",
    "policy": "Redis' `maxmemory-policy`",
    "principal": "whose",
    "reason": "why, in the words of whoever failed",
    "server": "of Redis",
    "streams": "how many",
    "takeovers": "how many workers have died of it so far",
    "tasks": "how many",
    "tier": "of a caller",
    "url": "that was asked",
    "wanted": "bytes that the store is to have",
    "way": "in which an answer goes on: `start`, `continue`, `splice` or `reset`",
}
FIELDS = ALWAYS | CONTEXT | SOCKET | REQUEST | GENERATION | OTHERS
