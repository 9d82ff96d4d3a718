"""The commands of the runbooks, run where they can be, and else held against what they name."""

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import gunicorn.arbiter
import pytest
import yaml

from tests.ops.test_runbooks import FOLDER
from tests.support.launched import HOME
from tests.support.manifests import Manifest, containers, named, of_kind, overlay, pod_of

NAMES = (FOLDER / "README.md").read_text()
COMMANDS = [
    (path.stem, line)
    for path in sorted(FOLDER.glob("*.md"))
    for block in re.findall(r"^```sh\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
    if not line.startswith("#")
]
# A way to run Sluice, by what its lines are read with, and that of README which defines the names for it.
WAYS = {
    found[1]: block
    for block in re.findall(r"^```sh\n(.*?)^```$", NAMES, re.MULTILINE | re.DOTALL)
    if (found := re.search(r"^logs\(\) \{ (\w+)", block, re.MULTILINE))
}
LOGS = [(name, line) for name, line in COMMANDS if line.startswith("logs ")]
SECONDS_MAX = 30


def app_lines() -> Iterator[str]:
    """One of each kind: what the app, Gunicorn and a refused start write."""
    words = {
        event
        for path in (HOME / "app").rglob("*.py")
        for event in re.findall(r"\.(?:info|warning|error|exception)\(\s*\"([^\"]+)\"", path.read_text())
    }
    words |= set(re.findall(r"log\.\w+\(\"([^\"]+)\"", Path(gunicorn.arbiter.__file__).read_text()))
    for word in sorted(words):
        yield json.dumps({"timestamp": "2026-01-01T00:00:00Z", "level": "info", "event": word}, separators=(",", ":"))
    yield "sluice: SLUICE_HEARTBEAT_SECONDS: Input should be greater than 0 (it is '0')"


def access_line(**values: str) -> str:
    """A line of NGINX's access log, by the format that it has."""
    text = (HOME / "nginx/snippets/log.conf").read_text()
    line = "".join(re.findall(r"^ +'(.+?)';?$", text, re.MULTILINE))
    return re.sub(r"\$(\w+)", lambda found: values.get(found[1], ""), line)


def run(way: str, line: str, folder: Path, said: str) -> list[str]:
    """What a command prints where README's names are defined for that way, and everybody whom they ask says `said`."""
    (folder / "said").write_text(said)
    programs = folder / "programs"
    programs.mkdir(exist_ok=True)
    for name in ("docker", "journalctl", "kubectl"):
        (programs / name).write_text(f'#!/bin/sh\ncat "{folder}/said"\n')
        (programs / name).chmod(0o755)
    (folder / "sluice.log").write_text(said)
    (folder / "var/nginx").mkdir(parents=True, exist_ok=True)
    (folder / "var/nginx/access.log").write_text(said)
    (folder / "var/nginx/error.log").touch()
    script = f'PATH="{programs}:$PATH"\n{WAYS[way]}\n{line}\n'
    result = subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, text=True, timeout=SECONDS_MAX)
    return result.stdout.splitlines()


def test_names_are_defined_for_every_way_to_run_it() -> None:
    assert set(WAYS) == {"grep", "journalctl", "docker", "kubectl"}
    for block in WAYS.values():
        assert re.findall(r"^(\w+)\(\) \{", block, re.MULTILINE)[:3] == ["logs", "edge", "redis"]


def test_every_command_is_one_that_a_shell_can_read() -> None:
    for name, line in COMMANDS:
        result = subprocess.run(["bash", "-n", "-c", line], capture_output=True, text=True, timeout=SECONDS_MAX)
        assert result.returncode == 0, f"{name}: {result.stderr}"


@pytest.mark.parametrize("way", WAYS)
def test_a_runbook_s_own_words_find_lines_that_are_written(way: str, tmp_path: Path) -> None:
    lines = list(app_lines())
    assert len(LOGS) >= 6
    for name, command in LOGS:
        flags = [word for word in shlex.split(command)[1:] if re.fullmatch("-[a-zA-Z]+", word)]
        words = [word for word in shlex.split(command)[1:] if word not in flags]
        case = re.IGNORECASE if any("i" in flag for flag in flags) else re.NOFLAG
        for part in [part for word in words for part in word.split("|")]:
            assert any(re.search(part, line, case) for line in lines), f"{name}: nobody writes {part!r}"
        expected = [line for line in lines if any(re.search(word, line, case) for word in words)]
        assert run(way, command, tmp_path, "\n".join(lines) + "\n") == expected, name


