"""The bounds of a load that counts as carried, beside what users are promised."""

import re
from typing import Any

import msgspec
import pytest
import yaml

from loadtests.bench.generator import Demand
from loadtests.capacity.objectives import PROFILES, SMOKE, Objectives, UnknownProfile, objectives
from tests.support.launched import HOME

NAMES = [name for name in yaml.safe_load(PROFILES.read_text()) if name != SMOKE]


@pytest.fixture(scope="module")
def promised() -> dict[str, Any]:
    file: dict[str, dict[str, Any]] = yaml.safe_load((HOME / "deploy/prometheus/slo.yaml").read_text())
    return file["objectives"]


def seconds(objective: dict[str, Any]) -> float:
    """The bound of an objective: the bucket that its errors are counted beyond."""
    found = re.search(r'le="([\d.]+)"', objective["errors"])
    assert found is not None
    return float(found[1])


def laxer(due: Objectives, promised: dict[str, Any]) -> list[str]:
    """What of a profile lets through more than the promises do."""
    first, gaps, pace = (promised[name] for name in ("first_token", "gaps", "token_pace"))
    bad = {
        "ttft_ms_max": due.ttft_ms_max > 1000 * seconds(first),
        "ttft_share": due.ttft_share < first["objective"],
        "gap_ms_max": due.gap_ms_max > 1000 * seconds(gaps),
        "gap_share": due.gap_share < gaps["objective"],
        "complete_share": due.complete_share < promised["streams"]["objective"],
        "tokens_per_second": due.tokens_per_second < 1 / seconds(pace),
    }
    return [name for name, is_laxer in bad.items() if is_laxer]


@pytest.mark.parametrize("name", NAMES)
def test_a_profile_is_at_least_as_strict_as_what_users_are_promised(name: str, promised: dict[str, Any]) -> None:
    assert laxer(objectives(name), promised) == []


def test_the_profile_of_the_tests_is_not_and_says_what_laxer_means(promised: dict[str, Any]) -> None:
    assert laxer(objectives(SMOKE), promised) == [
        "ttft_ms_max",
        "ttft_share",
        "gap_ms_max",
        "gap_share",
        "complete_share",
    ]
    slow = msgspec.structs.replace(objectives("chat"), tokens_per_second=9)
    assert laxer(slow, promised) == ["tokens_per_second"]


@pytest.mark.parametrize("name", [*NAMES, SMOKE])
def test_a_profiles_streams_begin_all_over_the_life_of_one(name: str) -> None:
    """The longer ones began within five seconds, and none of them ended before the window closed."""
    due = objectives(name)
    demand = Demand(100, due.tokens_per_second, due.tokens_per_stream, seconds=8)
    assert demand.ramp_seconds == due.stream_seconds


def test_a_profile_that_there_is_not_is_answered_with_those_that_there_are() -> None:
    with pytest.raises(UnknownProfile, match="no profile 'chatty': there are chat, long, fast, smoke"):
        objectives("chatty")
