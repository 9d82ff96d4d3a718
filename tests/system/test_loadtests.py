"""Locust's clients against the real server: each gets what it came for."""

from pathlib import Path

from tests.support import locust
from tests.support.gunicorn import Gunicorn


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
