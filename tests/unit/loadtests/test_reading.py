"""What a client makes of the ids, resets and ends of one stream, over all its connections."""

import pytest

from loadtests.observation import Observation
from loadtests.reading import Reading
from loadtests.surfaces import Meaning, Native


def reading() -> Reading:
    """Of a stream on its first connection."""
    begun = Reading(Native(), Observation("short chat", 0.0, 0.0))
    begun.connect()
    return begun


def heard(client: Reading, *frames: str) -> str | None:
    """How the connection ends, if one of the frames ends it."""
    for frame in frames:
        for line in f"{frame}\n\n".encode().splitlines(keepends=True):
            if (outcome := client.feed(line, 1.0)) is not None:
                return outcome
    return None


def token(place: str) -> str:
    return f"id: s.{place}\nevent: token\ndata: {{}}"


def error(retryable: bool, place: str = "") -> str:
    head = f"id: s.{place}\n" if place else ""
    return f'{head}event: error\ndata: {{"code": "x", "retryable": {str(retryable).lower()}}}'


@pytest.mark.parametrize(
    "following",
    ["0.4", "0.2", "0.1", "1.3", "0.x", "nothing"],
    ids=["a hole", "the same again", "an earlier one", "another epoch without a reset", "no number", "no id"],
)
def test_a_token_that_is_not_the_next_is_a_defect(following: str) -> None:
    assert heard(reading(), token("0.1"), token("0.2"), token(following)) == "repeated"


def test_a_resume_that_begins_with_what_was_seen_is_a_defect() -> None:
    client = reading()
    heard(client, token("0.1"), token("0.2"))
    client.connect()

    assert heard(client, token("0.2")) == "repeated"


def test_a_resume_that_begins_behind_the_last_id_is_none() -> None:
    client = reading()
    heard(client, token("0.1"), token("0.2"))
    client.connect()

    assert heard(client, token("0.3")) is None
    assert (client.last_id, client.observation.tokens) == ("s.0.3", 3)


def test_a_reset_begins_again_behind_its_own_id() -> None:
    client = reading()

    assert heard(client, token("0.1"), token("0.2"), 'id: s.3.0\nevent: reset\ndata: {"reason": "x"}') is None
    assert heard(client, token("3.1")) is None
    assert (client.observation.tokens, client.observation.resets) == (1, 1)


@pytest.mark.parametrize("place", ["0.0", "0.3"])
def test_a_reset_of_the_same_epoch_is_a_defect(place: str) -> None:
    assert heard(reading(), token("0.1"), token("0.2"), f"id: s.{place}\nevent: reset\ndata: {{}}") == "repeated"


def test_what_had_no_id_is_told_again_and_counts_once() -> None:
    client = reading()
    unnamed = "event: token\ndata: {}"
    heard(client, token("0.1"), 'event: notice\ndata: {"resumable": false}', unnamed, unnamed)
    assert client.observation.tokens == 3
    client.connect()

    assert heard(client, token("0.2"), token("0.3"), token("0.4")) is None
    assert client.observation.tokens == 4


def test_ids_that_come_back_go_on_behind_what_had_none() -> None:
    client = reading()

    assert heard(client, token("0.1"), "event: token\ndata: {}", token("0.3"), token("0.4")) is None
    assert heard(client, token("0.6")) == "repeated"


@pytest.mark.parametrize(
    ("frame", "outcome"),
    [
        (error(True), "reconnect"),
        (error(False), "failed"),
        (error(True, "0.2"), "failed"),
        (error(False, "0.2"), "failed"),
    ],
)
def test_only_a_passing_error_without_an_id_leaves_the_stream_alive(frame: str, outcome: str) -> None:
    assert heard(reading(), token("0.1"), frame) == outcome


def test_a_client_is_told_when_to_come_back() -> None:
    client = reading()

    assert heard(client, 'retry: 1500\nevent: reconnect\ndata: {"reason": "drain", "retry_ms": 1500}') == "reconnect"
    assert client.retry_seconds == 1.5
    assert not client.heard, "it has got nothing"
    client.connect()
    assert client.retry_seconds is None


def test_heartbeats_count_and_are_no_event() -> None:
    client = reading()

    assert heard(client, ": ping", ": ping") is None
    assert client.observation.heartbeats == 2
    assert not client.heard


def test_other_protocols_tell_by_the_meaning() -> None:
    client = reading()

    assert client.take(Meaning.TOKEN, "s.0.1", 1.0) is None
    assert client.take(Meaning.DONE, "s.0.2", 1.1) == "finished"
