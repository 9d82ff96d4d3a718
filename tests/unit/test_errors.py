"""The tree that the module draws is the tree that there is."""

import inspect
import re
from collections.abc import Iterator

import pytest

import app.errors
from app.errors import SluiceError, UpstreamRejected

LINE = re.compile(
    r"^ {4}(?P<branch>[│ ├└─]*)(?P<name>\w+)(?: +(?P<status>\d{3}) (?P<code>\w+)(?P<retryable> +retryable)?)?"
)


def drawn() -> Iterator[tuple[str, str | None, re.Match[str]]]:
    """Each error with its parent, as the module's docstring has them."""
    path: list[str] = []
    for line in (app.errors.__doc__ or "").splitlines():
        if (found := LINE.match(line)) and (found["branch"] or found["name"] == "SluiceError"):
            depth = len(found["branch"]) // 4
            path[depth:] = [found["name"]]
            yield found["name"], path[depth - 1] if depth else None, found


def classes() -> dict[str, type[SluiceError]]:
    found = inspect.getmembers(app.errors, inspect.isclass)
    return {name: each for name, each in found if issubclass(each, SluiceError)}


CONCRETE = sorted(classes().keys() - {"SluiceError", "UpstreamRejected"})


def test_the_drawing_has_every_error_under_its_parent() -> None:
    actual = {name: each.__bases__[0].__name__ for name, each in classes().items()}
    assert {name: parent or "Exception" for name, parent, _ in drawn()} == actual


def test_the_drawing_has_every_status_code_and_word_of_retrying() -> None:
    told = {name: (line["status"], line["code"], bool(line["retryable"])) for name, _, line in drawn()}
    for name in CONCRETE:
        each = classes()[name]
        assert told[name] == (str(each.status), each.code, each.retryable), name


@pytest.mark.parametrize("name", CONCRETE)
def test_an_error_says_the_same_as_an_answer_and_as_an_event(name: str) -> None:
    error = classes()[name]("No.", detail="10.1.2.3", retry_after_seconds=3)
    event = error.as_event()
    assert (event.code, event.status, event.retryable) == (error.code, error.status, error.retryable)
    assert (event.message, event.retry_after_seconds) == ("No.", 3)
    assert "10.1.2.3" not in repr(event)


def test_codes_are_words_that_no_two_errors_share() -> None:
    codes = [classes()[name].code for name in CONCRETE]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", code) for code in codes)


@pytest.mark.parametrize(
    ("status", "code", "retryable"),
    [
        (400, "upstream_rejected", False),
        (401, "upstream_unauthorized", False),
        (403, "upstream_forbidden", False),
        (404, "upstream_rejected", False),
        (408, "upstream_rejected", True),
        (409, "upstream_rejected", True),
        (429, "upstream_rate_limited", True),
        (500, "upstream_error", True),
        (503, "upstream_error", True),
        (529, "upstream_error", True),
    ],
)
def test_what_an_upstream_rejects_keeps_its_status(status: int, code: str, retryable: bool) -> None:
    event = UpstreamRejected(status, "No.", retry_after_seconds=9).as_event()
    assert (event.status, event.code, event.retryable, event.retry_after_seconds) == (status, code, retryable, 9)


def test_a_refusal_for_now_says_when_to_come_back() -> None:
    """Who is not told comes back at once, with everybody else."""
    assert app.errors.LogUnavailable("It does not answer.").as_event().retry_after_seconds == 1
    assert app.errors.LogFull("It is full.", retry_after_seconds=5).as_event().retry_after_seconds == 5
    assert app.errors.NotFound("There is none.").as_event().retry_after_seconds is None
