"""A shape that follows a curve from `curves`, by Locust's own options: users (-u), rate (-r), duration (-t)."""

from collections.abc import Callable
from typing import Any, ClassVar

from locust import LoadTestShape

USERS = 50
SPAWN_PER_SECOND = 100.0
DURATION_SECONDS = 60.0


class Curve(LoadTestShape):
    """Ends the test when its time is over."""

    abstract = True
    use_common_options: ClassVar[bool] = True
    curve: ClassVar[Callable[[float, int, float], int]]

    def tick(self) -> tuple[int, float] | None:
        options: Any = self.runner.environment.parsed_options if self.runner else None
        duration = float(getattr(options, "run_time", None) or DURATION_SECONDS)
        elapsed = self.get_run_time()
        if elapsed > duration:
            return None
        users = type(self).curve(elapsed, getattr(options, "users", None) or USERS, duration)
        return users, getattr(options, "spawn_rate", None) or SPAWN_PER_SECOND
