"""Two generators that share no code measure the same server, and agree within 10 % or 3 ms."""

import os
from collections.abc import Sequence
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
from tests.soak.results import generator_row
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
    log, seconds = tmp_path / "origin.log", 60.0
    command = [str(programs / "origin"), "--port", str(origin_port), "--tokens", "40", "--rate", "20"]
    with (
        started(command, ANY_CORE, log) as origin,
        Gunicorn({"SLUICE_CONFIG": str(config)}) as gunicorn,
    ):
        wait_until_answers(origin_port, "/", NOTHING_THERE, origin, log)
        port = int(gunicorn.url.rpartition(":")[2])
        words = ("-u", "60", "-r", "60", "--arrivals", "10", "--pace", "0", "--model", MODEL)
        demand = Demand(60, rate=20, tokens=40, seconds=seconds, arrivals_per_second=10, seed=1)
        with locust.start(gunicorn.url, tmp_path / "records", ["OpenAIChat"], seconds + 6, *words) as other:
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
    first = [record["first_token_ms"] - record["scheduled_ms"] for record in steady if record["first_token_ms"]]
    gaps = [gap for record in steady for gap in record["gaps_ms"]]
    window = [record for record in read_records(records) if record.scheduled_ms >= 0]
    begun = [record.ttft_ms for record in window if record.ttft_ms is not None]
    ours, theirs = percentiles(first, FIRST_TOKENS), percentiles(begun, FIRST_TOKENS)
    our_gaps, their_gaps = percentiles(gaps, GAPS), [figures.gap_ms.p50, figures.gap_ms.p99, figures.gap_ms.p999]
    # Told before they are compared: what does not agree is worth more than a row of the last time that it did.
    print("Locust:", ours, our_gaps, "the generator in C:", theirs, their_gaps)
    assert figures.ttft_ms.p50 == pytest.approx(theirs[0], abs=0.2)
    for seen, expected in zip([*ours[:2], *our_gaps[:2]], [*theirs[:2], *their_gaps[:2]], strict=True):
        assert seen == pytest.approx(expected, rel=0.10, abs=3)
    generator_row("Locust", len(first), ours, our_gaps)
    generator_row("the generator in C", len(begun), theirs, their_gaps)


FIRST_TOKENS = (50, 95, 99)
GAPS = (50, 99, 99.9)


def percentiles(values: Sequence[float], shares: Sequence[float]) -> list[float]:
    return [float(np.percentile(values, share)) for share in shares]
