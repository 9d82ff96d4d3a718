"""The processes: two scripted upstreams and Gunicorn, with a model for every case."""

import json
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

from app.observability.families import WorkerFigures
from tests.faults.case import Case, Place
from tests.faults.cases import KEY
from tests.support.chain import free_port
from tests.support.gunicorn import Gunicorn
from tests.support.scrape import Scrape
from tests.support.upstream import ScriptedUpstream
from tests.support.upstream_script import Script

# Short, so that each case is over in seconds; long for a machine that does other things too.
DEADLINES = {"connect_seconds": 1, "first_token_seconds": 1, "idle_seconds": 1, "total_seconds": 20}
HEARTBEAT_SECONDS = 4


class Rig:
    """Leaving it leaves nothing."""

    def __init__(self, cases: Sequence[Case], models: dict[str, Any] | None = None) -> None:
        self._cases = cases
        self._models = models or {}

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="sluice-faults-")))
            self.first = stack.enter_context(ScriptedUpstream())
            self.second = stack.enter_context(ScriptedUpstream())
            self._nobody = f"http://127.0.0.1:{free_port()}/v1"
            self._hangs = f"http://127.0.0.1:{deaf_port(stack)}/v1"
            file = folder / "models.json"
            models = {name(at): self._model(at, case) for at, case in enumerate(self._cases)}
            models |= {key: self._filled(value) for key, value in self._models.items()}
            self.file = file
            self.write({"models": models})
            env = {
                "SLUICE_CONFIG": str(file),
                "SLUICE_HEARTBEAT_SECONDS": str(HEARTBEAT_SECONDS),
                "SLUICE_STREAM_LOG": "memory://",
                "SLUICE_METRICS_DIR": str(folder / "metrics"),
                "ORIGIN_KEY": KEY,
            }
            self._figures = WorkerFigures(folder / "metrics")
            self.gunicorn = stack.enter_context(Gunicorn(env))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def write(self, catalog: dict[str, Any]) -> None:
        """Have the models file say this."""
        self.catalog = catalog
        self.file.write_text(json.dumps(catalog))

    def script(self, at: int) -> None:
        """Have both upstreams act the case."""
        case = self._cases[at]
        self.first.script(name(at), *_turns(case.first))
        if case.second is not None:
            self.second.script(name(at), *_turns(case.second))

    def asked(self, at: int) -> tuple[int, int]:
        """How many requests each upstream's process got."""
        return len(self.first.requests(name(at))), len(self.second.requests(name(at)))

    def generated(self, at: int) -> tuple[int, int]:
        """In how many of them it sent tokens."""
        both = self.first.requests(name(at)), self.second.requests(name(at))
        return sum(entry.tokens > 0 for entry in both[0]), sum(entry.tokens > 0 for entry in both[1])

    def counted(self) -> dict[str, dict[str, float]]:
        """Under which outcomes each model's streams are counted, as the exporter would tell."""
        found: dict[str, dict[str, float]] = {}
        for (each, labels), value in Scrape(self._figures.collect()).samples.items():
            if each == "sluice_streams_total" and value:
                of = dict(labels)
                outcomes = found.setdefault(of["model"], {})
                outcomes[of["outcome"]] = outcomes.get(of["outcome"], 0) + value
        return found

    def _model(self, at: int, case: Case) -> dict[str, Any]:
        upstreams = [{**self._at(case.place, self.first), **case.upstream}]
        if case.second is not None:
            upstreams.append({**self._at(case.second_place, self.second), **case.other})
        return {"upstreams": upstreams, **case.model}

    def _filled(self, model: dict[str, Any]) -> dict[str, Any]:
        """With upstreams that are named by their place, or are the first and the second in turn."""
        found = []
        for upstream, each in zip((self.first, self.second), model["upstreams"], strict=False):
            found.append({**self._at(each.get("place", "scripted"), upstream), **each})
            found[-1].pop("place", None)
        return {**model, "upstreams": found}

    def _at(self, place: Place, upstream: ScriptedUpstream) -> dict[str, Any]:
        url = {"scripted": upstream.base_url, "nobody": self._nobody, "hangs": self._hangs}[place]
        return {"provider": "openai", "base_url": url, "api_key_env": "ORIGIN_KEY", "retries_max": 0, **DEADLINES}


def name(at: int) -> str:
    """The model of a case."""
    return f"case-{at}"


def _turns(script: Script | tuple[Script, ...]) -> tuple[Script, ...]:
    return script if isinstance(script, tuple) else (script,)


def deaf_port(stack: ExitStack) -> int:
    """A port whose queue is full: the kernel answers no further connection."""
    listener = stack.enter_context(socket.socket())
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    for _ in range(4):
        waiting = stack.enter_context(socket.socket())
        waiting.setblocking(False)
        waiting.connect_ex(listener.getsockname())
    return int(listener.getsockname()[1])
