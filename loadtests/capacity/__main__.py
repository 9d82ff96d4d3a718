"""`make capacity`: finds how many streams a worker carries, and says whether that can be believed.

With --target it measures a Sluice that runs already, all of it, and leaves capacity.json alone.
"""

import argparse
import shlex
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from app.capacity import FILE
from loadtests.bench.errors import BenchError
from loadtests.bench.processes import REPOSITORY
from loadtests.bench.report import machine
from loadtests.bench.surfaces import SURFACES
from loadtests.bench.systems import SYSTEMS
from loadtests.capacity.objectives import Objectives, UnknownProfile, objectives
from loadtests.capacity.page import page
from loadtests.capacity.point import Model, Point
from loadtests.capacity.remote import SIMULATOR, Remote, RemoteTarget, UnusableTarget
from loadtests.capacity.result import SYSTEM, Answer, Question, answer, write
from loadtests.capacity.summary import markdown
from loadtests.capacity.sweep import Bounds, Measure, Sweep, sweep
from loadtests.capacity.target import LocalTarget, Site

# Everything of the last run: records, logs, points, report. The answer itself goes to deploy/.
STATE = REPOSITORY / "var" / "capacity"
# What is said of a target elsewhere, in the form of capacity.json, all of it taken for one worker.
TARGET_FILE = "target.json"
OWN_GENERATOR = "loadtests/bench (C), on another core of the same machine, as is the upstream"
FAR_GENERATOR = "loadtests/bench (C), on {machine}"
# Valid, not valid, wrong options.
EXIT_VALID, EXIT_INVALID, EXIT_USAGE = 0, 1, 2
# Of a point, beside ramp and window: settling, and what its clients leave behind. Only the bar needs it.
OVERHEAD_SECONDS = 3.0
REFRESH_SECONDS = 0.25


def main(words: Sequence[str] | None = None) -> int:
    """The exit code."""
    options = read_options(words)
    console = Console(stderr=True)
    command = shlex.join(["python", "-m", "loadtests.capacity", *(sys.argv[1:] if words is None else words)])
    try:
        due = objectives(options.profile)
        options.state.mkdir(parents=True, exist_ok=True)
        found, question = measure(options, due, console, command)
    except (BenchError, UnknownProfile, UnusableTarget) as error:
        console.print(f"capacity: {error}", markup=False, soft_wrap=True)
        return EXIT_INVALID if isinstance(error, BenchError) else EXIT_USAGE
    except KeyboardInterrupt:
        return EXIT_INVALID
    told = answer(found, question)
    leave(options.state, found, told, due)
    if not options.no_write:
        write(told, options.output)
        if told.valid and not told.lacks(options.output):
            options.output.with_suffix(".md").write_text(markdown(found, told, due))
    sys.stdout.write(markdown(found, told, due))
    if (lacks := told.lacks(options.output)) and not options.no_write:
        console.print(f"{options.output.name} stays as it is: this run lacks {lacks}", markup=False, soft_wrap=True)
    return EXIT_VALID if told.valid else EXIT_INVALID


def read_options(words: Sequence[str] | None) -> argparse.Namespace:
    """The options, their defaults and what they are for."""
    defaults = Bounds()
    parser = argparse.ArgumentParser(prog="python -m loadtests.capacity", description=__doc__)
    parser.add_argument("--target", default="", help="http://host:port of a Sluice that runs already, to measure that")
    parser.add_argument(
        "--ops", action="append", default=[], help="http://host:port of the target's figures; once for each pod"
    )
    parser.add_argument("--model", default=SIMULATOR, help="of the target; any but the simulator has its own pace")
    parser.add_argument("--profile", default="chat", help="of loadtests/profiles.yaml: the traffic and its objectives")
    parser.add_argument("--system", choices=SYSTEMS, default=SYSTEM, help="what is started and measured")
    parser.add_argument("--surface", choices=SURFACES, default="openai", help="which route")
    parser.add_argument("--header", default="", help="a header of every request, such as 'Authorization: Bearer …'")
    parser.add_argument("--streams-min", type=int, default=defaults.streams_min)
    parser.add_argument("--streams-max", type=int, default=defaults.streams_max)
    parser.add_argument("--repetitions", type=int, default=defaults.repetitions, help="each with a seed of its own")
    parser.add_argument("--seconds", type=float, default=defaults.seconds, help="window of a point of the search")
    parser.add_argument("--confirm-seconds", type=float, default=defaults.confirm_seconds, help="of the last points")
    parser.add_argument("--output", type=Path, default=FILE, help="where a valid answer is written")
    parser.add_argument("--no-write", action="store_true", help="leave capacity.json as it is")
    parser.add_argument("--state", type=Path, default=STATE, help="folder for records, logs and reports")
    options = parser.parse_args(words)
    if not 1 <= options.streams_min <= options.streams_max or options.repetitions < 1:
        parser.error("1 ≤ --streams-min ≤ --streams-max, and at least one repetition")
    if options.ops and not options.target:
        parser.error("--ops is of a --target")
    if min(options.seconds, options.confirm_seconds) <= 0:
        parser.error("--seconds and --confirm-seconds are above 0")
    return options


