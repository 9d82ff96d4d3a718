"""NGINX's configuration as data: a list of directives, with every include followed."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

TOKEN = re.compile(r"""\s*(?:\#[^\n]*|("(?:\\.|[^"])*"|'(?:\\.|[^'])*'|[{};]|(?:\$\{\w+\}|[^\s;{}"'#])+))""")


@dataclass
class Directive:
    """`name args;` or `name args { block }`."""

    name: str
    args: list[str]
    block: list["Directive"] = field(default_factory=list)

    def all(self, name: str) -> list[list[str]]:
        """The arguments of each directive of that name directly in the block."""
        return [directive.args for directive in self.block if directive.name == name]

    def one(self, name: str) -> str:
        """The arguments of the only directive of that name in the block."""
        (args,) = self.all(name)
        return " ".join(args)

    def walk(self) -> Iterator["Directive"]:
        """This and all below it."""
        yield self
        for directive in self.block:
            yield from directive.walk()


def load(main: Path) -> Directive:
    """The configuration in `main`, below one directive without a name. Includes count from its folder."""
    return Directive("", [], _parse(_tokens(main), main.parent))


def _tokens(path: Path) -> Iterator[str]:
    return (match[1] for match in TOKEN.finditer(path.read_text()) if match[1])


def _parse(tokens: Iterator[str], folder: Path) -> list[Directive]:
    found: list[Directive] = []
    words: list[str] = []
    for token in tokens:
        if token == "}":
            return found
        if token not in "{;":
            words.append(token.strip("\"'"))
            continue
        directive = Directive(words[0], words[1:])
        words = []
        if token == "{":
            directive.block = _parse(tokens, folder)
        if directive.name == "include":
            for path in sorted(folder.glob(directive.args[0])):
                found += _parse(_tokens(path), folder)
        else:
            found.append(directive)
    return found
