"""Locust's clients against the real server: each gets what it came for."""

import json
import os
from pathlib import Path

import numpy as np
import yaml

from loadtests.bench.build import build
from loadtests.bench.ports import wait_until_answers
from loadtests.bench.processes import started
from loadtests.bench.surfaces import MODEL
from loadtests.bench.systems import NOTHING_THERE
from tests.support import locust
from tests.support.chain import free_port
from tests.support.gunicorn import Gunicorn

ANY_CORE = max(os.sched_getaffinity(0))


def test_every_client_gets_what_it_came_for(tmp_path: Path) -> None:
    scenarios = ["ShortChat", "MixedSizes", "Batch", "Reconnecting", "Impatient", "OpenAIChat"]
    arrivals = ("-u", "90", "-r", "90", "--arrivals", "12", "--processes", "2")
    with Gunicorn() as gunicorn:
        run = locust.run(gunicorn.url, tmp_path, scenarios, 8, *arrivals, "--pace", "60")

    assert len(list(tmp_path.glob("*.jsonl"))) == 2, run.output
    # 96 are due; those that are not over at the end are not told. More than three deviations of a Poisson count.
    assert 40 <= len(run.records) <= 130
    assert run.outcomes("short chat") == {"finished"}, run.output
    assert run.outcomes("OpenAI chat") == run.outcomes("batch") == run.outcomes("mixed sizes") == {"finished"}
    assert run.outcomes("impatient") <= {"finished", "cancelled"}
    back = [record for record in run.records if record["scenario"] == "reconnecting"]
    assert back
    for record in back:
        assert (record["outcome"], record["tokens"], len(record["resumes_ms"])) == ("finished", 80, 2)
    batches = [record for record in run.records if record["scenario"] == "batch"]
    assert {record["tokens"] for record in batches} == {50}
    # Every kind of event has a row of its own, beside the requests'.
    for kind in ("TTFT ", "GAP ", "LARGEST GAP", "TOKENS ", "RESUME ", "OUTCOME"):
        assert any(line.startswith(kind) for line in run.output.splitlines()), kind


def test_a_chat_over_websockets_keeps_its_connection_for_five_answers(tmp_path: Path) -> None:
    with Gunicorn() as gunicorn:
        run = locust.run(gunicorn.url, tmp_path, ["WebSocketChat"], 8, "-u", "4", "-r", "4", "--pace", "100")
        lines = [json.loads(line) for line in gunicorn.log.splitlines() if line.startswith("{")]

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
    assert any(line.startswith("WS ") for line in run.output.splitlines()), run.output


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
