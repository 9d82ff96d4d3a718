"""NGINX's configuration as data: crossplane's tree, with every include followed, as something that tests can ask."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import crossplane


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

    def blocks(self, name: str) -> list["Directive"]:
        return [directive for directive in self.block if directive.name == name]

    def only(self, name: str) -> "Directive":
        """The only block of that name."""
        (found,) = self.blocks(name)
        return found

    def walk(self) -> Iterator["Directive"]:
        """This and all below it."""
        yield self
        for directive in self.block:
            yield from directive.walk()


def load(main: Path) -> Directive:
    """The configuration in `main`, below one directive without a name."""
    # Not strict: it does not know what newer versions of NGINX have; that they take it, they say themselves.
    found = crossplane.parse(str(main), combine=True, strict=False, check_ctx=False)
    assert found["status"] == "ok", found["errors"]
    return Directive("", [], _directives(found["config"][0]["parsed"]))


def server(conf: Directive, name: str) -> Directive:
    """The server that listens on that address: the first word of a `listen`."""
    found = [each for each in conf.only("http").blocks("server") if name in [args[0] for args in each.all("listen")]]
    assert len(found) == 1, f"{len(found)} servers on {name}"
    return found[0]


def locations(server: Directive) -> dict[str, Directive]:
    """By their address, with the modifier: `= /livez`."""
    return {" ".join(location.args): location for location in server.blocks("location")}


def _directives(parsed: list[dict[str, Any]]) -> list[Directive]:
    return [Directive(each["directive"], each["args"], _directives(each.get("block", []))) for each in parsed]