@pytest.mark.parametrize("way", [way for way in WAYS if way != "journalctl"])
def test_what_nginx_saw_is_counted_by_status_and_its_own_words_are_found(way: str, tmp_path: Path) -> None:
    """Under systemd NGINX's files are at a fixed place; the commands behind `edge` are these."""
    said = [
        access_line(status="503", upstream_status="502, 502"),
        access_line(status="503", upstream_status="502, 502"),
        access_line(status="500", upstream_status="500"),
        access_line(status="200", upstream_status="200"),
        "2026/01/01 00:00:00 [emerg] 7#7: bind() to 127.0.0.1:8080 failed",
    ]
    ((_, count),) = [command for command in COMMANDS if command[1].startswith("edge | sed")]
    ((_, words),) = [command for command in COMMANDS if command[1].startswith("edge | grep")]

    counted = run(way, count, tmp_path, "\n".join(said) + "\n")

    assert [line.split(maxsplit=1) for line in counted] == [["1", "500 (500)"], ["2", "503 (502, 502)"]]
    assert run(way, words, tmp_path, "\n".join(said) + "\n") == said[-1:]


def carries(manifests: list[Manifest], kind: str, label: tuple[str, str]) -> bool:
    """Whether one of that kind has the label; pods are those of the Deployments."""
    if kind == "pods":
        labels = [one["spec"]["template"]["metadata"]["labels"] for one in of_kind(manifests, "Deployment")]
    else:
        labels = [one["metadata"].get("labels", {}) for one in manifests if f"{one['kind'].lower()}s" == kind]
    return any(label in one.items() for one in labels)


def test_what_is_asked_of_a_cluster_is_there() -> None:
    manifests = list(overlay("production"))
    pod = pod_of(named(manifests, "Deployment", "sluice"))
    asked = [line for _, line in COMMANDS if "kubectl " in line]
    assert asked
    for line in asked:
        for key, value in re.findall(r" -l ([\w./-]+)=([\w-]+)", line):
            kinds = re.search(r" get ([\w,]+)", line)
            for kind in kinds[1].split(",") if kinds else ["pods"]:
                assert carries(manifests, kind, (key, value)), line
        for container in re.findall(r"(?:deploy/sluice|component=api) -c (\w+)", line):
            assert container in {one["name"] for one in containers(pod)}, line
        for path in re.findall(r"-- df -h (\S+)", line):
            (app,) = [one for one in containers(pod) if one["name"] == "app"]
            assert path in {mount["mountPath"] for mount in app["volumeMounts"]}, line
    for number in re.findall(r"port-forward svc/sluice \d+:(\d+)", NAMES):
        assert int(number) in {port["port"] for port in named(manifests, "Service", "sluice")["spec"]["ports"]}


def test_the_autoscaler_s_figures_are_asked_for_where_they_are() -> None:
    text = (FOLDER / "SluiceAutoscalerBlind.md").read_text()
    (scaler,) = of_kind(overlay("production"), "HorizontalPodAutoscaler")
    assert {metric["type"] for metric in scaler["spec"]["metrics"]} == {"External"}
    (asked,) = re.findall(r"/apis/external\.metrics\.k8s\.io/v1beta1/namespaces/\S+/(\w+)", text)
    assert asked in {metric["external"]["metric"]["name"] for metric in scaler["spec"]["metrics"]}
    assert set(re.findall(r"FailedGet\w+", text)) == {"FailedGetExternalMetric"}


def test_what_is_asked_of_compose_is_a_service_of_it() -> None:
    services = yaml.safe_load((HOME / "deploy/compose.yaml").read_text())["services"]
    asked = [line for _, line in COMMANDS if "docker compose" in line]
    for line in asked:
        (service,) = re.findall(r" (?:exec -T|--since 30m) ([\w-]+)", line)
        assert service in services, line
    assert len(asked) >= 4


def test_every_make_target_in_a_runbook_is_one() -> None:
    targets = set(re.findall(r"^([\w-]+):", (HOME / "Makefile").read_text(), re.MULTILINE))
    for path in FOLDER.glob("*.md"):
        assert set(re.findall(r"`make ([\w-]+)", path.read_text())) <= targets, path.name
