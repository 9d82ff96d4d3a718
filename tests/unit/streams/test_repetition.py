"""What of an append is new."""

import pytest

from app.events import Event
from app.streams.log import Append, Cursor
from app.streams.repetition import unknown_rest
from tests.contract.streams import numbered, words

APPEND = Append("s", 7, Cursor(2, 5), words(5, 4))


@pytest.mark.parametrize("known", range(1, 5))
def test_the_rest_begins_behind_what_is_known(known: int) -> None:
    rest = unknown_rest(APPEND, numbered(5, words(5, known), epoch=2))
    assert rest == Append("s", 7, Cursor(2, 5 + known), words(5 + known, 4 - known))


@pytest.mark.parametrize(
    "known",
    [
        [],
        numbered(5, words(5, 4), epoch=1),
        numbered(6, words(6, 3), epoch=2),
        numbered(5, [*words(5, 3), *words(99, 1)], epoch=2),
        [*numbered(5, words(5, 2), epoch=2), *numbered(0, words(7, 2), epoch=3)],
    ],
)
def test_anything_else_in_its_place_refuses_the_append(known: list[tuple[Cursor, Event]]) -> None:
    assert unknown_rest(APPEND, known) is None
