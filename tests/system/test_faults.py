"""Every fault of upstreams that `make faults` tabulates, with the same processes."""

import pytest

from tests.faults.case import Case
from tests.faults.cases import GROUPS
from tests.faults.run import Row, run
from tests.faults.special import SPECIALS, run_specials

CASES = [case for group in GROUPS.values() for case in group]


@pytest.fixture(scope="module")
def rows() -> dict[str, Row]:
    return {_id(row.case): row for row in run(CASES)}


@pytest.fixture(scope="module")
def specials() -> dict[str, tuple[str, bool]]:
    return {what: (seen, wrong) for what, seen, wrong in run_specials()}


def _id(case: Case) -> str:
    return f"{case.name} [{case.client}, {'alone' if case.second is None else 'two'}]"


def test_no_two_cases_have_one_name() -> None:
    assert len({_id(case) for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=_id)
def test_a_fault_ends_as_it_should(case: Case, rows: dict[str, Row]) -> None:
    assert rows[_id(case)].wrong == []


def test_no_truncated_text_looks_complete(rows: dict[str, Row]) -> None:
    complete = [row for row in rows.values() if row.got.end == "done"]
    assert len(complete) > 40
    assert all(row.got.text == row.case.text and row.case.end == "done" for row in complete)


@pytest.mark.slow
@pytest.mark.parametrize("what", SPECIALS)
def test_several_requests_come_out_as_they_should(what: str, specials: dict[str, tuple[str, bool]]) -> None:
    seen, wrong = specials[what]
    assert not wrong, seen
