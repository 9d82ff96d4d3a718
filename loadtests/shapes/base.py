"""A shape that follows a curve from `curves`, by Locust's own options: users (-u), rate (-r), duration (-t)."""

from collections.abc import Callable
from typing import Any, ClassVar

from locust import LoadTestShape, events
from locust.env import Environment

# Where the command line does not say. The rate is Locust's bound for one process: a spike is to be one.
USERS = 50
SPAWN_PER_SECOND = 100.0
DURATION_SECONDS = 60.0


@events.init.add_listener
def take_defaults(environment: Environment, **_: Any) -> None:
    """Before Locust takes its own: one user, and one more a second, which would outlast most curves."""
    options: Any = environment.parsed_options
    options.num_users = options.num_users or USERS
    options.spawn_rate = options.spawn_rate or SPAWN_PER_SECOND


class Curve(LoadTestShape):
    """Ends the test when its time is over."""

    abstract = True
    use_common_options: ClassVar[bool] = True
    curve: ClassVar[Callable[[float, int, float], int]]

    def tick(self) -> tuple[int, float] | None:
        assert self.runner is not None
        options: Any = self.runner.environment.parsed_options
        duration = float(options.run_time or DURATION_SECONDS)
        elapsed = self.get_run_time()
        if elapsed > duration:
            return None
        return type(self).curve(elapsed, options.num_users, duration), options.spawn_rate
