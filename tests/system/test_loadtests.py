"""Locust's clients against the real server: each gets what it came for."""

import contextlib
import json
import os
import signal
import socket
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import yaml

from loadtests.bench.build import build
from loadtests.bench.ports import wait_until_answers
from loadtests.bench.processes import started
from loadtests.bench.surfaces import MODEL
from loadtests.bench.systems import NOTHING_THERE
from tests.support import locust
from tests.support.browser import Browser
from tests.support.chain import Chain, free_port
from tests.support.cuttable import cuttable
from tests.support.gunicorn import Gunicorn
from tests.support.scripted_gateway import RETRY_AFTER_SECONDS, RETRY_MS, STREAM, scripted_gateway

ANY_CORE = max(os.sched_getaffinity(0))


# Locust's workers tell their master of themselves every 3 s.
WORKER_REPORTS_SECONDS = 6.0
TRYING = "tests/support/trying_locustfile.py"


def wait_for_port(port: int) -> bool:
    """Whether anybody listens there within a while."""
    deadline = time.monotonic() + locust.SLACK_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        time.sleep(0.05)
    return False


def with_shape(name: str) -> str:
    """What to give Locust beside its clients, for a load that changes by that curve."""
    return f"{TRYING},loadtests/shapes/{name}.py"


def test_every_client_gets_what_it_came_for(tmp_path: Path) -> None:
    scenarios = ["ShortChat", "MixedSizes", "Batch", "Reconnecting", "Impatient", "OpenAIChat"]
    words = ("-u", "90", "--arrivals", "12", "--processes", "2", "--pace", "60")
    with Gunicorn() as gunicorn:
        run = locust.run(gunicorn.url, tmp_path, scenarios, 8, *words, more=with_shape("poisson"))

    run.check_verdict()
    assert len(list(tmp_path.glob("*.jsonl"))) == 2, run.output
    # 96 are due. More than three deviations of a Poisson count.
    assert 60 <= len(run.records) <= 130
    assert run.outcomes("short chat") == {"finished"}, run.output
    assert run.outcomes("OpenAI chat") == run.outcomes("batch") == run.outcomes("mixed sizes") == {"finished"}
    assert run.outcomes("impatient") == {"finished", "cancelled"}
    back = [record for record in run.of("reconnecting") if record["outcome"] != "open"]
    assert back
    for record in back:
        assert (record["outcome"], record["tokens"], len(record["resumes_ms"])) == ("finished", 80, 2)
    assert {record["tokens"] for record in run.of("batch") if record["outcome"] != "open"} == {50}
    # Every kind of event has a row of its own, beside the requests'.
    kinds = {kind for kind, _ in run.table}
    assert kinds == {"POST", "GET", "TTFT", "GAP", "LARGEST GAP", "TOKENS", "RESUME", "OUTCOME"}
    # As many places as arrivals may need, from the start.
    assert max(run.users) == 90


