"""The images are built, and run as a pod would run them: another user than root, on a root that nobody can write."""

import http.client
import importlib.metadata
import json
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from packaging.utils import canonicalize_name

from app.version import VERSION
from tests.support.chain import free_port
from tests.support.dockerfile import stages
from tests.support.images import UID, Images, missing, run_in
from tests.support.launched import HOME

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(missing()), reason=missing() or "-"),
]
WRITABLE = ("/run/sluice", "/var/lib/sluice", "/run/sluice-metrics")
START_SECONDS_MAX = 60.0
REVISION = "0123456789abcdef0123456789abcdef01234567"
# Of the base that stands for NGINX's own image.
DEBIANS_NGINX = "1.22.1"


@pytest.fixture(scope="module")
def images() -> Iterator[Images]:
    with Images() as made:
        for target in ("app", "nginx"):
            made.build(target, VERSION=VERSION, REVISION=REVISION)
        yield made


def words(images: Images, target: str, part: str) -> list[str]:
    """A command of the image."""
    return images.configuration(target, f"{{{{range .OCIv1.Config.{part}}}}}{{{{println .}}}}{{{{end}}}}").splitlines()


def environment(images: Images, target: str) -> dict[str, str]:
    """What the image sets."""
    lines = images.configuration(target, "{{range .OCIv1.Config.Env}}{{println .}}{{end}}").splitlines()
    return dict(line.split("=", 1) for line in lines)


def labels(images: Images, target: str) -> dict[str, str]:
    """OCI's, by their short names."""
    prefix = "org.opencontainers.image."
    template = "{{range $name, $value := .OCIv1.Config.Labels}}{{$name}}={{$value}}{{println}}{{end}}"
    lines = [line for line in images.configuration(target, template).splitlines() if line.startswith(prefix)]
    return dict(line.removeprefix(prefix).split("=", 1) for line in lines)


def until_ready(port: int, processes: list["subprocess.Popen[bytes]"], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while True:
        assert all(process.poll() is None for process in processes), log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.1)


def test_both_images_together_serve_a_stream_with_a_read_only_root_and_a_full_tmp(
    images: Images, tmp_path: Path
) -> None:
    port, log = free_port(), tmp_path / "log"
    entry, command = words(images, "app", "Entrypoint"), words(images, "app", "Cmd")
    nginx = words(images, "nginx", "Entrypoint") + words(images, "nginx", "Cmd")
    # What a ConfigMap would bring.
    source = tmp_path / "_etc_sluice_nginx"
    subprocess.run(["cp", "-r", HOME / "nginx", source], check=True)
    env = environment(images, "app") | {"WORKERS": "1", "SLUICE_LOG_BYTES_MAX": str(16 * 1024 * 1024)}
    places = [*WRITABLE, "/run/nginx", "/etc/sluice/nginx"]
    render = [*entry, "deploy.pod_nginx", "/etc/sluice/nginx", "/run/nginx", f"127.0.0.1:{port}", DEBIANS_NGINX]
    app_root, nginx_root = images.root("app"), images.root("nginx")
    rendered = run_in(app_root, render, tmp_path, places, env, workdir="/opt/sluice", log=log)
    assert rendered.wait(60) == 0, log.read_text()
    workers = run_in(app_root, [*entry, *command], tmp_path, WRITABLE, env, workdir="/opt/sluice", log=log)
    edge = run_in(nginx_root, nginx, tmp_path, ["/run/sluice", "/run/nginx"], {}, log=log)
    try:
        until_ready(port, [workers, edge], log)
        with socket.create_connection(("127.0.0.1", port), 10) as client:
            body = json.dumps({"prompt": "Hello", "stream": True, "simulator": {"tokens": 5}}).encode()
            head = f"POST /api/v1/generate HTTP/1.1\r\nHost: sluice\r\nContent-Length: {len(body)}\r\n"
            client.sendall(f"{head}Content-Type: application/json\r\nConnection: close\r\n\r\n".encode() + body)
            answer = b"".join(iter(lambda: client.recv(65_536), b""))
        assert b" 200 OK" in answer.splitlines()[0]
        assert answer.count(b"event: token") == 5
        assert b"event: done" in answer
        workers.terminate()
        assert workers.wait(30) == 0, log.read_text()
        edge.send_signal(signal.Signals[images.configuration("nginx", "{{.OCIv1.Config.StopSignal}}")])
        assert edge.wait(30) == 0, log.read_text()
    finally:
        for process in (workers, edge):
            process.kill()
            process.wait()


