"""A reader who has the beginning gets the rest: nothing twice, nothing left out, whatever the tokens' bounds."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from app.events import Token
from app.routing.continuation import Differs, Echo, Splice

texts = st.text("ab \n水", max_size=12)


def pieces(text: str, cuts: list[int]) -> list[str]:
    bounds = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    return [text[start:end] for start, end in itertools.pairwise(bounds) if end > start]


def through(subject: Splice | Echo, tokens: list[str]) -> str:
    """What a reader gets of these."""
    got = ""
    active = True
    for text in tokens:
        new = subject.take(Token(text)) if active else Token(text)
        active = active and not subject.done
        got += new.text if new else ""
    rest = subject.finish() if active else None
    return got + (rest.text if rest else "")


@given(said=texts, rest=texts, cuts=st.lists(st.integers(0, 50), max_size=6))
def test_a_splice_brings_what_is_behind_the_text(said: str, rest: str, cuts: list[int]) -> None:
    assert through(Splice(said), pieces(said + rest, cuts)) == rest


@given(said=texts, other=texts, cuts=st.lists(st.integers(0, 50), max_size=6))
def test_a_splice_of_anything_else_differs_and_brings_nothing(said: str, other: str, cuts: list[int]) -> None:
    if other.startswith(said):
        return
    try:
        got = through(Splice(said), pieces(other, cuts))
    except Differs:
        return
    raise AssertionError(f"brought {got!r}")


@given(said=texts, rest=texts, cuts=st.lists(st.integers(0, 50), max_size=6))
def test_an_echo_is_dropped(said: str, rest: str, cuts: list[int]) -> None:
    assert said + through(Echo(said, said.rstrip()), pieces(said + rest, cuts)) == said + rest


@given(said=texts, rest=texts, cuts=st.lists(st.integers(0, 50), max_size=6))
def test_a_continuation_behind_the_text_without_its_last_blank_is_whole(said: str, rest: str, cuts: list[int]) -> None:
    """The upstream was not given the blank at the end, so it says it first; then comes the rest."""
    given_text = said.rstrip()
    blank = said[len(given_text) :]
    continued = blank + rest
    if continued.startswith(said):
        return  # it cannot be told from an echo
    assert said + through(Echo(said, given_text), pieces(continued, cuts)) == said + rest
