"""When an upstream is let alone, and how it comes back."""

from app.routing.breaker import OPEN_SECONDS_MAX, WINDOW_SECONDS, Breaker


class Clock:
    """Time that a test lets pass."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def breaker(failures_max: int = 3, open_seconds: float = 10.0) -> tuple[Breaker, Clock]:
    clock = Clock()
    return Breaker(failures_max, open_seconds, clock), clock


def attempt(subject: Breaker, good: bool, answers: bool = True) -> None:
    """One that answers and ends well, or fails, in the middle of its answer or before."""
    this = object()
    subject.enter(this)
    if good or answers:
        subject.answered()
    if not good:
        subject.failed(this)
    subject.leave(this)


def fails(subject: Breaker, count: int) -> None:
    for _ in range(count):
        attempt(subject, good=False, answers=False)


def test_it_opens_at_so_many_failures() -> None:
    subject, _ = breaker()
    fails(subject, 2)
    assert (subject.state, subject.admits) == ("closed", True)
    fails(subject, 1)
    assert (subject.state, subject.admits) == ("open", False)
    assert subject.closed_in_seconds == 10


def test_it_stays_closed_while_most_attempts_are_good() -> None:
    subject, _ = breaker()
    for _ in range(50):
        attempt(subject, good=True)
        attempt(subject, good=True)
        attempt(subject, good=False, answers=False)
    assert subject.state == "closed"


def test_deaths_in_the_middle_of_an_answer_count() -> None:
    """Each has answered first: a breaker that counts first tokens alone would never see them."""
    subject, _ = breaker()
    for _ in range(3):
        attempt(subject, good=False, answers=True)
    assert subject.state == "open"


def test_old_failures_are_forgotten() -> None:
    subject, clock = breaker()
    fails(subject, 2)
    clock.now += WINDOW_SECONDS + 1
    fails(subject, 2)
    assert subject.state == "closed"


def test_one_probe_at_a_time_and_its_first_token_closes_it() -> None:
    subject, clock = breaker()
    fails(subject, 3)
    clock.now += 10
    assert (subject.state, subject.admits) == ("half_open", True)
    probe = object()
    subject.enter(probe)
    assert not subject.admits
    subject.answered()
    assert (subject.state, subject.admits) == ("closed", True)


def test_a_probe_that_fails_opens_it_for_twice_as_long_up_to_a_bound() -> None:
    subject, clock = breaker()
    fails(subject, 3)
    waits = []
    for _ in range(6):
        clock.now += subject.closed_in_seconds
        fails(subject, 1)
        assert subject.state == "open"
        waits.append(subject.closed_in_seconds)
    assert waits == [20, 40, 80, OPEN_SECONDS_MAX, OPEN_SECONDS_MAX, OPEN_SECONDS_MAX]


def test_a_probe_that_nobody_waited_for_makes_room_for_the_next() -> None:
    subject, clock = breaker()
    fails(subject, 3)
    clock.now += 10
    probe = object()
    subject.enter(probe)
    subject.leave(probe)
    assert (subject.state, subject.admits) == ("half_open", True)


def test_who_began_before_it_opened_neither_closes_nor_extends_it_by_failing() -> None:
    subject, clock = breaker()
    early = object()
    subject.enter(early)
    fails(subject, 3)
    clock.now += 5
    subject.failed(early)
    subject.leave(early)
    assert subject.closed_in_seconds == 5


def test_it_can_be_switched_off() -> None:
    subject, _ = breaker(failures_max=0)
    fails(subject, 100)
    assert subject.state == "closed"
