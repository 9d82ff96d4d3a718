"""The scalability law: what went in is found again, and nothing is said of what nobody measured."""

import numpy as np
import pytest

from loadtests.capacity.usl import Extrapolation, TooFewPoints, fit, law

LOADS = np.array([1, 2, 4, 8, 16, 32, 64, 128, 256], dtype=np.float64)
LAM, SIGMA, KAPPA = 20.0, 0.02, 0.00005


def measured(seed: int, sigma: float = SIGMA, kappa: float = KAPPA) -> list[float]:
    noise = np.random.default_rng(seed).normal(1, 0.01, len(LOADS))
    return list(law(LOADS, LAM, sigma, kappa) * noise)


def test_parameters_are_found_exactly_where_nothing_disturbs() -> None:
    found = fit(LOADS, law(LOADS, LAM, SIGMA, KAPPA))

    assert (found.lam, found.sigma, found.kappa) == pytest.approx((LAM, SIGMA, KAPPA), rel=1e-4)
    assert found.r_squared > 0.9999
    assert found.peak == pytest.approx(np.sqrt((1 - SIGMA) / KAPPA), rel=1e-3)


def test_the_intervals_hold_the_parameters_about_as_often_as_they_say() -> None:
    fits = [fit(LOADS, measured(seed)) for seed in range(100)]

    for name, truth in (("lam", LAM), ("sigma", SIGMA), ("kappa", KAPPA)):
        intervals = [getattr(found, f"{name}_interval") for found in fits]
        # 95 of 100 are due; fewer than 88 has a chance of about one in a thousand.
        assert sum(low <= truth <= high for low, high in intervals) >= 88


def test_no_peak_is_claimed_where_throughput_was_not_seen_to_fall() -> None:
    assert fit(LOADS, measured(1, kappa=0.0)).peak is None


def test_far_beyond_the_measured_loads_it_says_nothing() -> None:
    found = fit(LOADS, law(LOADS, LAM, SIGMA, KAPPA))

    assert found.throughput(384) == pytest.approx(float(law(np.array([384.0]), LAM, SIGMA, KAPPA)[0]), rel=1e-3)
    with pytest.raises(Extrapolation, match="at most 256"):
        found.throughput(385)


def test_five_loads_are_too_few_however_often_each_was_measured() -> None:
    with pytest.raises(TooFewPoints, match="5 different loads, 6"):
        fit([1, 2, 4, 8, 16, 16, 16], [1, 2, 4, 8, 16, 16, 16])
