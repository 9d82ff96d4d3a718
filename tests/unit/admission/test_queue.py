"""Whose turn it is: the higher priority, then each principal in turn; and who has to go where it is full."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from app.admission.queue import Queue


@dataclass(eq=False)
class One:
    principal: str
    priority: int = 0
    number: int = 0

    def __repr__(self) -> str:
        return f"{self.principal}{self.number}"


def queue_of(*principals: str, priority: int = 0, waiting_max: int = 100) -> Queue[One]:
    queue: Queue[One] = Queue(waiting_max)
    for number, principal in enumerate(principals):
        assert queue.join(One(principal, priority, number)) is None
    return queue


def order(queue: Queue[One]) -> str:
    found = []
    while (one := queue.next()) is not None:
        found.append(one.principal)
    return "".join(found)


def test_the_higher_priority_has_its_turn_first_and_the_longer_wait_within_one() -> None:
    queue: Queue[One] = Queue(10)
    for number, priority in enumerate((0, 5, 9, 5, 0)):
        queue.join(One("abcde"[number], priority))
    assert order(queue) == "cbdae"


def test_a_principal_with_many_waiting_gets_one_turn_a_round() -> None:
    assert order(queue_of("a", "a", "a", "a", "b", "c", "b")) == "abcabaa"


def test_where_it_is_full_the_lowest_priority_goes() -> None:
    queue: Queue[One] = Queue(2)
    low, lower, high = One("a", 1), One("b", 0), One("c", 9)
    queue.join(low)
    queue.join(lower)
    assert queue.join(high) is lower
    assert queue.join(another := One("d", 0)) is another, "no better than anybody who waits"
    assert order(queue) == "ca"


def test_where_it_is_full_the_last_of_who_has_the_most_waiting_goes() -> None:
    queue = queue_of("a", "a", "a", "b", waiting_max=4)
    pushed = queue.join(One("c"))
    assert pushed is not None
    assert (pushed.principal, pushed.number) == ("a", 2)
    assert queue.join(greedy := One("a")) is greedy
    assert order(queue) == "abca"


def test_equals_do_not_push_each_other_out() -> None:
    queue = queue_of("a", "b", waiting_max=2)
    assert queue.join(third := One("c")) is third


def test_a_queue_for_nobody_has_everybody_go() -> None:
    queue: Queue[One] = Queue(0)
    assert queue.join(one := One("a")) is one
    assert len(queue) == 0


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 2)), min_size=1, max_size=30), st.data())
def test_ahead_is_how_many_turns_come_before(waiting: list[tuple[str, int]], data: st.DataObject) -> None:
    queue: Queue[One] = Queue(100)
    all_of_them = [One(principal, priority, number) for number, (principal, priority) in enumerate(waiting)]
    for one in all_of_them:
        queue.join(one)
    for _ in range(data.draw(st.integers(0, len(waiting) - 1))):
        all_of_them.remove(queue.next())  # type: ignore[arg-type]
    left = data.draw(st.sampled_from(all_of_them))
    said = queue.ahead(left)
    turns = 0
    while queue.next() is not left:
        turns += 1
    assert said == turns


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2), st.booleans()), max_size=60))
def test_nobody_is_lost_and_no_more_wait_than_may(moves: list[tuple[str, int, bool]]) -> None:
    queue: Queue[One] = Queue(5)
    waiting: set[One] = set()
    for number, (principal, priority, joins) in enumerate(moves):
        if joins:
            one = One(principal, priority, number)
            waiting.add(one)
            waiting -= {queue.join(one)}
        elif (turn := queue.next()) is not None:
            assert turn.priority == max(other.priority for other in waiting)
            waiting.remove(turn)
        assert len(queue) == len(waiting) <= 5
