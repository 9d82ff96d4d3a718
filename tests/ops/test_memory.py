"""Folders in memory: that of an instance that was killed goes with the next start, and nobody else's."""

import fcntl
from pathlib import Path

import pytest

from deploy import memory


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "shm"
    folder.mkdir()
    monkeypatch.setattr(memory, "MEMORY", folder)
    return folder


def instance(state_dir: Path) -> Path:
    """What an instance on `state_dir` has in memory."""
    state_dir.mkdir()
    (state_dir / "lock").touch()
    folder = memory.folder_of(state_dir)
    assert folder is not None
    memory.mark(folder, state_dir)
    (folder / "counter_1.db").write_bytes(b"x" * 1000)
    return folder


def test_what_a_killed_instance_left_goes_and_what_a_living_one_has_stays(shared: Path, tmp_path: Path) -> None:
    """Each start on another state folder left most of a megabyte, until the machine was started again."""
    killed, living, removed = (instance(tmp_path / name) for name in ("killed", "living", "removed"))
    (tmp_path / "removed" / "lock").unlink()
    (tmp_path / "removed").rmdir()
    with (tmp_path / "living" / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        memory.sweep()
    assert not killed.exists()
    assert not removed.exists()
    assert (living / "counter_1.db").exists()
    assert list(shared.iterdir()) == [living]


def test_what_nobody_can_tell_is_left_alone(shared: Path, tmp_path: Path) -> None:
    unmarked = memory.folder_of(tmp_path)
    assert unmarked is not None
    link = shared / f"{unmarked.name}0"
    link.symlink_to(instance(tmp_path / "killed"))
    other = shared / "of-somebody-else"
    other.mkdir()
    memory.sweep()
    assert set(shared.iterdir()) == {unmarked, link, other}


def test_a_sweep_that_was_killed_is_finished_by_the_next(shared: Path, tmp_path: Path) -> None:
    folder = instance(tmp_path / "killed")
    folder.rename(folder.with_name(f"{folder.name}.gone"))
    memory.sweep()
    assert list(shared.iterdir()) == []
