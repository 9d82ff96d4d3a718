"""Pods at their real pace, and components in all ways that any three of them can be chosen."""

from pathlib import Path

import pytest

from tests.ops.kubernetes.test_builds import check_combination
from tests.soak.results import row
from tests.support import combinations
from tests.support.manifests import combination
from tests.support.rolling_traffic import Traffic
from tests.support.staging import Load
from tests.system.test_rollout_of_pods import evict, roll, shrink

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]


LOAD = Load(streams=200, posts_per_second=50, stream_seconds=120)


def written(what: str, clients: Traffic, log: str) -> None:
    """Without a cluster, and without a look at memory."""
    journals = [client.journal for client in clients.clients]
    connections = sum(journal.connections for journal in journals)
    silence = max(journal.silence_seconds_max for journal in journals)
    row(f"{what}, without a cluster", clients.reasons, len(journals), connections, log, 0, silence, "")


async def test_a_rollout_of_pods_at_its_real_pace(tmp_path: Path) -> None:
    written("two pods rolled", *await roll(tmp_path, 1.0, LOAD))


async def test_scaling_from_three_to_one_at_its_real_pace(tmp_path: Path) -> None:
    written("three pods scaled down to one", *await shrink(tmp_path, 1.0, LOAD))


async def test_an_eviction_without_time_at_its_real_pace(tmp_path: Path) -> None:
    written("one pod of two evicted", *await evict(tmp_path, 1.0, LOAD))


def test_nothing_is_wrong_with_any_three_components_with_and_without_each_other(tmp_path: Path) -> None:
    """All legal choices are 22,400, hours of building; what goes wrong goes wrong between two or three."""
    number = 0
    for number, chosen in enumerate(combinations.covering(3), 1):
        check_combination(combination(tmp_path / str(number), chosen))
    assert number > 20