def measure(options: argparse.Namespace, due: Objectives, console: Console, command: str) -> tuple[Sweep, Question]:
    """The sweep, with its progress on stderr, and what it was about."""
    bounds = Bounds(
        options.streams_min, options.streams_max, options.repetitions, options.seconds, options.confirm_seconds
    )
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with (
        target_of(options, due) as target,
        Progress(*columns, console=console, transient=True) as progress,
    ):
        found = sweep(
            with_progress(target, due, progress),
            due,
            bounds,
            lambda line: progress.console.print(line, highlight=False, soft_wrap=True),
        )
    surface, times = target.surface, options.repetitions
    if isinstance(target, LocalTarget):
        return found, Question(options.profile, due, options.system, surface, times, OWN_GENERATOR, command)
    version = target.idle.version if target.idle else "unknown"
    generator = FAR_GENERATOR.format(machine=machine())
    return found, Question(
        options.profile, due, options.system, surface, times, generator, command, options.target, version
    )


def target_of(options: argparse.Namespace, due: Objectives) -> LocalTarget | RemoteTarget:
    """What is measured: something that is started here, or runs elsewhere."""
    if options.target:
        return RemoteTarget(Remote(options.target, options.ops, options.model, options.header, options.state), due)
    surface = SURFACES[options.surface]._replace(header=options.header)
    return LocalTarget(Site(options.system, surface, options.state), due)


def with_progress(target: Measure, due: Objectives, progress: Progress) -> Measure:
    """`target`, with a bar that fills while a point is measured."""

    def measured(model: Model, streams: int, seed: int, seconds: float) -> Point:
        expected = due.stream_seconds + seconds + OVERHEAD_SECONDS
        task = progress.add_task(f"{model} model, {streams} streams, seed {seed}", total=expected)
        ended = threading.Event()
        clock = threading.Thread(target=_fill, args=(progress, task, ended), daemon=True)
        clock.start()
        try:
            return target(model, streams, seed, seconds)
        finally:
            ended.set()
            clock.join()
            progress.remove_task(task)

    return measured


def _fill(progress: Progress, task: TaskID, ended: threading.Event) -> None:
    while not ended.wait(REFRESH_SECONDS):
        progress.advance(task, REFRESH_SECONDS)


def leave(folder: Path, found: Sweep, told: Answer, due: Objectives) -> None:
    """The reports, and every point for whoever wants to compute anew."""
    points = [{"role": role, **msgspec.to_builtins(point)} for role, point in found.everything()]
    (folder / "points.json").write_bytes(msgspec.json.format(msgspec.json.encode(points)))
    (folder / "report.md").write_text(markdown(found, told, due))
    (folder / "report.html").write_text(page(found, told, due))
    for name in (TARGET_FILE, FILE.name):
        (folder / name).unlink(missing_ok=True)  # of a run before
    name = TARGET_FILE if told.target else FILE.name
    (folder / name).write_bytes(msgspec.json.format(msgspec.json.encode(told.document)) + b"\n")


if __name__ == "__main__":
    sys.exit(main())
