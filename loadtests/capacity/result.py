"""capacity.json: what a sweep comes to, as its schema describes it. Only a valid and whole one is written there."""

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import msgspec

from app.capacity import FILE
from app.version import VERSION
from loadtests.bench.ours import models_file
from loadtests.bench.processes import REPOSITORY
from loadtests.bench.report import machine
from loadtests.bench.surfaces import Surface
from loadtests.capacity import limits, usl
from loadtests.capacity.knee import knee
from loadtests.capacity.objectives import SMOKE, Objectives
from loadtests.capacity.point import Cost, Point
from loadtests.capacity.sweep import Sweep, curve
from loadtests.capacity.verdict import reasons

SCHEMA = FILE.with_name("capacity.schema.json")
# Of what people run: the product behind NGINX, as it comes. The others tell what one part of it costs.
SYSTEM = "nginx"
PROGRAM_SECONDS_MAX = 5
LIBRARIES = ("gunicorn", "uvicorn", "uvicorn-worker", "uvloop", "lmdb")
# Of fewer, nobody knows whether the number was that of one lucky start.
REPETITIONS_MIN = 3
# What changes the figures: the product's settings, where spans go, and what Gunicorn reads beside its file.
SETTINGS = ("SLUICE_", "OTEL_", "GUNICORN_")


class Question(NamedTuple):
    """What was asked: the profile and its objectives, on which route, of which system, how often, by which command.

    `target` is the address of one that runs elsewhere, `version` what it says it is.
    """

    profile: str
    due: Objectives
    system: str
    surface: Surface
    repetitions: int
    generator: str
    command: str
    target: str = ""
    version: str = ""


class Answer(NamedTuple):
    """The document, and why it cannot be believed, if so. Of a `target` elsewhere, a worker is all of it."""

    document: dict[str, Any]
    reasons: list[str]
    question: Question

    @property
    def target(self) -> str:
        return self.question.target

    @property
    def valid(self) -> bool:
        return not self.reasons

    @property
    def title(self) -> str:
        of = f"streams at {self.target}" if self.target else "streams per worker"
        return f"{self.document['streams_per_worker']} {of}"

    def lacks(self, file: Path) -> str:
        """What must be known before it is written to `file`; nothing when all is.

        Every limit follows from the repository's own capacity.json, which therefore asks for more than another file.
        """
        if self.target:
            return "the figures of one worker on one core, with its share of NGINX"
        missing = [name for name in Cost.__struct_fields__ if self.document[name] is None]
        if file.resolve() == FILE:
            if self.question.system != SYSTEM:
                missing.append(f"the system that the limits are of, --system {SYSTEM}")
            if self.question.repetitions < REPETITIONS_MIN:
                missing.append(f"{REPETITIONS_MIN} repetitions")
            if self.question.profile == SMOKE:
                missing.append(f"objectives that users are promised (those of the profile {SMOKE!r} are the tests')")
        return ", ".join(missing)


def answer(found: Sweep, question: Question) -> Answer:
    """All that capacity.json says."""
    complaints = reasons(found.deciding(), question.due)
    if found.outside:
        complaints.append(found.outside)
    elif found.confirmed is None:
        complaints.append("no load near the boundary kept its objectives in the open model")
    streams = max(1, found.confirmed or int(found.boundary.low))
    workers = 1 if question.target else limits.WORKERS_PER_POD
    pod = streams * workers
    utilisation = round(limits.utilisation_target(), 2)
    document = {
        "$schema": SCHEMA.name,
        "version": 1,
        "status": "provisional" if complaints else "measured",
        "measured_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "command": question.command,
        "streams_per_worker": streams,
        "streams_per_worker_interval": [round(found.boundary.low, 1), round(found.boundary.high, 1)],
        "streams_per_worker_missed": sorted({point.streams for point in found.not_carried}),
        "repetitions": question.repetitions,
        "workers_per_pod": workers,
        "streams_per_pod": pod,
        "utilisation_target": utilisation,
        "admission_streams_per_worker": streams,
        "hpa_target_streams_per_pod": limits.hpa_target(pod, utilisation),
        "nginx_streams_max": limits.nginx_streams_max(pod),
        "tokens_per_second": question.due.tokens_per_second,
        "tokens_per_stream": question.due.tokens_per_stream,
        **_costs(found.carried or found.points),
        "objectives": {
            "profile": question.profile,
            **{
                name: value
                for name, value in msgspec.structs.asdict(question.due).items()
                if not name.startswith("tokens_")
            },
        },
        **_shape(found),
        "verdict": {"valid": not complaints, "reasons": complaints},
        "machine": question.target or f"{machine()}, {os.cpu_count()} cores",
        "generator": question.generator,
        "versions": {"sluice": question.version} if question.target else versions(),
        "config_sha256": config_sha256(question, os.environ),
    }
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(document)
    return Answer(document, complaints, question)


def write(found: Answer, file: Path) -> None:
    """Leaves the document in `file`, unless it cannot be believed or lacks something."""
    if found.valid and not found.lacks(file):
        file.write_text(json.dumps(found.document, indent=2) + "\n")


def config_sha256(question: Question, environment: Mapping[str, str]) -> str:
    """Of what changes the figures and is not a version: two results compare only where this is the same."""
    said = {
        "demand": [question.profile, msgspec.to_builtins(question.due)],
        "asked": question.surface._asdict(),
        "system": question.target or question.system,
        # Those of a target elsewhere are not known here. The origin's port differs from run to run.
        "models": None if question.target else models_file(origin_port=0),
        "settings": {name: value for name, value in environment.items() if name.startswith(SETTINGS)},
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def versions() -> dict[str, str]:
    """What was measured, and what it ran on."""
    commit = _said(["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty"])
    return {
        "sluice": VERSION,
        "commit": commit or "unknown",
        "python": platform.python_version(),
        "nginx": _said(["nginx", "-v"]).rpartition("/")[2] or "unknown",
        **{name: version(name) for name in LIBRARIES},
    }


def _said(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROGRAM_SECONDS_MAX, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (done.stdout + done.stderr).strip() if done.returncode == 0 else ""


def _costs(points: Sequence[Point]) -> dict[str, float | None]:
    """The mean of the points' costs; None where none could be seen."""
    return {
        name: _mean([getattr(point.cost, name) for point in points]) for name in type(points[0].cost).__struct_fields__
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(max(0.0, sum(known) / len(known)), 1) if known else None


def _shape(found: Sweep) -> dict[str, Any]:
    """What the curve of throughput says beside the objectives."""
    streams, throughput = curve(found.points)
    bend = knee(streams, throughput)
    try:
        fitted = usl.fit(streams, throughput)
    except usl.TooFewPoints:
        law = peak = None
    else:
        peak = fitted.peak
        law = {
            "lambda": fitted.lam,
            "sigma": fitted.sigma,
            "kappa": fitted.kappa,
            "sigma_interval": list(fitted.sigma_interval),
            "kappa_interval": list(fitted.kappa_interval),
            "r_squared": fitted.r_squared,
            "streams_measured_max": int(fitted.streams_max),
        }
    kept = max(1, int(found.boundary.streams))
    return {"knee": {"objectives": kept, "usl": peak, "curve": bend}, "usl": law}
