"""`make compare`: the same load on Sluice and on others, one after the other on the same core, and their ratios.

First one load for what a token costs, at which the slower ones are at their end; then each is loaded until it misses an
objective of the profile. One worker, one core, the same upstream: figures of one run, which only compare with each
other.
"""

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from loadtests.bench.errors import BenchError
from loadtests.bench.processes import REPOSITORY
from loadtests.bench.report import machine
from loadtests.bench.surfaces import SURFACES
from loadtests.bench.system import Start
from loadtests.bench.systems import SYSTEMS
from loadtests.capacity.again import Again
from loadtests.capacity.boundary import boundary
from loadtests.capacity.objectives import Objectives, objectives
from loadtests.capacity.point import Point
from loadtests.capacity.result import versions as sluice
from loadtests.capacity.sweep import Bounds, search
from loadtests.capacity.target import LocalTarget, Site
from loadtests.capacity.verdict import generator_complaints, is_exhausted, reasons
from loadtests.compare.peers import ORIGIN, PEERS, peer, versions
from loadtests.compare.table import FILE, markdown

STATE = REPOSITORY / "var" / "compare"
# Where the search begins; what misses an objective there is said to carry fewer.
STREAMS_MIN = 8


def main(words: Sequence[str] | None = None) -> int:
    """The exit code."""
    options = read_options(words)
    console = Console(stderr=True)
    options.state.mkdir(parents=True, exist_ok=True)
    due = objectives(options.profile)
    try:
        origin = common_load(ORIGIN, options, due)
        found = [measure(name, options, due, origin, console) for name in [*options.only, *dict(options.peer)]]
    except BenchError as error:
        console.print(f"compare: {error}", markup=False, soft_wrap=True)
        return 1
    document = {
        "measured_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "machine": machine(),
        "versions": sluice(),
        "litellm": versions(),
        "streams": options.streams,
        "profile": options.profile,
        "systems": found,
    }
    complaints = [f"{each['name']}: {text}" for each in found for text in each["complaints"]]
    (options.state / "comparison.json").write_text(json.dumps(document, indent=2) + "\n")
    # README's table has the same systems each time.
    if not complaints and set(options.only) == set(PEERS) and not options.peer and not options.no_write:
        FILE.write_text(json.dumps(document, indent=2) + "\n")
    sys.stdout.write(markdown(document))
    for complaint in complaints:
        console.print(f"INVALID: {complaint}", markup=False, soft_wrap=True)
    return 1 if complaints else 0


def read_options(words: Sequence[str] | None) -> argparse.Namespace:
    """The options, their defaults and what they are for."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.compare", description=__doc__)
    parser.add_argument("--only", choices=PEERS, nargs="+", default=list(PEERS), help="which systems; the first is 1")
    parser.add_argument(
        "--peer",
        type=peer,
        action="append",
        default=[],
        metavar="NAME=COMMAND",
        help="another gateway that is installed: what starts it, with {port} and {origin} where its port and the "
        "address of its OpenAI-compatible upstream go",
    )
    parser.add_argument("--profile", default="chat", help="of loadtests/profiles.yaml")
    parser.add_argument("--streams", type=int, default=200, help="the load at which a token's cost is taken")
    parser.add_argument("--streams-max", type=int, default=2048, help="how far each is loaded; 0: not at all")
    parser.add_argument("--seconds", type=float, default=5.0, help="window of each load")
    parser.add_argument("--no-write", action="store_true", help="leave loadtests/comparison.json as it is")
    parser.add_argument("--state", type=Path, default=STATE, help="folder for records and logs")
    options = parser.parse_args(words)
    names = [name for name, _ in options.peer]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        parser.error(f"argument --peer: given twice: {', '.join(twice)}")
    return options


def systems(options: argparse.Namespace) -> Mapping[str, tuple[str, Start]]:
    """All that can be started."""
    return {**PEERS, **dict(options.peer), ORIGIN: SYSTEMS[ORIGIN]}


def site(name: str, options: argparse.Namespace) -> Site:
    return Site(name, SURFACES["openai"], options.state, systems(options))


def common_load(name: str, options: argparse.Namespace, due: Objectives) -> Point:
    """The common load, on this one."""
    with LocalTarget(site(name, options), due) as target:
        return target("closed", options.streams, 1, options.seconds)


def measure(name: str, options: argparse.Namespace, due: Objectives, origin: Point, console: Console) -> dict[str, Any]:
    """One system: its cost at the common load, and how far it goes."""
    label = systems(options)[name][0]
    console.print(f"measuring {label}", markup=False)
    complaints: list[str] = []
    carried, more = None, False

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    with LocalTarget(site(name, options), due) as target:
        again = Again(target, due, say)
        point = again("closed", options.streams, 1, options.seconds)
        complaints += reasons([point], due)
        if options.streams_max:
            bounds = Bounds(streams_min=STREAMS_MIN, streams_max=options.streams_max, seconds=options.seconds)
            points, outside = search(again, due, bounds, say)
            carried, more = how_far(points, outside, due)
            beyond = 1.0 if more else 1.1  # what lies near the boundary decides; there is none of what carries more
            near = [each for each in points if carried is None or each.streams <= beyond * carried]
            complaints += [text for each in near for text in generator_complaints(each)]
    cost = point.cost
    return {
        "system": name,
        "name": label,
        "cpu_us_per_token": (cost.cpu_us_per_token or 0.0) + (cost.nginx_cpu_us_per_token or 0.0),
        "kib_per_stream": (cost.kib_per_stream or 0.0) + (cost.nginx_kib_per_stream or 0.0),
        # None: no stream began within the window, so slow is it.
        "added_ttft_p50_ms": point.ttft_ms["p50"] - origin.ttft_ms["p50"] if point.ttft_ms else None,
        "kept": not point.misses(due),
        "streams_carried": carried,
        "streams_more": more,
        "streams_told": f"fewer than {STREAMS_MIN}" if options.streams_max else "–",
        "complaints": complaints,
    }


def how_far(points: Sequence[Point], outside: str | None, due: Objectives) -> tuple[float | None, bool]:
    """How many streams it carries (None: not even the fewest), and whether that is only the least that it does.

    What is faster than the generator cannot be loaded until it misses an objective: its number is the largest load
    below the one at which the generator was at its end.
    """
    if outside and outside.endswith("--streams-min"):
        return None, False
    end = math.inf
    for each in sorted(points, key=lambda each: each.streams, reverse=True):
        if not is_exhausted(each):  # at a lower load it was a neighbour who kept that core busy
            break
        end = each.streams
    missed = min((each.streams for each in points if each.misses(due)), default=math.inf)
    kept = [each.streams for each in points if each.streams < min(end, missed)]
    if kept and end < math.inf and end <= missed:
        return float(max(kept)), True
    return boundary(points, due).streams, outside is not None


if __name__ == "__main__":
    sys.exit(main())
