"""How many streams the workers of one machine generate, as each of them sees it."""

import os

from app.pod import WORKERS_MAX, Pod


def test_every_worker_sees_what_all_of_them_have_to_do() -> None:
    pod = Pod()
    for age, streams in ((1, 3), (2, 400), (WORKERS_MAX + 3, 5)):
        pod.identity(age)
        pod.set_active(age, streams)
    assert pod.active() == 408
    pod.set_active(2, 0)
    assert pod.active() == 8


def test_what_a_worker_that_was_killed_had_to_do_no_longer_counts() -> None:
    pod = Pod()
    pod.identity(7)
    child = os.fork()
    if child == 0:
        pod.set_active(7, 12)
        os._exit(0)
    os.waitpid(child, 0)
    assert pod.active() == 12, "it is the same memory in both"
    pod.bury(7)
    assert pod.active() == 0


def test_those_who_died_cost_nobody_who_lives_between_or_after_them() -> None:
    pod = Pod()
    for age in range(1, 6):
        pod.identity(age)
        pod.set_active(age, 10**age)
    for age, left in ((3, 110_110), (1, 110_100), (5, 10_100), (2, 10_000), (4, 0)):
        pod.bury(age)
        assert pod.active() == left
    pod.identity(6)
    pod.set_active(6, 7)
    assert pod.active() == 7


def test_a_worker_begins_with_nothing_whoever_had_its_number() -> None:
    pod = Pod()
    pod.set_active(1, 5)
    assert pod.identity(WORKERS_MAX + 1).age == WORKERS_MAX + 1
    assert pod.active() == 0
