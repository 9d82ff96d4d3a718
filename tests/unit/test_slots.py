"""Each worker has a socket of its own, and at every moment somebody answers at its path."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from app.slots import PATH_BYTES_MAX, Slots, SlotSocket


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: a socket's has room for 107 bytes, and pytest's own is longer in some places."""
    with TemporaryDirectory(prefix="slots-") as name:
        yield Path(name)


def listening(folder: Path, slot: int = 1) -> SlotSocket:
    """A worker's socket, as Uvicorn has it when the worker can answer."""
    own = Slots(folder, slot).socket(slot)
    own.socket.listen(128)
    return own


def who_answers(path: Path, *candidates: SlotSocket) -> int:
    """The index of the socket that a connection to `path` reaches."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        for index, candidate in enumerate(candidates):
            candidate.socket.setblocking(False)
            try:
                candidate.socket.accept()[0].close()
            except BlockingIOError:
                continue
            return index
    raise AssertionError("nobody answers")


# Who gets which slot


def test_free_slots_are_given_first(folder: Path) -> None:
    slots = Slots(folder, 4)
    held: dict[int, int] = {}
    for age in (1, 2, 3, 4):
        held[slots.assign(age, held)] = age
    assert sorted(held) == [1, 2, 3, 4]


def test_the_slot_of_a_dead_worker_is_free_again(folder: Path) -> None:
    assert Slots(folder, 3).assign(9, {1: 1, 3: 3}) == 2


def test_without_a_free_slot_the_oldest_worker_is_followed(folder: Path) -> None:
    assert Slots(folder, 3).assign(8, {1: 7, 2: 4, 3: 6}) == 2


def test_a_reload_gives_each_old_worker_one_successor(folder: Path) -> None:
    slots = Slots(folder, 3)
    held = {1: 1, 2: 2, 3: 3}
    for age in (4, 5, 6):
        slot = slots.assign(age, held)
        assert held[slot] <= 3
        held[slot] = age
    assert sorted(held.values()) == [4, 5, 6]


def test_a_worker_knows_whether_it_has_a_successor(folder: Path) -> None:
    slots = Slots(folder, 2)
    assert slots.assign(1, {}) == 1
    assert not slots.has_successor(1, age=1)
    slots.assign(5, {1: 1, 2: 2})
    assert slots.has_successor(1, age=1)
    assert not slots.has_successor(1, age=5)
    assert not slots.has_successor(2, age=2)


def test_a_successor_is_known_in_processes_that_were_forked_before_it(folder: Path) -> None:
    """The master assigns; the old worker, forked long ago, has to see it."""
    slots = Slots(folder, 1)
    slots.assign(1, {})
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        deadline = time.monotonic() + 10
        while not slots.has_successor(1, age=1) and time.monotonic() < deadline:
            time.sleep(0.005)
        os.write(tell, b"1" if slots.has_successor(1, age=1) else b"0")
        os._exit(0)
    slots.assign(2, {1: 1})
    assert os.read(told, 1) == b"1"
    os.waitpid(pid, 0)
    os.close(told)
    os.close(tell)


# Whose the path is


def test_a_socket_has_no_path_before_its_worker_can_answer(folder: Path) -> None:
    own = listening(folder)
    assert not own.path.exists()
    assert not own.current
    own.publish()
    assert own.current
    assert who_answers(own.path, own) == 0
    own.socket.close()


def test_a_successor_takes_the_path_over(folder: Path) -> None:
    old = listening(folder)
    old.publish()
    new = successor(folder)
    new.publish()
    assert (old.current, new.current) == (False, True)
    assert who_answers(new.path, old, new) == 1
    old.socket.close()
    new.socket.close()


def successor(folder: Path) -> SlotSocket:
    """Another worker's socket for the same slot; the temporary name has the worker's process id."""
    before = os.getpid
    try:
        os.getpid = lambda: before() + 1
        return listening(folder)
    finally:
        os.getpid = before


CLIENT = """
import select, socket, sys
reached = refused = 0
while not select.select([sys.stdin], [], [], 0)[0]:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(sys.argv[1])
            reached += 1
        except OSError:
            refused += 1
    if reached == 1:
        print("connected", flush=True)
