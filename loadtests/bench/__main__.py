"""`python -m loadtests.bench`: measure, print the table, and fail when it cannot be believed."""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from loadtests.bench.build import build
from loadtests.bench.errors import BenchError
from loadtests.bench.generator import Demand
from loadtests.bench.measurement import Bench, Row
from loadtests.bench.processes import REPOSITORY, choose_cores
from loadtests.bench.report import RESULTS, as_json, write
from loadtests.bench.rounds import middle
from loadtests.bench.surfaces import SURFACES
from loadtests.bench.systems import ASKED_FOR, SYSTEMS
from loadtests.bench.verdict import broken_limits, faults

# Where the tables are left, and the gateways' logs in a folder beside them.
STATE = REPOSITORY / "var"


def main(words: Sequence[str] | None = None) -> int:
    """The exit code: 0, 1 for figures that are not valid or break a limit, 2 for a wrong option."""
    options = read_options(words)
    try:
        rows = measure(options)
    except BenchError as error:
        return fail([str(error)])
    except KeyboardInterrupt:
        return fail(["interrupted"])
    title = f"{options.surface} surface, {options.rate:g} tokens/s a stream, {options.tokens} tokens each"
    command = " ".join(["python -m loadtests.bench", *(sys.argv[1:] if words is None else words)])
    sys.stdout.write(write(options.state, title, command, rows))
    complaints = [f"not valid: {row.name}, {row.streams} streams: {fault}" for row in rows for fault in faults(row)]
    if options.check:
        complaints += broken_limits(rows)
    if complaints:
        return fail(complaints)
    if options.write:
        (RESULTS / f"{options.write}.json").write_bytes(as_json(title, command, rows))
    return 0


def read_options(words: Sequence[str] | None) -> argparse.Namespace:
    """The options, their defaults and what they are for."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.bench", description=__doc__)
    parser.add_argument("--streams", type=int, nargs="+", default=[200, 384], help="concurrent streams")
    parser.add_argument("--rate", type=float, default=20.0, help="tokens a second and stream, 1 to 1000")
    parser.add_argument("--tokens", type=int, default=100, help="tokens a stream, before it is reopened")
    parser.add_argument("--seconds", type=float, default=15.0, help="length of a row's window")
    parser.add_argument("--rounds", type=int, default=1, help="measure all so often, in turns; show the middle rows")
    parser.add_argument("--surface", choices=SURFACES, default="openai", help="which route is measured")
    usual = [name for name in SYSTEMS if name not in ASKED_FOR]
    parser.add_argument("--only", choices=SYSTEMS, nargs="+", default=usual, help="which rows")
    parser.add_argument("--assert", dest="check", action="store_true", help="fail when a limit is broken")
    parser.add_argument(
        "--write",
        nargs="?",
        const="costs",
        type=_name,
        metavar="NAME",
        help=f"leave the figures in {RESULTS.relative_to(REPOSITORY)}/NAME.json, too (%(const)s): a table of README",
    )
    parser.add_argument("--state", type=Path, default=STATE, help="folder for the table, the figures and the logs")
    options = parser.parse_args(words)
    if min(*options.streams, options.tokens, options.seconds, options.rounds) <= 0 or not 1 <= options.rate <= 1000:
        parser.error("--streams, --tokens, --seconds and --rounds are above 0, --rate is 1 to 1000")
    return options


def _name(said: str) -> str:
    if not re.fullmatch("[a-z][a-z-]{0,30}", said):
        raise argparse.ArgumentTypeError(f"{said!r} is no name of small letters")
    return said


def measure(options: argparse.Namespace) -> list[Row]:
    """The rows that were asked for, of each the middle round.

    Rounds follow each other, and not the same row itself: a machine that changes meanwhile does so for all rows.
    """
    logs = options.state / "bench"
    logs.mkdir(parents=True, exist_ok=True)
    bench = Bench(build(), logs, choose_cores(), SURFACES[options.surface])
    return [middle(same) for same in zip(*(one_round(bench, options) for _ in range(options.rounds)), strict=True)]


def one_round(bench: Bench, options: argparse.Namespace) -> list[Row]:
    """Every row once, one after the other."""
    rows = []
    for streams in options.streams:
        for system in [name for name in SYSTEMS if name in options.only]:
            sys.stderr.write(f"measuring {SYSTEMS[system][0]}, {streams} streams …\n")
            rows.append(bench.measure(system, Demand(streams, options.rate, options.tokens, options.seconds)))
    return rows


def fail(reasons: Sequence[str]) -> int:
    """Say why on stderr."""
    for reason in reasons:
        sys.stderr.write(f"bench: {reason}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
