"""The number of streams, as consumers read it and as its schema describes it."""

import json
from pathlib import Path

import jsonschema
import msgspec
import pytest

from app.capacity import FILE, capacity
from loadtests.capacity.limits import hpa_target, nginx_streams_max

DOCUMENT = json.loads(FILE.read_text())
SCHEMA = json.loads(FILE.with_name("capacity.schema.json").read_text())


def test_the_committed_file_is_what_its_schema_says() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.Draft202012Validator(SCHEMA).validate(DOCUMENT)


def test_every_number_in_it_follows_from_the_streams_of_one_worker() -> None:
    known = capacity()

    assert known.streams_per_pod == known.streams_per_worker * known.workers_per_pod
    assert known.admission_streams_per_worker == known.streams_per_worker
    assert known.hpa_target_streams_per_pod == hpa_target(known.streams_per_pod, known.utilisation_target)
    assert known.nginx_streams_max == nginx_streams_max(known.streams_per_pod)


def test_the_autoscaler_acts_before_admission_and_admission_before_nginx() -> None:
    known = capacity()

    admitted = known.admission_streams_per_worker * known.workers_per_pod
    assert known.hpa_target_streams_per_pod < admitted < known.nginx_streams_max


def test_a_measured_file_without_a_valid_verdict_is_not_one() -> None:
    document = DOCUMENT | {"status": "measured", "verdict": {"valid": False, "reasons": ["the generator was busy"]}}

    errors = [error.json_path for error in jsonschema.Draft202012Validator(SCHEMA).iter_errors(document)]

    assert errors == ["$.verdict.valid"]


def test_a_file_that_lacks_a_number_is_refused_with_its_name(tmp_path: Path) -> None:
    file = tmp_path / "capacity.json"
    file.write_text('{"streams_per_worker": 384}')

    with pytest.raises(msgspec.ValidationError, match="workers_per_pod"):
        capacity(file)
