"""What an event makes of its stream's state; the same in every backend."""

from app.events import Done, Event, Failed, Token
from app.streams.log import State

CANCELLED = "cancelled"


def state_after(last: Event) -> State:
    """The state of a stream whose last event is `last`."""
    if type(last) is Token:
        return "running"
    if isinstance(last, Failed):
        return "cancelled" if last.code == CANCELLED else "error"
    if isinstance(last, Done):
        return "cancelled" if last.finish_reason == CANCELLED else "done"
    return "running"
