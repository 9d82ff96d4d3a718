"""What Locust is told of streams beside its requests, and whether a run can be believed.

Every stream adds to Locust's own statistics, under its scenario's name: TTFT, GAP (each gap between tokens), LARGEST
GAP, TOKENS, RESUME and OUTCOME. So they are in the table, the CSV, the web page's charts (/streams) and, with
`--processes` or workers, in the sums of all. They leave out `Aggregated`, which stays that of requests. Every stream is
also a line in the journal, exact where the statistics are rounded.
"""

import random
import time
from collections import deque
from pathlib import Path
from typing import Any

import gevent
import locust.stats
from gevent.event import AsyncResult
from locust import events
from locust.env import Environment
from locust.event import EventHook
from locust.runners import STATE_STOPPED, MasterRunner, WorkerRunner

from loadtests.arrivals import Arrivals
from loadtests.observation import Journal, Observation, Outcome
from loadtests.tally import Report, Tally

# Fired for every stream that is over, with `observation`: for whoever wants to know more than we count.
stream_ended = EventHook()

# A run of Locust is late by what other greenlets take; later than this, gaps are its own.
LOOP_LAG_P99_MS_MAX = 10.0
LOOP_PERIOD_SECONDS = 0.02
# Arrivals that nobody was free for; further ones never begin, and the run is not valid long before.
OVERDUE_MAX = 100_000
_CLOCK_ORIGIN = time.time() - time.perf_counter()


def now() -> float:
    """Seconds that only go forward, and compare between machines as far as their clocks agree."""
    return _CLOCK_ORIGIN + time.perf_counter()


def bucket(milliseconds: float) -> int:
    """Three significant digits, where Locust rounds 10 s and more to whole seconds."""
    if milliseconds < 1000:
        return round(milliseconds)
    digits = len(str(int(milliseconds)))
    return int(round(milliseconds, 3 - digits))


class Telemetry:
    """One for each process of Locust."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._options: Any = environment.parsed_options
        self._lags: list[float] = []
        self._started = now()
        self._ended_at: float | None = None
        self._helpers: list[gevent.Greenlet] = []
        self._free: list[AsyncResult] = []
        self._overdue: deque[float] = deque(maxlen=OVERDUE_MAX)
        self._told = self._ended = 0
        self.journal: Journal | None = None
        self.arrivals: Arrivals | None = None

    def start(self, per_second: float, generators: int) -> None:
        """A test begins; with arrivals in the open model, if there is a rate, of which each generator has its share."""
        self._started, self._ended_at = now(), None
        self._told = self._ended = 0
        self.arrivals = None
        for rest in (self._lags, self._free, self._overdue):
            rest.clear()
        runner = self._environment.runner
        index = max(0, getattr(runner, "worker_index", 0))
        if folder := self._options.records:
            self.journal = Journal(Path(folder), index)
        if per_second:
            # Sums of independent Poisson processes are one.
            self.arrivals = Arrivals(per_second / generators, self._options.seed + index, self._started)
            self._helpers.append(gevent.spawn(self._give_turns, self.arrivals))
        self._helpers.append(gevent.spawn(self._watch_loop))

    def due(self) -> float:
        """When the stream was due that the caller is to begin now. In the open model, waits for its turn."""
        if self.arrivals is None:
            return now()
        due = self._overdue.popleft() if self._overdue else self._wait_for_turn()
        self.arrivals.began(due, now())
        return due

    def _wait_for_turn(self) -> float:
        turn = AsyncResult()
        self._free.append(turn)
        try:
            return float(turn.get())
        finally:
            # Still there if the user is stopped while it waits. Raising anything else here would keep it from stopping.
            if turn in self._free:
                self._free.remove(turn)

    def _give_turns(self, arrivals: Arrivals) -> None:
        """Each arrival is somebody's who is free, by lot: in order of waiting, one scenario would follow another."""
        lot = random.Random(self._options.seed)  # noqa: S311
        while True:
            due = arrivals.take()
            gevent.sleep(max(0.0, due - now()))
            if self._free:
                self._free.pop(lot.randrange(len(self._free))).set(due)
            else:
                self._overdue.append(due)

    def ended(self, observation: Observation) -> None:
        """Count a stream that is over, or that the end of the test found open."""
        name = observation.scenario
        self._told += 1
        self._ended += observation.outcome != Outcome.OPEN
        if observation.ttft is not None:
            self._log(name, "TTFT", observation.ttft)
        for gap in observation.gaps:
            self._log(name, "GAP", gap)
        if observation.largest_gap is not None:
            self._log(name, "LARGEST GAP", observation.largest_gap)
        for resume in observation.resumes:
            self._log(name, "RESUME", resume)
        self._environment.stats.get(name, "TOKENS").log(observation.tokens, 0)
        self._environment.stats.get(f"{name}: {observation.outcome}", "OUTCOME").log(0, 0)
        if self.journal:
            self.journal.write(observation)
        stream_ended.fire(observation=observation)

    def finish(self) -> None:
        """The test ends: no further stream begins, and nothing counts by time any more."""
        if self._ended_at is None:
            self._ended_at = now()
        gevent.killall(self._helpers)
        self._helpers.clear()

    def close(self) -> None:
        """Every user is gone."""
        if self.journal:
            self.journal.close()
            self.journal = None

    def report(self) -> Report:
        """Of this process, as far as the test has come."""
        seconds = (now() if self._ended_at is None else self._ended_at) - self._started
        begun = len(self.arrivals.lags) if self.arrivals else 0
        return Report(self._complaints(), seconds, begun, self._told, self._ended)

    def _complaints(self) -> list[str]:
        found = self.arrivals.complaints() if self.arrivals else []
        lags = sorted(self._lags)
        if lags and (late := 1000 * lags[int(0.99 * (len(lags) - 1))]) > LOOP_LAG_P99_MS_MAX:
            found.append(f"the generator's loop was {late:.1f} ms late (p99), at most {LOOP_LAG_P99_MS_MAX:g} ms")
        if getattr(self._environment.runner, "cpu_warning_emitted", False):
            found.append("the generator used more than 90 % of its core: take more --processes")
        return found

    def _log(self, name: str, kind: str, seconds: float) -> None:
        # An int is what Locust expects; `bucket` would round it anyhow.
        self._environment.stats.get(name, kind).log(round(1000 * seconds), 0)

    def _watch_loop(self) -> None:
        while True:
            before = now()
            gevent.sleep(LOOP_PERIOD_SECONDS)
            self._lags.append(max(0.0, now() - before - LOOP_PERIOD_SECONDS))