def test_trying_clients_get_what_they_came_for(tmp_path: Path) -> None:
    """Those that others of their kind give trouble: long answers, slow readers, models that think or stop."""
    config = tmp_path / "models.yaml"
    config.write_text("models: {simulator: [{provider: simulator, retries_max: 0, idle_seconds: 2}]}")
    env = {"SLUICE_CONFIG": str(config), "SLUICE_HEARTBEAT_SECONDS": "1"}
    scenarios = ["Essay", "ShortSlowReader", "ShortSilence", "ShortStall", "ShortIdle"]
    with Gunicorn(env) as gunicorn, cuttable(int(gunicorn.url.rpartition(":")[2])) as counted:
        run = locust.run(counted.url, tmp_path, scenarios, 11, "-u", "5", "-r", "5", "--pace", "300", more=TRYING)
        connections = counted.connections()

    run.check_verdict()
    run.check_table()
    assert run.outcomes("long generation") == {"finished"}, run.output
    assert {record["tokens"] for record in run.of("long generation") if record["outcome"] == "finished"} == {1200}
    # A request of Locust's own takes from asking to the last token, of however long that was silence.
    for scenario in ("long generation", "silent upstream"):
        over = [record for record in run.of(scenario) if record["outcome"] == "finished"]
        took = sum(record["ended_ms"] - record["opened_ms"] for record in over)
        assert run.table["POST", scenario]["total_response_time"] == pytest.approx(took, rel=0.1), scenario
    # Twenty lines a second are five tokens, whatever the server could send.
    slow = [record for record in run.of("slow reader") if record["outcome"] == "cancelled"]
    assert run.outcomes("slow reader") == {"cancelled"}
    assert 5 <= slow[0]["tokens"] <= 50
    # Heartbeats are all that came for three seconds.
    silent = [record for record in run.of("silent upstream") if record["outcome"] == "finished"]
    assert run.outcomes("silent upstream") == {"finished"}, run.output
    assert all(record["heartbeats"] >= 1 and record["tokens"] == 10 for record in silent)
    assert all(record["first_token_ms"] - record["opened_ms"] > 2900 for record in silent)
    # An error and no silence, and what was said before it counts.
    stalled = [record for record in run.of("stalled upstream") if record["outcome"] == "failed"]
    assert run.outcomes("stalled upstream") == {"failed"}, run.output
    assert all(record["tokens"] == 10 for record in stalled)
    # One connection for all of them.
    idle = run.of("idle keep-alive")
    assert run.outcomes("idle keep-alive") == {"finished"}, run.output
    assert len(idle) >= 4
    others = len(run.records) - len(idle)
    assert connections <= others + 1


def test_clients_do_what_the_protocol_asks_of_them(tmp_path: Path) -> None:
    """Cut before the headers, reset, sent away, failed in passing, refused and left in silence: no token is lost."""
    clients = ["Wandering", "WanderingSocket", "Banished", "Late", "Ignored", "Waiting"]
    with scripted_gateway() as gateway:
        run = locust.run(gateway.url, tmp_path, clients, 11, "-u", "8", "-r", "8", more=TRYING)

    run.check_table()
    assert "VALID: the generator kept up" in run.output.splitlines(), run.output
    assert run.exit_code == 1, "some failed"
    for scenario, way in (("wandering", "http"), ("wandering socket", "socket")):
        first, asked = run.of(scenario)[0], gateway.asked[way]
        assert (first["outcome"], first["tokens"], first["resets"]) == ("finished", 4, 1), (run.output, asked)
        # One for each time that it was without its stream, however often it was refused in between.
        assert len(first["resumes_ms"]) == 4
        assert asked[0].key == asked[1].key != ""
        # Whoever is refused its socket has not yet said where it was.
        refused = f"{STREAM}.2.2" if way == "http" else ""
        places = ["", "", f"{STREAM}.2.1", refused, f"{STREAM}.2.2", f"{STREAM}.2.3"]
        assert [each.last_id for each in asked[:6]] == places
        pauses = [after.at - before.at for before, after in pairwise(asked[:6])]
        assert pauses[1] >= RETRY_MS / 1000
        assert min(pauses) >= 0.1
        assert run.outcomes(scenario) == {"finished"}, run.output
    assert gateway.asked["http"][4].at - gateway.asked["http"][3].at >= RETRY_AFTER_SECONDS
    # Who gets nothing twelve times in a row gives up, and can be stopped at any moment of it.
    assert run.outcomes("banished") == {"reconnect"}
    # A connection serves the next request, whenever the body of the last one ended.
    assert run.outcomes("late") == {"finished"}
    assert len(run.of("late")) >= 3
    assert len(gateway.kept) == 1
    # No answer may never begin.
    assert run.outcomes("ignored") == {"silent"}
    assert [record["outcome"] for record in run.of("waiting")] == ["open"]


