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


@events.test_start.add_listener
def disturb_in_the_middle(environment: Environment, **_: Any) -> None:
    """Once for all processes: by whoever has no master."""
    options: Any = environment.parsed_options
    if options.disturb and not isinstance(environment.runner, WorkerRunner):
        gevent.spawn_later(options.disturb_after, _disturb, environment, options)


def _disturb(environment: Environment, options: Any) -> None:
    try:
        print(f"disturbed: {disturb(options.disturb, Path(options.state_dir))}")
    except NotDisturbed as error:
        environment.sluice_complaints.append(f"not disturbed: {error}")  # type: ignore[attr-defined]
