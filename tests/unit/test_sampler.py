"""What the sampler does whatever becomes of its looks."""

import pytest

from app.observability import metrics
from app.observability.figures import figures
from app.sampler import Sampler


class Failing(Sampler):
    """One whose look at the worker's parts fails every time."""

    def __init__(self) -> None:
        self._files = None

    def _look(self) -> None:
        raise RuntimeError("no")


def test_values_are_counted_though_a_look_fails_or_they_would_pile_up() -> None:
    tally = figures.tally(metrics.COMMIT_SECONDS)
    tally.add(0.1)
    with pytest.raises(RuntimeError):
        Failing().write()
    assert tally._new == []
