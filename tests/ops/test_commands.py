"""The Makefile, its scripts, and what they rest on."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

HOME = Path(__file__).resolve().parents[2]


def run(*command: str | Path, cwd: Path = HOME, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """With `path` as the only place to find programs."""
    env = os.environ | ({"PATH": str(path)} if path else {})
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=60)


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A folder with the few programs that every system has."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sh", "id", "dirname", "env", "touch"):
        found = shutil.which(name)
        assert found
        (folder / name).symlink_to(found)
    return folder


def test_make_alone_lists_every_target_that_people_use() -> None:
    output = run("make").stdout
    expected = {
        "help",
        "setup",
        "run",
        "serve",
        "test",
        "check",
        "lint",
        "format",
        "lock",
        "bench",
        "examples",
        "clean",
    }
    for target in expected:
        assert re.search(rf"^  {target} +\S", output, re.MULTILINE), target


def test_a_recipe_is_at_most_three_lines() -> None:
    for rule in re.split(r"\n(?=[^\s])", (HOME / "Makefile").read_text()):
        assert rule.count("\n\t") <= 3, rule


@pytest.mark.parametrize(("asked", "check"), [("", ""), ("--write", ""), ("--write --assert", "--assert")])
def test_what_the_bench_writes_is_generated_from_before_a_slow_machine_can_fail_it(asked: str, check: str) -> None:
    """The most that a check may cost is a time, which only fails a run that was asked for it."""
    printed = run("make", "-n", "-o", ".venv/installed-requirements-dev", "bench", f"ARGS={asked}").stdout
    # Where the files of a clone are newer than its environment, that is made first.
    modules = [line.split(" -m ")[1].split() for line in printed.splitlines() if " -m " in line]
    assert [words for words in modules if words[0] != "venv"] == [
        ["loadtests.bench", *asked.split()],
        ["scripts.generate"],
        ["loadtests.bench.access", *check.split()],
    ]


def test_a_missing_python_is_said_in_one_line(bare: Path, tmp_path: Path) -> None:
    copy = tmp_path / "clone"
    shutil.copytree(HOME / "scripts", copy / "scripts")
    result = run("scripts/setup.sh", "requirements.lock", "stamp", cwd=copy, path=bare)
    assert result.returncode == 1
    assert result.stderr.splitlines() == [
        "setup: Python 3.11 or newer is missing (Debian: apt-get install python3 python3-venv)"
    ]
    assert not (copy / "stamp").exists()


def test_missing_programs_are_named_and_nothing_fails(bare: Path) -> None:
    # Without apt-get on its path: as for an ordinary user.
    result = run("scripts/install-system-packages.sh", path=bare)
    assert result.returncode == 0
    assert result.stderr.startswith("missing: ")
    assert "chromium" in result.stderr


def test_only_the_packages_asked_for_are_looked_at(bare: Path) -> None:
    result = run("scripts/install-system-packages.sh", "redis-server", path=bare)
    assert result.stderr.split("(")[0] == "missing: redis-server "


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_a_lock_has_hashes_and_names_no_index(name: str) -> None:
    text = (HOME / name).read_text()
    assert "make lock" in text.splitlines()[1]
    assert "://" not in text
    assert "--index" not in text
    for requirement in re.split(r"\n(?=\w)", text)[1:]:
        assert "==" in requirement
        assert "--hash=sha256:" in requirement, requirement.splitlines()[0]


def test_both_locks_agree() -> None:
    """`make test` must run what `make run` runs."""

    def versions(name: str) -> dict[str, str]:
        return dict(re.findall(r"^([\w.-]+)==([^ ;\\]+)", (HOME / name).read_text(), re.MULTILINE))

    development = versions("requirements-dev.lock")
    assert {name: development.get(name) for name in versions("requirements.lock")} == versions("requirements.lock")


def test_hooks_run_locked_tools_and_nothing_from_elsewhere() -> None:
    config = yaml.safe_load((HOME / ".pre-commit-config.yaml").read_text())
    assert [repo["repo"] for repo in config["repos"]] == ["local"]
    for hook in config["repos"][0]["hooks"]:
        program = Path(hook["entry"].split()[0])
        assert program.parts[:2] == (".venv", "bin")
        assert (Path(sys.executable).parent / program.name).exists()


def test_ci_runs_the_checks_and_the_tests() -> None:
    lines = (HOME / ".ci/run").read_text().splitlines()
    assert lines[-2:] == ["make check", "make test"]
    assert os.access(HOME / ".ci/run", os.X_OK)
