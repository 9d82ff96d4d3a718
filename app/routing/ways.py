"""The ways to go on with an answer whose upstream failed, the least noticeable first."""

from typing import Literal

from app.errors import ProducerLost

# What the readers of a stream make of a `Reset`: they have no word for it, they are told, or they see nothing before
# the end.
Readers = Literal["bound", "told", "waiting"]
# start: nothing was said yet. continue: behind the text so far. splice: from the beginning, without what is repeated.
# reset: from the beginning, and the reader forgets what was said.
Way = Literal["start", "continue", "splice", "reset"]
Policy = Literal["continue", "splice", "reset", "fail"]

LADDER: tuple[Way, ...] = ("continue", "splice", "reset")


def ways_from(policy: Policy) -> tuple[Way, ...]:
    """That way, and those below it; `fail` has none."""
    return () if policy == "fail" else LADDER[LADDER.index(policy) :]


def lost() -> ProducerLost:
    """How a stream ends that was taken over in vain."""
    return ProducerLost("The worker that generated this died, and nobody could go on where it stopped.")