def install() -> None:
    """Hooks it all into Locust. Importing would do, if order did not matter."""
    locust.stats.bucket_response_time = bucket
    events.init_command_line_parser.add_listener(_add_options)
    events.init.add_listener(_init)
    events.test_start.add_listener(_start)
    events.test_stopping.add_listener(_stopping)
    events.test_stop.add_listener(_stop)
    events.report_to_master.add_listener(_report)
    events.worker_report.add_listener(_reported)
    events.quitting.add_listener(_judge)


def telemetry(environment: Environment) -> Telemetry:
    """The one of this process."""
    found: Telemetry = environment.sluice_telemetry  # type: ignore[attr-defined]
    return found


def tally(environment: Environment) -> Tally:
    """The one of the whole test: where no master is, or in the master."""
    found: Tally = environment.sluice_tally  # type: ignore[attr-defined]
    return found


def _has_run(environment: Environment) -> bool:
    """Whether a test has begun; a web page may be closed before."""
    return environment.sluice_tally is not None  # type: ignore[attr-defined]


def _add_options(parser: Any) -> None:
    group = parser.add_argument_group("Streams")
    group.add_argument("--model", default="simulator", help="which model is asked")
    group.add_argument(
        "--pace", type=float, default=20.0, help="tokens a second of the simulator; 0: it is a real model"
    )
    group.add_argument("--api-key", default="", env_var="SLUICE_LOAD_API_KEY", help="sent as a bearer token")
    group.add_argument("--records", default="", help="folder for a line of JSON for each stream")
    group.add_argument("--arrivals", type=float, default=0.0, help="streams a second, begun whatever the server does")
    group.add_argument("--seed", type=int, default=1, help="of arrivals, sizes and texts")
    group.add_argument("--disturb", default="", help="`deploy`, `kill`, or a command, run in the middle of the test")
    group.add_argument("--disturb-after", type=float, default=15.0, help="seconds from the start")
    group.add_argument("--state-dir", default="var", help="of the `make run` that is disturbed")


def _init(environment: Environment, **_: Any) -> None:
    environment.sluice_telemetry = Telemetry(environment)  # type: ignore[attr-defined]
    environment.sluice_tally = None  # type: ignore[attr-defined]
    for kind, name in ((WorkerRunner, "worker"), (MasterRunner, "master")):
        if isinstance(environment.runner, kind):
            _environments[name] = environment


def _start(environment: Environment, **_: Any) -> None:
    options: Any = environment.parsed_options
    runner = environment.runner
    if isinstance(runner, MasterRunner):
        # Its workers get it with the first users, beside the options of the command line: only here it is known how
        # many they are, by whichever of Locust's ways they were started.
        options.generators = runner.worker_count
    generators = max(1, getattr(options, "generators", 1))
    if not isinstance(runner, WorkerRunner):
        environment.sluice_tally = Tally(generators, options.arrivals)  # type: ignore[attr-defined]
    if not isinstance(runner, MasterRunner):
        telemetry(environment).start(options.arrivals, generators)


def _stopping(environment: Environment, **_: Any) -> None:
    telemetry(environment).finish()
    if _has_run(environment):
        tally(environment).ended_at = now()


def _stop(environment: Environment, **_: Any) -> None:
    own = telemetry(environment)
    own.finish()
    own.close()
    if _has_run(environment):
        _tell_of_itself(environment)


def _tell_of_itself(environment: Environment) -> None:
    """A process that generates and judges; a master hears of its workers."""
    if not isinstance(environment.runner, MasterRunner):
        tally(environment).hear("this process", telemetry(environment).report(), now())


def _report(client_id: str, data: dict[str, Any]) -> None:
    """What a worker tells the master of itself."""
    del client_id
    if environment := _environments.get("worker"):
        data["streams"] = telemetry(environment).report()._asdict()


def _reported(client_id: str, data: dict[str, Any]) -> None:
    environment = _environments.get("master")
    if environment is not None and _has_run(environment) and "streams" in data:
        tally(environment).hear(client_id, Report.read(data["streams"]), now())


_environments: dict[str, Environment] = {}


def _judge(environment: Environment, **_: Any) -> None:
    """A verdict as the last line, and as the exit code; of the last test, if there were several."""
    if not _has_run(environment):
        return
    if environment.runner is not None and environment.runner.state != STATE_STOPPED:
        # Ctrl-C and SIGTERM: Locust stops the test only after this, so that its end has told nothing yet.
        _tell_of_itself(environment)
    complaints = tally(environment).complaints()
    for complaint in complaints:
        print(f"INVALID: {complaint}")
    if complaints:
        environment.process_exit_code = 1
    else:
        print("VALID: the generator kept up")
