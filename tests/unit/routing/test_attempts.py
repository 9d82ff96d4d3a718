"""From one upstream to the next: what its reader gets, and who was asked what."""

import asyncio
from time import monotonic

import msgspec
import pytest

from app.errors import (
    InvalidRequest,
    SluiceError,
    UpstreamError,
    UpstreamInvalid,
    UpstreamRejected,
    UpstreamStalled,
    UpstreamTimeout,
    UpstreamTruncated,
    UpstreamUnreachable,
)
from app.events import Done, Reset, Token, Usage
from app.routing import course
from app.routing.bill import Price
from app.routing.breaker import Breaker
from app.routing.gate import Gate
from app.routing.route import Route
from tests.support.providers import DONE, FOREVER, REQUEST, Step, tokens
from tests.support.upstreams import Takes, got, target

TEXT = "t1 t2 t3 t4 t5 "
WHOLE: list[Step] = [*tokens(5), DONE]
CUT = UpstreamTruncated("Cut.")


def refusal(status: int, code: str | None = None, retry_after: int | None = None) -> UpstreamRejected:
    error = UpstreamRejected(status, "No.", retry_after_seconds=retry_after)
    if code is not None:
        error.code = code
    return error


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits between attempts, which have tests of their own, are short."""
    monkeypatch.setattr(course, "BACKOFF_SECONDS", 0.001)


# Before the first token


FAILURES: list[UpstreamError] = [
    UpstreamUnreachable("u"),
    UpstreamTimeout("t"),
    UpstreamStalled("s"),
    UpstreamTruncated("c"),
    UpstreamInvalid("i"),
    *[refusal(status) for status in (401, 402, 408, 409, 425, 429, 500, 502, 503, 529)],
]


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: f"{error.code}-{error.status}")
async def test_a_failure_before_the_first_token_goes_on_elsewhere_unseen(error: UpstreamError) -> None:
    first, second = Takes([error]), Takes(WHOLE)
    found = await got(Route([target(first), target(second)]))
    assert (found.text, found.error, found.resets) == (TEXT, None, 0)
    assert (len(first.requests), len(second.requests)) == (1, 1)
    assert first.closed == 1


@pytest.mark.parametrize(
    "error",
    [
        *[refusal(status) for status in (400, 403, 404, 413, 422)],
        refusal(502, "content_filter"),
        refusal(500, "context_length_exceeded"),
    ],
    ids=lambda error: f"{error.code}-{error.status}",
)
async def test_a_refusal_of_the_request_is_passed_on_and_nobody_else_is_asked(error: UpstreamRejected) -> None:
    first, second = Takes([error]), Takes(WHOLE)
    breaker = Breaker(1, 60)
    found = await got(Route([target(first, retries_max=3, breaker=breaker), target(second)]))
    assert found.error is error
    assert (len(first.requests), len(second.requests)) == (1, 0)
    assert breaker.state == "closed"


async def test_what_one_protocol_cannot_say_another_may() -> None:
    first, second = Takes([InvalidRequest("n: not here")]), Takes(WHOLE)
    assert (await got(Route([target(first, retries_max=2), target(second)]))).text == TEXT
    alone = await got(Route([target(Takes([InvalidRequest("n: not here")]), retries_max=2)]))
    assert alone.code == "invalid_request"


async def test_thoughts_are_no_answer_yet_and_are_not_thought_twice() -> None:
    thought = Token("Hm. ", "thought")
    first, second = Takes([thought, CUT]), Takes([thought, Token("So. ", "thought"), *WHOLE])
    found = await got(Route([target(first), target(second)]))
    assert found.events == [thought, *WHOLE]


async def test_a_failing_upstream_is_asked_again_as_often_as_it_says() -> None:
    alone = Takes([refusal(500)], [refusal(503)], WHOLE)
    assert (await got(Route([target(alone, retries_max=2)]))).text == TEXT
    never = Takes([refusal(500)])
    found = await got(Route([target(never, retries_max=2)]))
    assert (found.code, len(never.requests)) == ("upstream_error", 3)


async def test_the_others_are_asked_before_one_is_asked_again() -> None:
    first, second = Takes([refusal(500)], WHOLE), Takes([refusal(500)])
    found = await got(Route([target(first, name="a", retries_max=2), target(second, name="b", retries_max=2)]))
    assert found.text == TEXT
    assert [item.upstream for item in found.bill.items][:2] == ["a", "b"]


async def test_the_attempts_of_one_request_are_bounded() -> None:
    upstreams = [Takes([refusal(500)]) for _ in range(4)]
    found = await got(Route([target(each, retries_max=5) for each in upstreams], attempts_max=5))
    assert found.code == "upstream_error"
    assert sum(len(each.requests) for each in upstreams) == 5


async def test_who_kept_silent_is_not_asked_again_while_somebody_is_left() -> None:
    silent, failing = Takes([UpstreamTimeout("t")]), Takes([refusal(500)], [refusal(500)], WHOLE)
    found = await got(Route([target(silent, retries_max=3), target(failing, retries_max=3)]))
    assert found.text == TEXT
    assert (len(silent.requests), len(failing.requests)) == (1, 3)


async def test_who_kept_silent_is_asked_again_where_nobody_is_left() -> None:
    silent = Takes([UpstreamTimeout("t")], WHOLE)
    assert (await got(Route([target(silent, retries_max=1)]))).text == TEXT


async def test_a_wish_for_later_is_waited_for() -> None:
    busy = Takes([refusal(429, retry_after=1)], WHOLE)
    started = monotonic()
    assert (await got(Route([target(busy, retries_max=1)]))).text == TEXT
    assert 1 <= monotonic() - started < 3


async def test_a_wish_for_much_later_is_the_callers_to_grant() -> None:
    busy = Takes([refusal(429, retry_after=60)])
    started = monotonic()
    found = await got(Route([target(busy, retries_max=3)]))
    assert found.error is not None
    assert (found.code, found.error.retry_after_seconds, len(busy.requests)) == ("upstream_rate_limited", 60, 1)
    assert monotonic() - started < 1


async def test_whoever_asked_for_rest_is_not_the_first_choice_of_the_next_request() -> None:
    busy, other = Takes([refusal(429, retry_after=60)]), Takes(WHOLE)
    route = Route([target(busy), target(other)])
    for _ in range(3):
        assert (await got(route)).text == TEXT
    assert (len(busy.requests), len(other.requests)) == (1, 3)


async def test_requests_repeat_no_more_once_the_budget_is_spent() -> None:
    """An upstream that fails would be asked three times as much by those who repeat."""
    failing = Takes([refusal(500)])
    route = Route([target(failing, retries_max=1)], retry_share=0.0)
    for _ in range(30):
        await got(route)
    assert 40 <= len(failing.requests) <= 42  # ten in reserve, and one a second


async def test_a_defect_is_not_repeated() -> None:
    first, second = Takes([ValueError("bug")]), Takes(WHOLE)
    with pytest.raises(ValueError, match="bug"):
        await got(Route([target(first, retries_max=2), target(second)]))
    assert len(second.requests) == 0
    assert first.closed == 1


async def test_a_full_upstream_hands_over_at_once() -> None:
    hold = asyncio.Event()
    first, second = Takes([hold, *WHOLE]), Takes(WHOLE)
    route = Route([target(first, gate=Gate(1, 5, 5.0)), target(second)])
    waiting = asyncio.create_task(got(route))
    await asyncio.sleep(0.05)
    started = monotonic()
    assert (await got(route)).text == TEXT
    assert monotonic() - started < 1
    assert len(second.requests) == 1
    hold.set()
    assert (await waiting).text == TEXT


async def test_where_all_are_full_the_wait_is_short_and_its_end_is_a_503() -> None:
    route = Route([target(Takes([FOREVER]), gate=Gate(1, 1, 0.2))])
    holding = asyncio.create_task(got(route))
    await asyncio.sleep(0.02)
    found, at_once = await asyncio.gather(got(route), got(route))
    assert {found.code, at_once.code} == {"upstream_unavailable"}
    assert found.error is not None
    assert (found.error.status, found.error.retry_after_seconds) == (503, 1)
    holding.cancel()
    await asyncio.wait([holding])


async def test_requests_with_tools_go_where_tools_are() -> None:
    without, with_tools = Takes(WHOLE), Takes(WHOLE)
    asked = msgspec.structs.replace(REQUEST, extra={"tools": [{"type": "function"}]})
    route = Route([target(without, tools=False), target(with_tools)])
    assert (await got(route, request=asked)).text == TEXT
    assert (len(without.requests), len(with_tools.requests)) == (0, 1)
    with pytest.raises(InvalidRequest):
        Route([target(without, tools=False)]).begin(asked, "", "bound", (await got(route)).bill)


async def test_requests_begin_where_the_weights_say() -> None:
    heavy, light, spare = Takes(WHOLE), Takes(WHOLE), Takes(WHOLE)
    route = Route([target(heavy, weight=3.0), target(light, weight=1.0), target(spare)])
    for _ in range(400):
        await got(route)
    assert len(spare.requests) == 0
    assert 240 <= len(heavy.requests) <= 360


# After it


async def test_a_policy_of_nothing_ends_with_the_failure() -> None:
    found = await got(Route([target(Takes([*tokens(2), CUT]), retries_max=2), target(Takes(WHOLE))]))
    assert (found.text, found.error) == ("t1 t2 ", CUT)


@pytest.mark.parametrize("failure", [CUT, UpstreamStalled("s"), refusal(500), UpstreamInvalid("i")], ids=type)
async def test_a_splice_brings_the_rest_and_nothing_twice(failure: UpstreamError) -> None:
    first = Takes([*tokens(2), failure])
    second = Takes([Token("t1 t2 t"), Token("3 "), *tokens(5)[3:], DONE])
    found = await got(Route([target(first), target(second)], after_first_token="splice"))
    assert (found.text, found.error, found.resets) == (TEXT, None, 0)
    assert first.closed == second.closed == 1


async def test_a_splice_with_something_else_is_a_reset_for_those_who_are_told() -> None:
    def route() -> Route:
        other = Takes([Token("T1 "), Token("T2 "), DONE])
        return Route([target(Takes([*tokens(2), CUT])), target(other, retries_max=1)], after_first_token="splice")

    told = await got(route(), "told")
    assert (told.text, told.resets, told.error) == ("T1 T2 ", 1, None)
    assert Reset("upstream_truncated") in told.events
    bound = await got(route(), "bound")
    assert (bound.text, bound.resets, bound.error) == ("t1 t2 ", 0, CUT)


async def test_a_splice_that_says_less_is_something_else() -> None:
    shorter = Takes([Token("t1 "), DONE])
    found = await got(Route([target(Takes([*tokens(2), CUT])), target(shorter)], after_first_token="splice"))
    assert (found.text, found.error) == ("t1 t2 ", CUT)


async def test_a_reader_who_waits_for_the_end_gets_a_whole_answer_under_any_policy() -> None:
    other = Takes([Token("T1 "), Token("T2 "), DONE])
    found = await got(Route([target(Takes([*tokens(2), CUT])), target(other)]), "waiting")
    assert (found.text, found.resets, found.error) == ("T1 T2 ", 1, None)


@pytest.mark.parametrize("echo", ["", "t1 t2 "], ids=["goes on", "says it again"])
@pytest.mark.parametrize("prefill", ["assistant", "vllm", "prefix"])
async def test_a_continuation_is_given_the_text_and_goes_on_behind_it(prefill: str, echo: str) -> None:
    second = Takes([*([Token(echo)] if echo else []), *tokens(5)[2:], Done("stop", Usage(9, 3))])
    route = Route([target(Takes([*tokens(2), CUT])), target(second, prefill=prefill)], after_first_token="continue")
    found = await got(route)
    assert (found.text, found.error) == (TEXT, None)
    asked = second.requests[0]
    message = asked.messages[-1]
    assert (message["role"], message["content"], message.get("prefix")) == (
        "assistant",
        "t1 t2",
        True if prefill == "prefix" else None,
    )
    assert asked.extra == (
        {"continue_final_message": True, "add_generation_prompt": False} if prefill == "vllm" else {}
    )
    assert asked.messages[:-1] == REQUEST.messages


@pytest.mark.parametrize("rest", [[" t3 ", "t4 "], ["t3 ", "t4 "], [" ", "t3 ", "t4 "]])
async def test_a_blank_between_the_two_is_there_once(rest: list[str]) -> None:
    second = Takes([*[Token(text) for text in rest], DONE])
    route = Route([target(Takes([*tokens(2), CUT])), target(second, prefill="assistant")], after_first_token="continue")
    assert (await got(route)).text == "t1 t2 t3 t4 "


async def test_a_continuation_that_begins_like_the_text_loses_nothing() -> None:
    first = Takes([Token("ha "), Token("ha "), CUT])
    second = Takes([Token("ha "), Token("ho"), DONE])
    route = Route([target(first), target(second, prefill="assistant")], after_first_token="continue")
    assert (await got(route)).text == "ha ha ha ho"


async def test_who_refuses_to_continue_is_asked_from_the_beginning() -> None:
    first, second = Takes([*tokens(2), CUT]), Takes([refusal(400)], WHOLE)
    breaker = Breaker(1, 60)
    route = Route(
        [target(first), target(second, prefill="assistant", retries_max=1, breaker=breaker)],
        after_first_token="continue",
    )
    found = await got(route)
    assert (found.text, found.error) == (TEXT, None)
    assert [len(request.messages) for request in second.requests] == [2, 1]
    assert breaker.state == "closed"


async def test_a_rescue_that_is_refused_tells_why_the_answer_broke_off() -> None:
    first, second = Takes([*tokens(2), CUT]), Takes([refusal(400, "context_length_exceeded")])
    found = await got(Route([target(first), target(second)], after_first_token="splice"))
    assert (found.text, found.error) == ("t1 t2 ", CUT)


async def test_a_rescue_may_need_a_rescue() -> None:
    first, second, third = Takes([*tokens(2), CUT]), Takes([*tokens(4), UpstreamStalled("s")]), Takes(WHOLE)
    route = Route([target(each) for each in (first, second, third)], after_first_token="splice")
    found = await got(route)
    assert (found.text, found.error) == (TEXT, None)


@pytest.mark.parametrize("policy", ["continue", "splice", "reset"])
async def test_half_a_tool_call_is_never_gone_on_with(policy: str) -> None:
    call = Token('[{"index":0,"function":{"arguments":"{"}}]', "tool_call")

    def route() -> Route:
        first, second = Takes([Token("t1 "), call, CUT]), Takes([Token("t1 "), call, call, DONE])
        return Route([target(first), target(second, prefill="assistant")], after_first_token=policy)  # type: ignore[arg-type]

    bound = await got(route(), "bound")
    assert (bound.events, bound.error) == ([Token("t1 "), call], CUT)
    told = await got(route(), "told")
    assert told.error is None
    assert told.events == [Token("t1 "), call, Reset("upstream_truncated"), Token("t1 "), call, call, DONE]


# Taken over from a worker that died


async def test_a_taken_over_stream_goes_on_or_is_compared_or_ends() -> None:
    goes_on = Takes([*tokens(5)[2:], DONE])
    found = await got(Route([target(goes_on, prefill="native")], resume="continue"), said="t1 t2 ")
    assert (found.text, goes_on.requests[0].prefix) == ("t3 t4 t5 ", "t1 t2 ")
    again = await got(Route([target(Takes(WHOLE))], resume="replay"), said="t1 t2 ")
    assert again.text == "t3 t4 t5 "
    other = await got(Route([target(Takes([Token("T1 "), DONE]))], resume="replay"), said="t1 t2 ")
    assert (other.text, other.code) == ("", "producer_lost")
    nothing = Takes(WHOLE)
    ended = await got(Route([target(nothing)], resume="fail"), said="t1 t2 ")
    assert (ended.code, len(nothing.requests)) == ("producer_lost", 0)


# Held back, and asked twice


async def test_a_failure_among_tokens_that_are_held_back_is_unseen() -> None:
    first, second = Takes([*tokens(2), CUT]), Takes([Token("T1 "), DONE])
    found = await got(Route([target(first), target(second)], hold_tokens=3))
    assert (found.text, found.resets, found.error) == ("T1 ", 0, None)


async def test_tokens_are_held_back_no_longer_than_said() -> None:
    slow = Takes([*tokens(2), 0.6, *tokens(5)[2:], DONE])
    route = Route([target(slow)], hold_tokens=4, hold_seconds=0.1)
    started = monotonic()
    first = await got(route, until=1)
    assert 0.1 <= monotonic() - started < 0.5
    assert first.events == tokens(1)
    assert (await got(route)).text == TEXT


async def test_an_answer_shorter_than_what_is_held_back_is_whole() -> None:
    assert (await got(Route([target(Takes(WHOLE))], hold_tokens=50, hold_seconds=5))).text == TEXT


def hedged(first: Takes, second: Takes) -> Route:
    """Whose first upstream is known to answer within 50 ms."""
    slow = target(first)
    for _ in range(20):
        slow.answered_after(0.05)
    return Route([slow, target(second)], hedge_percentile=95)


async def test_a_late_first_token_is_asked_for_elsewhere_and_the_faster_one_goes_on() -> None:
    late, quick = Takes([FOREVER]), Takes(WHOLE)
    started = monotonic()
    found = await got(hedged(late, quick))
    assert found.text == TEXT
    assert 0.04 <= monotonic() - started < 1
    assert late.closed == 1
    assert len(found.bill.items) == 2


async def test_an_early_first_token_is_asked_for_once() -> None:
    quick, other = Takes([0.01, *WHOLE]), Takes(WHOLE)
    assert (await got(hedged(quick, other))).text == TEXT
    assert len(other.requests) == 0


async def test_the_late_one_goes_on_where_the_other_fails() -> None:
    late, failing = Takes([0.2, *WHOLE]), Takes([refusal(500)])
    found = await got(hedged(late, failing))
    assert (found.text, found.error, len(failing.requests)) == (TEXT, None, 1)


async def test_a_reader_who_leaves_during_the_race_leaves_nothing_behind() -> None:
    late, other = Takes([FOREVER]), Takes([FOREVER])
    task = asyncio.create_task(got(hedged(late, other)))
    await asyncio.sleep(0.2)
    assert len(other.requests) == 1
    task.cancel()
    await asyncio.wait([task])
    assert late.closed == other.closed == 1


# What it took


async def test_every_attempt_is_on_the_bill_once_by_the_upstreams_count_or_ours() -> None:
    first, second = Takes([*tokens(2), CUT]), Takes([*tokens(5), Done("stop", Usage(7, 5))])
    price = Price(input=1_000_000, output=2_000_000)
    route = Route([target(first, price=price, name="m/0"), target(second, name="m/1")], after_first_token="splice")
    found = await got(route)
    # "Say it." is two words, and the first one was cut after two tokens.
    assert [(item.upstream, item.counted) for item in found.bill.items] == [("m/0", Usage(2, 2)), ("m/1", Usage(7, 5))]
    assert found.bill.usage == Usage(9, 7)
    assert found.bill.cost == 2 * 1 + 2 * 2
    assert found.done is not None
    assert (found.done.usage, found.done.cost) == (Usage(7, 5), 6.0)


async def test_a_continued_answer_counts_as_one_text() -> None:
    second = Takes([*tokens(5)[2:], Done("stop", Usage(9, 3))])
    route = Route([target(Takes([*tokens(2), CUT])), target(second, prefill="assistant")], after_first_token="continue")
    found = await got(route)
    assert found.done is not None
    assert found.done.usage == Usage(7, 5)


async def test_a_reader_who_leaves_stops_the_upstream_and_pays_for_what_came() -> None:
    upstream = Takes([*tokens(3), FOREVER])
    found = await got(Route([target(upstream)]), until=3)
    assert upstream.closed == 1
    assert found.bill.usage == Usage(2, 3)


async def test_places_are_given_back_whatever_happens() -> None:
    gate = Gate(1, 0, 0.1)
    for steps in (WHOLE, [CUT], [*tokens(2), CUT], [ValueError()], [FOREVER]):
        task = asyncio.create_task(got(Route([target(Takes([*steps]), gate=gate)])))
        await asyncio.wait([task], timeout=0.1)
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled() and (error := task.exception()):
            assert not isinstance(error, SluiceError)
        assert gate.free


def test_a_percentile_is_known_once_there_are_enough() -> None:
    upstream = target(Takes(WHOLE))
    for number in range(19):
        upstream.answered_after(number / 10)
    assert upstream.first_token_percentile(95) is None
    upstream.answered_after(1.9)
    assert upstream.first_token_percentile(50) == 0.9
    assert upstream.first_token_percentile(95) == 1.8
