"""A flood of lines that say the same ends in a few, and in how many there were."""

from app.observability.noise import BURST, KINDS_MAX, PER_SECOND, Noise


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_first_lines_of_a_kind_are_written_then_a_few_with_the_count_of_the_others() -> None:
    clock = Clock()
    noise = Noise(clock)
    assert [noise.admits("kind") for _ in range(1000)] == [0] * BURST + [None] * (1000 - BURST)
    assert noise.admits("another") == 0
    clock.now += 1 / PER_SECOND
    assert noise.admits("kind") == 1000 - BURST
    assert noise.admits("kind") is None
    clock.now += 1 / PER_SECOND
    assert noise.admits("kind") == 1


def test_the_kinds_that_are_remembered_are_bounded() -> None:
    noise = Noise()
    for number in range(3 * KINDS_MAX):
        assert noise.admits(number) == 0
    assert len(noise._kinds) <= KINDS_MAX