def test_a_stream_that_is_lost_for_good_is_one_failed_request(tmp_path: Path) -> None:
    """Sent away or cut each time, or going on for ever in whatever way. What breaks its client has failed, too."""
    clients = ["Exiled", "Cut", "Banished", "Held", "HeldBatch", "HeldSocket", "Garbled", "Late"]
    with scripted_gateway() as gateway:
        run = locust.run(gateway.url, tmp_path, clients, 8, "-u", "10", "-r", "10", more=TRYING)

    run.check_table()
    ways = {
        "exiled": ("STREAM", "reconnect"),
        "cut": ("STREAM", "truncated"),
        "banished": ("WS", "reconnect"),
        "held": ("STREAM", "endless"),
        "held batch": ("STREAM", "endless"),
        "held socket": ("WS", "endless"),
    }
    for scenario, (kind, outcome) in ways.items():
        assert run.outcomes(scenario) == {outcome}, run.output
        over = [record for record in run.of(scenario) if record["outcome"] == outcome]
        row = run.table[kind, scenario]
        assert row["num_failures"] == row["num_requests"] == len(over), scenario
        took = sum(record["ended_ms"] - record["opened_ms"] for record in over)
        assert row["total_response_time"] == pytest.approx(took, rel=0.1), scenario
    # Each connection of theirs did what it was to.
    assert run.table["POST", "exiled"]["num_failures"] == run.table["GET", "exiled, resumed"]["num_failures"] == 0
    assert max(record["heartbeats"] for record in run.of("held") + run.of("held socket")) >= 3
    # An error of the client's is no stream that the end of the test cut short.
    assert run.outcomes("garbled") == {"failed"}
    assert len(run.of("garbled")) >= 3
    assert "JSONDecodeError" in run.output
    assert run.outcomes("late") == {"finished"}
    assert {kind for kind, scenario in run.table if scenario == "late"}.isdisjoint({"STREAM", "WS"})
    assert run.exit_code == 1


def test_a_test_that_is_ended_by_a_signal_is_judged_by_what_it_saw(tmp_path: Path) -> None:
    """Of one process, with an end of its own or none, and of several: Locust judges before it stops them."""
    port = str(free_port())
    ways: dict[str, tuple[signal.Signals, list[str]]] = {
        "term": (signal.SIGTERM, []),
        "term before its end": (signal.SIGTERM, ["-t", "60s"]),
        "interrupt": (signal.SIGINT, []),
        "term of several": (signal.SIGTERM, ["--processes", "2", "--master-bind-port", port, "--master-port", port]),
    }
    with scripted_gateway() as gateway:
        begun = {}
        for name, (_, words) in ways.items():
            folder = tmp_path / name
            about = ("--headless", "--host", gateway.url, "--records", str(folder), *locust.files(folder))
            folder.mkdir()
            begun[name] = locust.launch(["Late"], *about, *words, more=TRYING)
        deadline = time.monotonic() + locust.SLACK_SECONDS
        while len(gateway.kept) < len(ways) and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(WORKER_REPORTS_SECONDS)
        for name, (number, _) in ways.items():
            begun[name].send_signal(number)
        runs = {name: locust.finish(process, tmp_path / name, 0) for name, process in begun.items()}

    for run in runs.values():
        run.check_verdict()
        assert run.outcomes("late") == {"finished"}


def test_a_test_in_which_nothing_was_disturbed_is_invalid(tmp_path: Path) -> None:
    """Though something was to be: a command that is not there, and one that does not come back in time."""
    commands = {"absent": "no-such-program-anywhere", "slow": "sleep 60"}
    with scripted_gateway() as gateway:
        begun = {
            name: locust.start(
                *(gateway.url, tmp_path / name, ["Late"], 4.0, "-u", "1", "--disturb", command),
                *("--disturb-after", "1"),
                more=TRYING,
            )
            for name, command in commands.items()
        }
        runs = {name: locust.finish(process, tmp_path / name, 4.0) for name, process in begun.items()}

    told = {name: [line for line in run.output.splitlines() if "VALID" in line] for name, run in runs.items()}
    assert told["absent"][0].startswith("INVALID: not disturbed: 'no-such-program-anywhere': ")
    assert told["slow"] == ["INVALID: not disturbed: the test was over before"]
    assert len(told["absent"]) == 1
    assert {run.exit_code for run in runs.values()} == {1}


def test_a_server_that_hangs_makes_a_test_invalid(tmp_path: Path) -> None:
    with scripted_gateway() as gateway:
        run = locust.run(gateway.url, tmp_path, ["Waiting"], 2, "-u", "1", more=TRYING)

    assert [record["outcome"] for record in run.records] == ["open"]
    assert "INVALID: nothing was measured: none of 1 streams was over before the test" in run.output.splitlines()
    assert "VALID: the generator kept up" not in run.output.splitlines()
    assert run.exit_code == 1


