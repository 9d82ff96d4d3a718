"""The way of the programs' output to the terminal."""

import os
import time

from deploy.relay import CHUNK_BYTES, CHUNKS_MAX, Relay

WAIT_SECONDS_MAX = 10.0


def read_all(descriptor: int) -> bytes:
    output = b""
    while data := os.read(descriptor, CHUNK_BYTES):
        output += data
    os.close(descriptor)
    return output


def test_what_the_programs_write_comes_out_in_order_with_our_own_words() -> None:
    source, programs = os.pipe()
    terminal, target = os.pipe()
    relay = Relay(source, target)
    relay.say("first")
    os.write(programs, b"second\n")
    os.close(programs)
    relay.finish(WAIT_SECONDS_MAX)
    os.close(target)
    os.close(source)
    assert read_all(terminal) == b"first\nsecond\n"


def test_a_terminal_that_does_not_read_holds_no_program_up_and_learns_what_it_missed() -> None:
    source, programs = os.pipe()
    terminal, target = os.pipe()
    relay = Relay(source, target)
    os.set_blocking(programs, False)
    line = b"x" * 1023 + b"\n"
    # Twice what the relay keeps, and more than two pipes hold on top.
    left_bytes = 2 * CHUNK_BYTES * CHUNKS_MAX
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while left_bytes > 0:
        assert time.monotonic() < deadline, "the programs are held up"
        try:
            left_bytes -= os.write(programs, line * 64)
        except BlockingIOError:
            time.sleep(0.001)
    os.close(programs)
    os.set_blocking(terminal, True)
    output = os.read(terminal, CHUNK_BYTES)
    while b" bytes of output were dropped" not in output:
        assert time.monotonic() < deadline
        output = output[-200:] + os.read(terminal, CHUNK_BYTES)
    os.close(terminal)
    relay.finish(WAIT_SECONDS_MAX)
    os.close(target)
    os.close(source)


def test_a_terminal_that_is_gone_holds_no_program_up() -> None:
    source, programs = os.pipe()
    terminal, target = os.pipe()
    os.close(terminal)
    relay = Relay(source, target)
    for _ in range(1000):
        os.write(programs, b"nobody is there\n" * 64)
    os.close(programs)
    relay.finish(WAIT_SECONDS_MAX)
    os.close(target)
    os.close(source)