def test_nothing_but_what_is_mounted_can_be_written_even_by_root(images: Images, tmp_path: Path) -> None:
    attempt = """
import sys
for place in ("/opt/sluice", "/opt/venv", "/etc", "/root", "/var/lib"):
    try:
        open(place + "/attempt", "w")
    except OSError as error:
        assert error.errno == 30, (place, error)
    else:
        sys.exit(place)
open("/var/lib/sluice/attempt", "w")
"""
    log = tmp_path / "log"
    command = ["/opt/venv/bin/python", "-c", attempt]
    process = run_in(images.root("app"), command, tmp_path, WRITABLE, {}, user=0, log=log)
    assert process.wait(60) == 0, log.read_text()


def test_an_image_says_what_it_is_and_runs_as_a_numbered_user(images: Images) -> None:
    for target in ("app", "nginx"):
        assert images.configuration(target, "{{.OCIv1.Config.User}}") == f"{UID}:{UID}"
        stop = images.configuration(target, "{{.OCIv1.Config.StopSignal}}")
        assert stop == stages()[target].last("STOPSIGNAL")


@pytest.mark.parametrize(("target", "title"), [("app", "sluice"), ("nginx", "sluice-nginx")])
def test_an_image_s_labels_say_what_it_is_and_of_what_it_was_made(images: Images, target: str, title: str) -> None:
    found = labels(images, target)
    assert found.pop("description")
    assert found == {"title": title, "licenses": "MIT", "version": VERSION, "revision": REVISION}


def installed(images: Images) -> set[tuple[str, str]]:
    """Packages of the app's image, with their versions."""
    places = list((images.root("app") / "opt/venv/lib").glob("python3*/site-packages"))
    return {
        (canonicalize_name(found.metadata["Name"]), found.version)
        for found in importlib.metadata.distributions(path=list(map(str, places)))
    }


def test_the_bill_of_materials_is_what_is_installed(images: Images, tmp_path: Path) -> None:
    """Written by the image's own Python, as where it is built; the stage `sbom` itself is built in tests/soak."""
    place, log = tmp_path / "_run_sbom", tmp_path / "log"
    (place / "scripts").mkdir(parents=True)
    for name in ("scripts/__init__.py", "scripts/sbom.py", "requirements.lock"):
        shutil.copy(HOME / name, place / name)
    command = ["/opt/venv/bin/python", "-m", "scripts.sbom", "requirements.lock"]
    environ = {"PYTHONPATH": "/opt/sluice"}
    process = run_in(images.root("app"), command, tmp_path, ["/run/sbom"], environ, workdir="/run/sbom", log=log)
    assert process.wait(60) == 0, log.read_text()
    listed = json.loads(log.read_text())["components"]
    assert len(listed) > 20
    assert {(one["name"], one["version"]) for one in listed} == installed(images)


def test_the_image_holds_what_runs_and_nothing_else(images: Images) -> None:
    root = images.root("app")
    assert sorted(path.name for path in (root / "opt/sluice").iterdir()) == ["app", "deploy"]
    packages = {path.name.split("-")[0] for path in (root / "opt/venv/lib").glob("python3*/site-packages/*.dist-info")}
    assert {"gunicorn", "fastapi", "uvloop"} <= packages
    assert not packages & {"pip", "setuptools", "pytest", "mypy"}
    sources = {path.relative_to(root) for path in (root / "opt").rglob("*.py")}
    compiled = {
        path.parent.parent / re.sub(r"\.cpython-\d+\.pyc$", ".py", path.name) for path in (root / "opt").rglob("*.pyc")
    }
    assert {root / source for source in sources} <= compiled


def test_the_load_test_s_image_finds_its_users_as_the_job_runs_it(images: Images, tmp_path: Path) -> None:
    images.build("loadtest", HOME / "loadtests" / "Dockerfile", VERSION=VERSION, REVISION=REVISION)
    assert labels(images, "loadtest").items() >= {"version": VERSION, "revision": REVISION}.items()
    (job,) = yaml.safe_load_all((HOME / "k8s/components/loadtest/job.yaml").read_text())
    pod = job["spec"]["template"]["spec"]
    files = pod["containers"][0]["args"][:2]
    command = words(images, "loadtest", "Entrypoint")
    workdir = images.configuration("loadtest", "{{.OCIv1.Config.WorkingDir}}")
    log = tmp_path / "log"
    user = pod["securityContext"]["runAsUser"]
    environ = environment(images, "loadtest")
    root = images.root("loadtest")
    listed = run_in(root, [*command, *files, "--list"], tmp_path, [], environ, workdir=workdir, user=user, log=log)
    assert listed.wait(60) == 0, log.read_text()
    asked = {argument for argument in pod["containers"][0]["args"][2:] if not argument.startswith("-")}
    assert asked <= set(log.read_text().split())
    assert images.configuration("loadtest", "{{.OCIv1.Config.User}}") == f"{user}:{user}"
    assert not list((root / "opt/sluice/loadtests").rglob("__pycache__"))