def test_workers_on_several_machines_share_the_arrivals(tmp_path: Path) -> None:
    """As many as were asked for, and not as many for each of them; however long their master then stays on its page."""
    port, seconds, idle_seconds = free_port(), 4.0, 5
    with Gunicorn() as gunicorn, contextlib.ExitStack() as stack:
        about = ("--host", gunicorn.url, "--pace", "100", "--records", str(tmp_path))
        master = ("--master", "--expect-workers", "2", "--master-bind-host", "127.0.0.1")
        page = (
            "--autostart",
            "--autoquit",
            str(idle_seconds),
            "--web-host",
            "127.0.0.1",
            "--web-port",
            str(free_port()),
        )
        load = ("-u", "120", "--arrivals", "30", "-t", f"{seconds:g}s", "--master-bind-port", str(port))
        join = ("--worker", "--master-host", "127.0.0.1", "--master-port", str(port))
        workers = [stack.enter_context(locust.launch(["ShortChat"], *join, more=with_shape("soak"))) for _ in range(2)]
        words = (*about, *master, *page, *load, *locust.files(tmp_path))
        head = stack.enter_context(locust.launch(["ShortChat"], *words, more=with_shape("soak")))
        run = locust.finish(head, tmp_path, seconds + idle_seconds)
        told = [worker.communicate(timeout=locust.SLACK_SECONDS)[0] for worker in workers]

    run.check_verdict()
    assert len(list(tmp_path.glob("*.jsonl"))) == 2, told
    # 120 are due; of each its own, they would be 240.
    assert 80 <= len(run.records) <= 160
    assert run.outcomes("short chat") == {"finished"}, run.output
    assert max(run.users) == 120


