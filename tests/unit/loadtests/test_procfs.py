"""What is read from /proc, from real processes and from files as the kernel writes them."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from loadtests.bench.procfs import TICKS_PER_SECOND, Procfs

SMAPS = """\
7f0000000000-7f0000100000 rw-p 00000000 00:00 0
Size:               1024 kB
Private_Clean:         4 kB
Private_Dirty:       100 kB
Private_Hugetlb:       0 kB
7f0000200000-7f0000300000 rw-s 00000000 00:01 7                          /dev/shm/log (deleted)
Private_Clean:         0 kB
Private_Dirty:      1024 kB
7f0000400000-7f0000500000 r-xp 00000000 08:01 9                          /usr/lib/libc.so.6
Shared_Clean:        500 kB
Private_Clean:        20 kB
VmFlags: rd ex mr mw me
"""


def a_process(root: Path, pid: int, parent: int, ticks: tuple[int, int, int, int] = (0, 0, 0, 0)) -> Path:
    folder = root / str(pid)
    folder.mkdir(parents=True)
    fields = f"S {parent} 1 1 0 -1 4194560 0 0 0 0 {' '.join(map(str, ticks))} 20 0 1 0 100 0 0"
    (folder / "stat").write_text(f"{pid} (a (name) with) brackets) {fields}\n")
    (folder / "cmdline").write_bytes(b"nginx: worker\0process\0")
    return folder


def test_shared_mappings_are_not_private_memory(tmp_path: Path) -> None:
    (a_process(tmp_path, 10, 1) / "smaps").write_text(SMAPS)

    assert Procfs(tmp_path).private_kib([10]) == 4 + 100 + 20


def test_a_tree_has_children_of_children_and_no_strangers(tmp_path: Path) -> None:
    for pid, parent in ((10, 1), (11, 10), (12, 11), (20, 1)):
        a_process(tmp_path, pid, parent)

    assert sorted(Procfs(tmp_path).descendants(10)) == [10, 11, 12]


def test_cpu_time_includes_children_that_have_ended(tmp_path: Path) -> None:
    a_process(tmp_path, 10, 1, ticks=(100, 50, 7, 3))

    assert Procfs(tmp_path).cpu_seconds([10]) == 160 / TICKS_PER_SECOND


def test_a_process_that_has_gone_counts_as_nothing(tmp_path: Path) -> None:
    proc = Procfs(tmp_path)

    assert (proc.cpu_seconds([99]), proc.private_kib([99]), proc.command(99)) == (0, 0, "")


def test_a_core_is_busy_except_when_idle_or_waiting_for_disks(tmp_path: Path) -> None:
    (tmp_path / "stat").write_text("cpu  9 9 9 9 9 9 9 9 9 9\ncpu1 100 0 50 700 20 10 5 15 40 0\n")

    busy, total = Procfs(tmp_path).core_seconds(1)

    assert (busy, total) == (180 / TICKS_PER_SECOND, 900 / TICKS_PER_SECOND)


def test_a_core_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "stat").write_text("cpu0 1 1 1 1 1 1 1 1 0 0\n")

    with pytest.raises(ValueError, match="no core 7"):
        Procfs(tmp_path).core_seconds(7)


def test_a_real_process_is_seen_with_its_work_and_memory() -> None:
    code = "held = bytearray(b'x' * 20_000_000)\nwhile sum(range(10_000)): pass"
    proc, child = Procfs(), subprocess.Popen([sys.executable, "-c", code])
    try:
        deadline = time.monotonic() + 30
        while proc.cpu_seconds([child.pid]) < 0.1 or proc.private_kib([child.pid]) < 19_000:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert child.pid in proc.descendants(os.getpid())
        assert "range(10_000)" in proc.command(child.pid)
    finally:
        child.kill()
        child.wait()
