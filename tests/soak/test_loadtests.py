"""Two generators that share no code measure the same server, and agree within 10 % or 3 ms."""

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
from loadtests.capacity.records import read_records
from loadtests.capacity.verdict import LAG_P99_MS_MAX
from tests.support import locust
from tests.support.chain import free_port
from tests.support.gunicorn import Gunicorn

ANY_CORE = max(os.sched_getaffinity(0))
WARM_UP_SECONDS = 3.0


@pytest.mark.soak
@pytest.mark.timeout(240)
def test_locust_sees_what_the_generator_in_c_sees(tmp_path: Path) -> None:
    """Both load the same server at the same time, ten streams a second, at random moments.

    Users of a closed model begin in step, and would wait for each other.
    """
    programs, origin_port = build(), free_port()
    config = tmp_path / "models.yaml"
    upstream = {"provider": "openai", "base_url": f"http://127.0.0.1:{origin_port}/v1"}
    config.write_text(yaml.safe_dump({"models": {MODEL: [upstream]}}))
    records = tmp_path / "load.jsonl"
    log, seconds = tmp_path / "origin.log", 20.0
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
        with generating(programs, ANY_CORE, port, SURFACES["openai"], demand, records) as generator:
            generator.wait_for_window()
            figures = generator.figures()
        run = locust.finish(other, tmp_path / "records", seconds + 6)

    assert "INVALID" not in run.output, f"this machine was too busy for Locust:\n{run.output}"
    assert figures.lag_ms.p99 <= LAG_P99_MS_MAX, "this machine was too busy for the generator in C"
    assert figures.errors() == {}
    assert run.outcomes("OpenAI chat") == {"finished"}, run.output
    # The generator in C leaves out its first seconds, and so must this: Locust is busy with starting its users.
    begin = min(record["scheduled_ms"] for record in run.records) + 1000 * WARM_UP_SECONDS
    steady = [record for record in run.records if record["scheduled_ms"] >= begin]
    first = [record["first_token_ms"] - record["scheduled_ms"] for record in steady]
    gaps = [gap for record in steady for gap in record["gaps_ms"]]
    pairs = [
        (50, figures.gap_ms.p50, gaps),
        (99, figures.gap_ms.p99, gaps),
        (50, figures.ttft_ms.p50, first),
        (95, _p95(records), first),
    ]
    for share, expected, values in pairs:
        assert np.percentile(values, share) == pytest.approx(expected, rel=0.10, abs=3)


def _p95(file: Path) -> float:
    begun = [record.ttft_ms for record in read_records(file) if record.scheduled_ms >= 0 and record.ttft_ms is not None]
    return float(np.percentile(begun, 95))
