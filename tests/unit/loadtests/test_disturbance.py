"""What is done to a server in the middle of a test, and every way in which it cannot be."""

from pathlib import Path

import pytest

from loadtests import disturbance
from loadtests.disturbance import NotDisturbed, disturb


def test_a_command_that_was_run_is_told_with_what_it_said(tmp_path: Path) -> None:
    assert disturb("echo 'rolled  out'", tmp_path) == "\"echo 'rolled  out'\": rolled  out"


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("no-such-program-anywhere", "No such file or directory"),
        ("echo 'never closed", "No closing quotation"),
        ("sleep 30", "timed out after 0.2 seconds"),
        ("ls /no/such/folder", "ended with 2"),
        ("deploy", "no Gunicorn runs on"),
    ],
    ids=["no program", "quotes", "no end", "an error", "no server"],
)
def test_whatever_keeps_it_from_happening_is_one_error_that_says_why(
    what: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disturbance, "COMMAND_SECONDS_MAX", 0.2 if what.startswith("sleep") else 30)

    with pytest.raises(NotDisturbed, match=why):
        disturb(what, tmp_path)


@pytest.mark.parametrize("what", ["deploy", "kill"])
def test_a_supervisor_that_is_not_installed_is_one_too(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disturbance, "SUPERVISORCTL", str(tmp_path / "supervisorctl"))

    with pytest.raises(NotDisturbed, match=f"'{what}': .*No such file or directory"):
        disturb(what, tmp_path)


def test_a_process_that_is_not_ours_is_one_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(pid: int, number: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(disturbance, "gunicorn_pid", lambda _: 1)
    monkeypatch.setattr("os.kill", forbidden)

    with pytest.raises(NotDisturbed, match="Operation not permitted"):
        disturb("deploy", tmp_path)
