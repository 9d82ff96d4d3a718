"""Models files for tests, whose upstream is the scripted one."""

import json
from pathlib import Path
from typing import Any

from tests.support.upstream import ScriptedUpstream


class Models:
    """A models file with more names than a test module has tests, so that each has scripts and logs of its own.

    Args:
        folder: where the file is written.
        upstream: whom the models ask.
        settings: of the upstream in all of them: `idle_seconds` and the like.
    """

    COUNT = 100

    def __init__(self, folder: Path, upstream: ScriptedUpstream, **settings: Any) -> None:
        self.path = folder / "models.json"  # JSON is YAML
        # Unless a test is about repeats, a failure is to be seen once, and at once.
        self.catalog: dict[str, Any] = {"simulator": [{"provider": "simulator", "retries_max": 0}]}
        self._upstream = {"provider": "openai", "base_url": upstream.base_url, "retries_max": 0, **settings}
        self._names = [f"model-{number}" for number in range(self.COUNT)]
        self._unused = iter(self._names)
        for name in self._names:
            self.catalog[name] = [self._upstream]
        self.write()

    def add(self, name: str, **settings: Any) -> None:
        """Another model, with settings of its own; before the file is read."""
        self.catalog[name] = [self._upstream | settings]
        self.write()

    def unused(self) -> str:
        """A name that nobody had before."""
        return next(self._unused)

    def write(self) -> None:
        """Have the file say what `catalog` does."""
        self.path.write_text(json.dumps({"models": self.catalog}))