def test_clients_live_through_a_deployment_and_the_death_of_a_worker(tmp_path: Path) -> None:
    scenarios = ["ShortChat", "WebSocketChat"]
    seconds = 10.0
    with Chain() as chain, contextlib.ExitStack() as stack:
        begun = {
            what: stack.enter_context(
                locust.start(
                    *(chain.url, tmp_path / what, scenarios, seconds, "-u", "20", "--disturb", what),
                    *("--disturb-after", after, "--state-dir", str(chain.state_dir)),
                    more=with_shape(shape),
                )
            )
            for what, after, shape in (("kill", "3", "ramp"), ("deploy", "5", "spike"))
        }
        runs = {what: locust.finish(process, tmp_path / what, seconds) for what, process in begun.items()}

    for what, said in (("kill", "disturbed: KILL to worker"), ("deploy", "disturbed: HUP to Gunicorn")):
        run = runs[what]
        assert said in run.output
        run.check_verdict()
        run.check_table()
        for scenario in ("short chat", "WebSocket chat"):
            assert run.outcomes(scenario) == {"finished"}, run.output
    # None of them loses its connection by itself.
    assert any(record["resumes_ms"] for run in runs.values() for record in run.records)
    ramp, spike = runs["kill"].users, runs["deploy"].users
    assert ramp[0] < ramp[len(ramp) // 2] < max(ramp) <= 20
    assert max(spike) == 20
    assert 4 in spike[: spike.index(20)]
    assert 4 in spike[spike.index(20) :]


def test_the_page_shows_the_charts_of_streams(tmp_path: Path, browser: Browser) -> None:
    port, seconds = free_port(), 9.0
    words = ("-u", "10", "--pace", "60", "--web-port", str(port))
    with (
        Gunicorn() as gunicorn,
        locust.start(
            gunicorn.url, tmp_path, ["ShortChat"], seconds, *words, more=with_shape("steps"), page=True
        ) as shown,
    ):
        assert wait_for_port(port), "no page"
        browser.open(f"http://127.0.0.1:{port}/streams")
        titles = browser.wait_for(DRAWN, "charts with points")
        run = locust.finish(shown, tmp_path, seconds)

    assert {"short chat: TTFT", "short chat: GAP", "short chat: LARGEST GAP"} <= set(titles)
    assert all(f"127.0.0.1:{port}/" in url for url in browser.requests)
    run.check_verdict()
    run.check_table()
    # Looked at once a second, a step may be missed.
    assert len({2, 4, 6, 8} & set(run.users)) >= 3, run.users
    assert max(run.users) == 10


# Titles of the charts, once each has two moments to draw a line between, with real percentiles.
DRAWN = """(() => {
    const charts = [...document.querySelectorAll("#charts > div")];
    const long = (line) => line.y.filter((y) => y !== null).length >= 2;
    const drawn = charts.filter((chart) => chart.data && chart.data.every(long));
    return drawn.length >= 3 && drawn.map((chart) => chart.layout.title.text);
})()"""


def test_a_chat_over_websockets_keeps_its_connection_for_five_answers(tmp_path: Path) -> None:
    words = ("-u", "4", "--pace", "100")
    with Gunicorn() as gunicorn:
        run = locust.run(gunicorn.url, tmp_path, ["WebSocketChat"], 8, *words, more=with_shape("soak"))
        lines = [json.loads(line) for line in gunicorn.log.splitlines() if line.startswith("{")]

    run.check_verdict()
    run.check_table()
    sockets = [line["streams"] for line in lines if line["event"] == "socket"]
    answers = [record for record in run.records if record["outcome"] == "finished"]
    assert run.outcomes("WebSocket chat") == {"finished"}, run.output
    assert len(answers) >= 12
    for record in answers:
        assert 20 <= record["tokens"] <= 100
        # Of a stream that nobody cut: as many gaps as there are pairs of tokens, all in its own time.
        assert len(record["gaps_ms"]) == record["tokens"] - 1
        assert sum(record["gaps_ms"]) <= record["ended_ms"] - record["first_token_ms"] + 1
        assert record["stream_id"]
    # What the server says of it: five answers each, but for those that the end cut short.
    assert max(sockets) == 5
    assert sum(sockets) >= len(answers) == len({record["stream_id"] for record in answers})
    assert run.table["WS", "WebSocket chat"]["num_requests"] == len(answers)
    assert max(run.users) == min(run.users[1:-1]) == 4


def test_locust_says_of_each_token_when_it_came_by_the_clock_of_who_sent_it(tmp_path: Path) -> None:
    """The origin writes its clock into every token, so one load tells both; waiting for 1,024 bytes would show."""
    programs, port, tokens, log = build(), free_port(), 40, tmp_path / "origin.log"
    config = tmp_path / "models.yaml"
    upstream = {"provider": "openai", "base_url": f"http://127.0.0.1:{port}/v1"}
    config.write_text(yaml.safe_dump({"models": {MODEL: [upstream]}}))
    command = [str(programs / "origin"), "--port", str(port), "--tokens", str(tokens), "--rate", "20"]
    words = ("-u", "20", "-r", "20", "--arrivals", "4", "--pace", "0", "--model", MODEL)
    with started(command, ANY_CORE, log) as origin, Gunicorn({"SLUICE_CONFIG": str(config)}) as gunicorn:
        wait_until_answers(port, "/", NOTHING_THERE, origin, log)
        more = "tests/support/stamped_locustfile.py"
        run = locust.run(gunicorn.url, tmp_path / "records", ["StampedChat"], 9, *words, more=more)

    lines = map(json.loads, (tmp_path / "records" / "sent.stamps").read_text().splitlines())
    sent = {line["stream_id"]: np.array(line["sent_ms"]) for line in lines}
    whole = [record for record in run.records if record["outcome"] == "finished"]
    assert len(whole) >= 10, run.output
    delays, gap_errors = [], []
    for record in whole:
        stamps = sent[record["stream_id"]]
        assert record["tokens"] == len(stamps) == tokens
        arrived = record["first_token_ms"] + np.cumsum([0.0, *record["gaps_ms"]])
        assert record["opened_ms"] <= stamps[0]
        delays += list(arrived - stamps)
        gap_errors += list(np.abs(np.diff(arrived) - np.diff(stamps)))
    # Times are rounded to a microsecond; what is between them is Sluice, and what else the machine does.
    assert min(delays) > -0.1
    # Tokens that were held for others would be as late as those are apart: 50 ms.
    assert np.median(delays) < 50
    assert np.median(gap_errors) < 15
