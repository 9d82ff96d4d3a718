"""Everything that can go wrong for a caller, as one tree.

    SluiceError
    ├── InvalidRequest            400 invalid_request
    │   ├── ModelNotFound         404 model_not_found
    │   ├── InvalidCursor         400 invalid_cursor
    │   └── IdempotencyMismatch   422 idempotency_mismatch
    ├── Misdirected               421 misdirected
    ├── Unauthorized              401 unauthorized
    ├── Forbidden                 403 forbidden
    ├── IdentityUnavailable       503 identity_unavailable   retryable
    ├── Busy                      409 busy                   retryable
    ├── RateLimited               429 rate_limited           retryable
    ├── NotFound                  404 not_found
    ├── CursorGone                410 cursor_gone
    ├── ProducerLost              503 producer_lost          retryable
    ├── LogUnavailable            503 log_unavailable        retryable
    │   └── LogFull               503 log_full               retryable
    ├── LimitExceeded             413 limit_exceeded
    ├── Overloaded                503 overloaded             retryable
    ├── Draining                  503 draining               retryable
    ├── Internal                  500 internal_error
    └── UpstreamError             502 upstream_error         retryable
        ├── UpstreamRejected      as the upstream answered   upstream_rejected …
        ├── UpstreamUnreachable   502 upstream_unreachable   retryable
        ├── UpstreamUnavailable   503 upstream_unavailable   retryable
        ├── UpstreamTimeout       504 upstream_timeout       retryable
        ├── UpstreamStalled       504 upstream_stalled       retryable
        ├── UpstreamTruncated     502 upstream_truncated     retryable
        └── UpstreamInvalid       502 upstream_invalid       retryable

Each has an HTTP status, a stable `code` and `retryable`. Before the first byte it is an HTTP answer; after it, the same
error is the stream's terminal `error` event. `message` is for the caller: it names no host, key or internal path.
What an operator needs besides goes into `detail`, which is only ever logged.
"""

from typing import ClassVar

from app.events import Failed


class SluiceError(Exception):
    """Base of the tree; never raised itself."""

    status: int = 500
    code: str = "internal_error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, detail: str = "", retry_after_seconds: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail
        self.retry_after_seconds = retry_after_seconds

    def as_event(self) -> Failed:
        """The terminal event that says the same."""
        seconds = self.retry_after_seconds
        if seconds is None and self.status == 503:
            seconds = 1  # whoever is not told when to come back comes back at once
        return Failed(self.code, self.message, self.status, self.retryable, seconds)


class InvalidRequest(SluiceError):
    """The request cannot be carried out as it stands."""

    status = 400
    code = "invalid_request"


class ModelNotFound(InvalidRequest):
    """No model of that name is configured."""

    status = 404
    code = "model_not_found"


class InvalidCursor(InvalidRequest):
    """A Last-Event-ID that no stream of ours ever had."""

    code = "invalid_cursor"


class IdempotencyMismatch(InvalidRequest):
    """The Idempotency-Key was used before, with another body."""

    status = 422
    code = "idempotency_mismatch"


class Misdirected(SluiceError):
    """The request is for a host that is not served here."""

    status = 421
    code = "misdirected"


class Unauthorized(SluiceError):
    """No credentials, or none that are valid."""

    status = 401
    code = "unauthorized"


class Forbidden(SluiceError):
    """Credentials that are valid, for something else."""

    status = 403
    code = "forbidden"


class IdentityUnavailable(SluiceError):
    """Who asks cannot be found out just now."""

    status = 503
    code = "identity_unavailable"
    retryable = True


class Busy(SluiceError):
    """The conversation, or the socket, is still being answered."""

    status = 409
    code = "busy"
    retryable = True


class RateLimited(SluiceError):
    """A limit on what a caller may use in a while was reached."""

    status = 429
    code = "rate_limited"
    retryable = True


class CursorGone(SluiceError):
    """The log no longer holds what follows the cursor."""

    status = 410
    code = "cursor_gone"


class ProducerLost(SluiceError):
    """The worker that generated died, and nobody can go on where it stopped."""

    status = 503
    code = "producer_lost"
    retryable = True


class LogUnavailable(SluiceError):
    """The stream log does not answer."""

    status = 503
    code = "log_unavailable"
    retryable = True


class LogFull(LogUnavailable):
    """The stream log has no room."""

    code = "log_full"


class NotFound(SluiceError):
    """Nothing there, or nothing that this caller may see."""

    status = 404
    code = "not_found"


class LimitExceeded(SluiceError):
    """A bound on what one request may take was reached."""

    status = 413
    code = "limit_exceeded"


class Overloaded(SluiceError):
    """There is no place for another stream just now."""

    status = 503
    code = "overloaded"
    retryable = True


class Draining(SluiceError):
    """This instance is shutting down and starts nothing new."""

    status = 503
    code = "draining"
    retryable = True


class Internal(SluiceError):
    """A defect of ours; the log has the traceback under the request id."""


class UpstreamError(SluiceError):
    """The upstream failed, by its own account or in its transport."""

    status = 502
    code = "upstream_error"
    retryable = True


class UpstreamRejected(UpstreamError):
    """The upstream answered with an error status, which the caller gets as it is."""

    code = "upstream_rejected"

    def __init__(self, status: int, message: str, *, detail: str = "", retry_after_seconds: int | None = None) -> None:
        super().__init__(message, detail=detail, retry_after_seconds=retry_after_seconds)
        self.status = status
        self.code = {401: "upstream_unauthorized", 403: "upstream_forbidden", 429: "upstream_rate_limited"}.get(
            status, "upstream_error" if status >= 500 else "upstream_rejected"
        )

    def as_event(self) -> Failed:
        retryable = self.status in {408, 409, 425, 429} or self.status >= 500
        return Failed(self.code, self.message, self.status, retryable, self.retry_after_seconds)


class UpstreamUnreachable(UpstreamError):
    """No connection within the connect deadline."""

    code = "upstream_unreachable"


class UpstreamUnavailable(UpstreamError):
    """No upstream of the model was asked: all are at their capacity, or known to fail."""

    status = 503
    code = "upstream_unavailable"


class UpstreamTimeout(UpstreamError):
    """No token within the first-token deadline, or no end within the total one."""

    status = 504
    code = "upstream_timeout"


class UpstreamStalled(UpstreamError):
    """Tokens stopped coming for longer than the idle deadline."""

    status = 504
    code = "upstream_stalled"


class UpstreamTruncated(UpstreamError):
    """The connection ended before the upstream said that the answer was complete."""

    code = "upstream_truncated"


class UpstreamInvalid(UpstreamError):
    """The upstream sent something that is not its protocol."""

    code = "upstream_invalid"
