"""Repeats are a share of requests, with something in reserve."""

from app.routing.budget import RESERVE, RetryBudget


def spent(budget: RetryBudget, most: int = 1000) -> int:
    """How many repeats it pays for."""
    count = 0
    while budget.any_left and count < most:
        budget.spend()
        count += 1
    return count


def test_a_quiet_service_has_a_reserve_and_gets_it_back_with_time() -> None:
    now = [0.0]
    budget = RetryBudget(0.0, lambda: now[0])
    assert spent(budget) == RESERVE
    now[0] += 3.5
    assert spent(budget) == 3
    now[0] += 1000
    assert spent(budget) == RESERVE


def test_a_busy_one_repeats_a_share() -> None:
    budget = RetryBudget(0.25, lambda: 0.0)
    spent(budget)
    for _ in range(20):
        budget.earn()
    assert spent(budget) == 5
