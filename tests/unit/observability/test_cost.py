"""What it costs a token to be seen: CPU time of this process, the cheapest of several rounds, since neighbours only
ever make it dearer. `python -m loadtests.bench --only sluice unseen` measures it from outside, on a quiet machine."""

from collections.abc import Callable
from pathlib import Path
from time import monotonic, process_time

from app.events import Token
from app.observability import metrics
from app.observability.figure_files import FigureFiles
from app.observability.figures import Figures, figures
from app.observability.places import claim
from app.observability.zeros import begin_at_zero
from app.streams.account import Account
from app.streams.books import Books
from app.streams.log import Append, Cursor
from app.streams.pace import Pace
from app.streams.tail import Entry

ROUNDS = 7
TOKEN_MICROSECONDS_MAX = 4.0
# What one stream takes at its end, and one worker each second, is shared by as many tokens.
TOKENS_OF_A_STREAM = 100
TOKENS_OF_A_SECOND = 200 * 20


def cheapest(times: int, work: Callable[[], object]) -> float:
    """Microseconds of one of them."""
    rounds = []
    for _ in range(ROUNDS):
        begun = process_time()
        for _ in range(times):
            work()
        rounds.append((process_time() - begun) / times * 1e6)
    return min(rounds)


def test_a_token_is_seen_for_less_than_four_microseconds(tmp_path: Path) -> None:
    pace = Pace("m", monotonic())
    entries: list[Entry] = [(Cursor(0, 1), Token("word "))]
    seconds, sizes = figures.tally(metrics.COMMIT_SECONDS), figures.tally(metrics.COMMIT_EVENTS)
    append = Append("s" * 24, 1, Cursor(0, 1), [entries[0][1]])

    def commit() -> None:
        """What the committer adds to the commit of one token, at rest: under load several share it."""
        begun = monotonic()
        events = len(append.events)
        seconds.add(monotonic() - begun)
        sizes.add(events)

    books = Books(shared_log=False, pod_draining=lambda: False)
    account = Account("s", "m", "native", "p", "completed", "m/0", 1, 2, 3, 0.5, 0.1, 0.2)

    def end() -> None:
        books.enter(account)
        figures.add(metrics.STREAMS, 1, "m", "native", "completed")
        figures.add(metrics.ATTEMPTS, 1, "m/0", "ok")
        figures.observe(metrics.UPSTREAM_WAIT, 0.0, "m/0")
        whole = Pace("m", monotonic())
        whole.delivered(entries)  # the first, which costs more than the others
        whole.delivered(entries)
        whole.ended("completed")

    files, own = FigureFiles(claim(tmp_path)), Figures()
    begin_at_zero(["m"], ["m/0"])

    def write() -> None:
        for key in list(figures.counts):
            own.counts[key] = own.counts.get(key, 0) + 1
        files.write(own)

    gaps = [0.05 + number % 997 * 1e-6 for number in range(TOKENS_OF_A_SECOND)]

    def settle() -> None:
        for tally in (seconds, sizes, figures.tally(metrics.TOKEN_GAP_SECONDS, "m")):
            tally.extend(gaps)
            tally.settle()

    per_token = cheapest(20_000, lambda: pace.delivered(entries)) + cheapest(20_000, commit)
    per_stream, per_second = cheapest(2_000, end), cheapest(20, write) + cheapest(20, settle)
    total = per_token + per_stream / TOKENS_OF_A_STREAM + per_second / TOKENS_OF_A_SECOND
    print(
        f"{per_token:.2f} µs a token, {per_stream:.1f} a stream, {per_second:.0f} a second: {total:.2f} a token in all"
    )
    assert total <= TOKEN_MICROSECONDS_MAX