print(reached, refused)
"""


def test_the_path_is_never_missing_while_successors_take_it_over(folder: Path) -> None:
    """A gap of a millisecond is a refused request for each that comes in it."""
    sockets = [listening(folder)]
    sockets[0].publish()
    command = [sys.executable, "-c", CLIENT, str(sockets[0].path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        assert client.stdout.readline() == "connected\n"
        for _ in range(200):
            sockets.append(listening(folder))
            sockets[-1].publish()
            sockets[-2].withdraw()
            for each in sockets[-3:]:
                drain(each)
        client.stdin.close()
        for each in sockets:
            drain(each)
        reached, refused = map(int, client.stdout.read().split())
    for each in sockets:
        each.socket.close()
    assert refused == 0
    assert reached > 50


def drain(own: SlotSocket) -> None:
    """Accept what came before the successor, so that the backlog has room."""
    own.socket.setblocking(False)
    try:
        while True:
            own.socket.accept()[0].close()
    except BlockingIOError:
        pass


def test_who_connected_to_the_old_worker_is_still_served_by_it(folder: Path) -> None:
    old = listening(folder)
    old.publish()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(old.path))
        new = successor(folder)
        new.publish()
        old.withdraw()
        connection, _ = old.socket.accept()
        connection.sendall(b"old")
        assert client.recv(3) == b"old"
        connection.close()
    old.socket.close()
    new.socket.close()


def test_a_worker_that_stops_leaves_its_successors_path_alone(folder: Path) -> None:
    old = listening(folder)
    old.publish()
    old.beat()
    new = successor(folder)
    new.publish()
    new.beat()
    old.withdraw()
    assert new.current
    assert who_answers(new.path, old, new) == 1
    assert sorted(file.name for file in folder.iterdir()) == ["worker-1.beat", "worker-1.sock"]
    old.socket.close()
    new.socket.close()


def test_a_worker_that_stops_without_a_successor_leaves_nothing(folder: Path) -> None:
    own = listening(folder)
    own.publish()
    own.beat()
    own.withdraw()
    assert list(folder.iterdir()) == []
    own.withdraw()
    own.socket.close()


def test_a_worker_that_never_answered_leaves_nothing(folder: Path) -> None:
    own = listening(folder)
    own.withdraw()
    assert list(folder.iterdir()) == []
    own.socket.close()


def test_what_a_killed_process_of_the_same_number_left_does_not_disturb(folder: Path) -> None:
    left = folder / f"worker-1.sock.{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(left))
    own = listening(folder)
    own.publish()
    assert who_answers(own.path, own) == 0
    own.socket.close()


def test_a_sign_of_life_is_of_the_worker_that_has_the_path(folder: Path) -> None:
    """The old worker, which still drains, must not make a dead successor look alive."""
    old = listening(folder)
    old.publish()
    old.beat()
    beat = folder / "worker-1.beat"
    os.utime(beat, (0, 0))
    new = successor(folder)
    new.publish()
    old.beat()
    assert beat.stat().st_mtime == 0
    new.beat()
    assert beat.stat().st_mtime > 0
    old.socket.close()
    new.socket.close()


def test_nobody_but_owner_and_group_may_connect(folder: Path) -> None:
    before = os.umask(0)
    try:
        own = listening(folder)
    finally:
        os.umask(before)
    own.publish()
    assert own.path.stat().st_mode & 0o777 == 0o660
    own.socket.close()


# Where it cannot be


def test_too_long_a_path_is_a_clear_error(folder: Path) -> None:
    long = folder / ("d" * (PATH_BYTES_MAX - len(str(folder))))
    long.mkdir()
    with pytest.raises(OSError, match=rf"SLUICE_SOCKET_DIR: {long}/worker-1.sock.\d+ is longer than the 107 bytes"):
        Slots(long, 1).socket(1)
    assert list(long.iterdir()) == []


def test_the_longest_path_that_is_allowed_works(folder: Path) -> None:
    name = f"/worker-1.sock.{os.getpid()}"
    long = folder / ("d" * (PATH_BYTES_MAX - len(str(folder)) - 1 - len(name)))
    long.mkdir()
    own = listening(long)
    own.publish()
    assert who_answers(own.path, own) == 0
    own.socket.close()


def test_a_path_is_measured_in_bytes(folder: Path) -> None:
    long = folder / ("é" * 45)
    long.mkdir()
    with pytest.raises(OSError, match="is longer than"):
        Slots(long, 1).socket(1)


def test_a_folder_that_is_not_there_is_an_error(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"SLUICE_SOCKET_DIR: .*/none/worker-1.sock"):
        Slots(folder / "none", 1).socket(1)


def test_a_killed_workers_path_can_be_taken(folder: Path) -> None:
    code = f"""
from pathlib import Path; import os, signal; from app.slots import Slots
own = Slots(Path({str(folder)!r}), 1).socket(1); own.socket.listen(); own.publish(); own.beat()
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    assert (folder / "worker-1.sock").exists()
    own = listening(folder)
    own.publish()
    assert who_answers(own.path, own) == 0
    own.withdraw()
    assert list(folder.iterdir()) == []
    own.socket.close()
