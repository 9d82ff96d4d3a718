"""Sluice's clients for Locust: name the scenarios on the command line, or choose them on its web page.

    .venv/bin/locust -f loadtests/locustfile.py,loadtests/shapes/ramp.py ShortChat --headless -u 100 -t 1m \\
        --host http://127.0.0.1:8080

README.md beside this has the scenarios, the shapes and the options.
"""

from pathlib import Path
from typing import Any

import gevent
from locust import events
from locust.env import Environment
from locust.runners import WorkerRunner

from loadtests import charts, telemetry
from loadtests.disturbance import NotDisturbed, disturb
from loadtests.users.native import Batch, LongGeneration, MixedSizes, ShortChat
from loadtests.users.openai import OpenAIChat
from loadtests.users.trying import IdleKeepAlive, Impatient, Reconnecting, SilentUpstream, SlowReader, StalledUpstream
from loadtests.users.websocket import WebSocketChat

__all__ = [
    "Batch",
    "IdleKeepAlive",
    "Impatient",
    "LongGeneration",
    "MixedSizes",
    "OpenAIChat",
    "Reconnecting",
    "ShortChat",
    "SilentUpstream",
    "SlowReader",
    "StalledUpstream",
    "WebSocketChat",
]

telemetry.install()
charts.install()


NOT_YET = "not disturbed: the test was over before"


@events.test_start.add_listener
def disturb_in_the_middle(environment: Environment, **_: Any) -> None:
    """Once for all processes: by whoever has no master."""
    options: Any = environment.parsed_options
    if options.disturb and not isinstance(environment.runner, WorkerRunner):
        telemetry.tally(environment).complain(NOT_YET)
        greenlet = gevent.spawn_later(options.disturb_after, _disturb, environment, options)
        environment.sluice_disturbance = greenlet  # type: ignore[attr-defined]


@events.test_stopping.add_listener
def disturb_no_more(environment: Environment, **_: Any) -> None:
    """On the web page another test may follow, which is not to be disturbed by this one's."""
    if (greenlet := getattr(environment, "sluice_disturbance", None)) is not None:
        greenlet.kill(block=False)


def _disturb(environment: Environment, options: Any) -> None:
    tally = telemetry.tally(environment)
    try:
        done = disturb(options.disturb, Path(options.state_dir))
    except NotDisturbed as error:
        tally.complain(f"not disturbed: {error}")
    else:
        print(f"disturbed: {done}", flush=True)
    # Not before: what has not come back until the test is over has not disturbed it.
    tally.withdraw(NOT_YET)
