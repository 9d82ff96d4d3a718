"""Locust's clients against the real server: each ends as it should, and measures what another generator measures."""

import os
from pathlib import Path

import numpy as np
import pytest
import yaml

from loadtests.bench.build import build
from loadtests.bench.generator import Demand, generating
from loadtests.bench.ports import wait_until_answers
from loadtests.bench.processes import started
from loadtests.bench.surfaces import MODEL, SURFACES
from loadtests.bench.systems import NOTHING_THERE
from tests.support import locust
from tests.support.chain import free_port
from tests.support.gunicorn import Gunicorn

ANY_CORE = max(os.sched_getaffinity(0))


def test_every_client_gets_what_it_came_for(tmp_path: Path) -> None:
    scenarios = ["ShortChat", "MixedSizes", "Batch", "Reconnecting", "Impatient", "OpenAIChat"]
    with Gunicorn() as gunicorn:
        run = locust.run(gunicorn.url, tmp_path, scenarios, 8, "-u", "18", "-r", "18", "--pace", "60")

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


def test_arrivals_come_as_often_as_was_asked_from_two_processes(tmp_path: Path) -> None:
    with Gunicorn() as gunicorn:
        words = ("-u", "60", "-r", "60", "--arrivals", "10", "--processes", "2", "--pace", "100")
        run = locust.run(gunicorn.url, tmp_path, ["ShortChat"], 8, *words)

    assert len(list(tmp_path.glob("*.jsonl"))) == 2, run.output
    # 80 are due; those of the last second are not over yet. Three standard deviations of a Poisson count.
    assert len(run.records) == pytest.approx(70, abs=27)
    assert run.outcomes("short chat") == {"finished"}


@pytest.mark.parametrize("strict", [False, pytest.param(True, marks=pytest.mark.soak)], ids=["pace", "all"])
def test_locust_sees_what_the_generator_in_c_sees(tmp_path: Path, strict: bool) -> None:
    """Both load the same server at the same time, ten streams a second, at random moments.

    Users of a closed model begin in step, and would wait for each other. Where other tests run at the same time,
    whoever gets the core later measures more, so only the pace can be compared; `make soak` compares all.
    """
    programs, origin_port = build(), free_port()
    config = tmp_path / "models.yaml"
    upstream = {"provider": "openai", "base_url": f"http://127.0.0.1:{origin_port}/v1"}
    config.write_text(yaml.safe_dump({"models": {MODEL: [upstream]}}))
    log, seconds = tmp_path / "origin.log", 20.0 if strict else 6.0
    command = [str(programs / "origin"), "--port", str(origin_port), "--tokens", "40", "--rate", "20"]
    with (
        started(command, ANY_CORE, log) as origin,
        Gunicorn({"SLUICE_CONFIG": str(config)}) as gunicorn,
    ):
        wait_until_answers(origin_port, "/", NOTHING_THERE, origin, log)
        port = int(gunicorn.url.rpartition(":")[2])
        words = ("-u", "60", "-r", "60", "--arrivals", "10", "--pace", "0", "--model", MODEL)
        other = locust.start(gunicorn.url, tmp_path / "records", ["OpenAIChat"], seconds + 6, *words)
        demand = Demand(60, rate=20, tokens=40, seconds=seconds, arrivals_per_second=10, seed=1)
        with generating(programs, ANY_CORE, port, SURFACES["openai"], demand) as generator:
            generator.wait_for_window()
            figures = generator.figures()
        run = locust.finish(other, tmp_path / "records", seconds + 6)

    assert figures.errors() == {}
    assert run.outcomes("OpenAI chat") == {"finished"}, run.output
    first = [record["first_token_ms"] - record["scheduled_ms"] for record in run.records]
    gaps = [gap for record in run.records for gap in record["gaps_ms"]]
    pairs = [(50, figures.gap_ms.p50, gaps)]
    if strict:
        pairs += [(99, figures.gap_ms.p99, gaps), (50, figures.ttft_ms.p50, first)]
    for share, expected, values in pairs:
        assert np.percentile(values, share) == pytest.approx(expected, rel=0.10, abs=3)
