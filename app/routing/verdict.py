"""What a failure of an upstream means for the request that met it: who else may try, and against whom it counts."""

from typing import NamedTuple

from app.errors import UpstreamError, UpstreamRejected, UpstreamStalled, UpstreamTimeout, UpstreamUnavailable

# Codes of refusals that are about the request itself: whoever is asked next would be asked to do what was refused.
REFUSALS = frozenset({"content_filter", "context_length_exceeded"})
# The operator's key or account, not the caller's: another upstream has another one, this one will not change its mind.
OPERATORS_STATUSES = frozenset({401, 402})
# Too much or too early for this upstream: no sign that it is ill.
BUSY_STATUSES = frozenset({409, 425, 429})


class Verdict(NamedTuple):
    """Whether another upstream may be asked, whether this one may be asked again, whether its breaker counts it, and
    whether it kept silent, which is what it will most likely do again."""

    elsewhere: bool = True
    again: bool = True
    counts: bool = True
    silent: bool = False


PASSED_ON = Verdict(elsewhere=False, again=False, counts=False)


def judge(error: UpstreamError) -> Verdict:
    """The verdict on one failure."""
    if isinstance(error, UpstreamRejected):
        return _judge_status(error)
    if isinstance(error, UpstreamUnavailable):
        return Verdict(again=False, counts=False)
    return Verdict(silent=isinstance(error, UpstreamTimeout | UpstreamStalled))


def _judge_status(error: UpstreamRejected) -> Verdict:
    if error.code in REFUSALS:
        return PASSED_ON
    if error.status in OPERATORS_STATUSES:
        return Verdict(again=False)
    if error.status in BUSY_STATUSES:
        return Verdict(counts=False)
    return Verdict() if error.status == 408 or error.status >= 500 else PASSED_ON
