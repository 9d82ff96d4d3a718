"""deploy/Dockerfile as data: what an image of it runs, and with what."""

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.launched import HOME

DOCKERFILE = HOME / "deploy" / "Dockerfile"


@dataclass
class Stage:
    """One image, by the last of its instructions of each kind."""

    base: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def last(self, name: str) -> str:
        """The arguments of the last instruction of that name."""
        return [rest for instruction, rest in self.instructions if instruction == name][-1]

    def command(self, name: str) -> list[str]:
        """An ENTRYPOINT or CMD, which are in exec form or an error."""
        words: list[str] = json.loads(self.last(name))
        return words

    @property
    def environment(self) -> dict[str, str]:
        words = [word for name, rest in self.instructions if name == "ENV" for word in shlex.split(rest)]
        return dict(word.split("=", 1) for word in words)


def stages(path: Path = DOCKERFILE) -> dict[str, Stage]:
    """By their names, in their order."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.MULTILINE)
    text = text.replace("\\\n", " ")
    found: dict[str, Stage] = {}
    current: Stage | None = None
    for line in text.splitlines():
        name, _, rest = line.strip().partition(" ")
        if name == "FROM":
            base, _, stage = rest.partition(" AS ")
            current = found[stage] = Stage(base)
        elif name and current is not None:
            current.instructions.append((name, rest.strip()))
    return found
