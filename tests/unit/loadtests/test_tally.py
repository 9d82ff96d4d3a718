"""Whether a test of several processes can be believed as a whole."""

import pytest

from loadtests.tally import Report, Tally


def report(*complaints: str, begun: int = 0, told: int = 60, ended: int = 50, seconds: float = 10.0) -> Report:
    return Report(list(complaints), seconds, begun, told, ended)


def tally(per_second: float, *reports: Report, generators: int | None = None) -> Tally:
    """Of a test that is over, with all that was told."""
    made = Tally(len(reports) if generators is None else generators, per_second)
    for number, each in enumerate(reports):
        made.hear(f"worker {number}", each, at=10.5)
    made.ended_at = 10.0
    return made


def test_generators_that_begin_their_shares_are_believed() -> None:
    assert tally(40, report(begun=210), report(begun=180)).complaints() == []


def test_generators_that_each_begin_all_of_it_are_not() -> None:
    """Each of them is content with itself."""
    found = tally(40, report(begun=402), report(begun=395)).complaints()

    assert found == ["797 streams began where 400 were due: generators that do not share the arrivals"]


def test_streams_that_never_began_are_missed_whoever_was_to_begin_them() -> None:
    found = tally(40, report(begun=200), report(begun=20)).complaints()

    assert found == ["220 streams began where 400 were due: too few users, or a busy generator"]


@pytest.mark.parametrize(("begun", "valid"), [(9_999, True), (9_510, True), (9_490, False), (10_510, False)])
def test_two_in_a_hundred_and_what_chance_takes_may_be_missing(begun: int, valid: bool) -> None:
    """Of 10,000, chance takes or adds 300 at most."""
    assert (tally(1000, report(begun=begun)).complaints() == []) is valid


def test_a_generator_that_is_gone_is_missed() -> None:
    assert tally(0, report(), generators=2).complaints() == ["1 generators told of themselves where 2 began"]
    gone = tally(0, report(), report())
    gone.hear("worker 1", report(), at=-20.0)
    assert gone.complaints() == ["worker 1: was last heard of 30 s before the end"]


def test_a_generator_that_joins_in_the_middle_has_no_share_of_arrivals() -> None:
    found = tally(40, report(begun=200), report(begun=200), report(begun=20), generators=2).complaints()

    assert found == ["3 generators told of themselves where 2 began"]
    assert tally(0, report(), report(), report(), generators=2).complaints() == []


def test_what_one_process_complains_of_bears_its_name() -> None:
    assert tally(0, report("late")).complaints() == ["late"]
    assert tally(0, report("late"), report()).complaints() == ["worker 0: late"]


def test_only_what_was_told_last_counts() -> None:
    made = tally(0, report("late"))
    made.hear("worker 0", report(), at=10.6)

    assert made.complaints() == []


def test_a_test_that_measured_nothing_is_not_believed() -> None:
    assert tally(0, report(told=0, ended=0)).complaints() == ["nothing was measured: no stream began"]
    found = tally(0, report(told=3, ended=0), report(told=4, ended=0)).complaints()
    assert found == ["nothing was measured: none of 7 streams was over before the test"]


def test_a_disturbance_that_never_was_is_a_complaint_until_it_is_withdrawn() -> None:
    made = tally(0, report())
    made.complain("not disturbed")
    assert made.complaints() == ["not disturbed"]
    made.withdraw("not disturbed")
    assert made.complaints() == []
