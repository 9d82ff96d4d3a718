"""The embedded upstream: the same text everywhere and from anywhere on, at its pace, and failing on demand."""

import asyncio
import os
import subprocess
import sys
from itertools import pairwise
from time import monotonic
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import SluiceError, UpstreamError, UpstreamInvalid, UpstreamStalled, UpstreamTruncated
from app.events import Done, Token
from app.providers.base import Fault, GenerationRequest, SimulatorOptions
from app.providers.simulator import FIRST_TOKEN_MS, TOKENS_PER_SECOND, Simulator

AT_ONCE = {"first_token_ms": 0.0, "tokens_per_second": 0.0}


def request(prompt: str = "Say it.", **options: Any) -> GenerationRequest:
    """A request that is answered at once, unless the options say otherwise."""
    asked = msgspec.convert(AT_ONCE | options, SimulatorOptions)
    return GenerationRequest("m", [{"role": "user", "content": prompt}], simulator=asked)


async def said(wanted: GenerationRequest, simulator: Simulator | None = None) -> tuple[list[str], Done | SluiceError]:
    """The tokens, and how it ended."""
    texts: list[str] = []
    try:
        async for event in (simulator or Simulator()).generate(wanted):
            if isinstance(event, Done):
                return texts, event
            texts.append(event.text)
    except SluiceError as error:
        return texts, error
    raise AssertionError("it ended without an end")


def say(wanted: GenerationRequest) -> tuple[list[str], Done | SluiceError]:
    return asyncio.run(said(wanted))


# The text


@given(prompt=st.text(max_size=50), seed=st.integers(-(2**53), 2**53), tokens=st.integers(0, 60))
@settings(max_examples=40)
def test_the_same_request_is_answered_by_the_same_text(prompt: str, seed: int, tokens: int) -> None:
    wanted = request(prompt, seed=seed, tokens=tokens)
    texts, end = say(wanted)
    assert (texts, end) == say(wanted)
    assert len(texts) == tokens


def test_another_prompt_seed_or_temperature_is_answered_by_another_text() -> None:
    wanted = request(tokens=30)
    others = [
        request("Say that.", tokens=30),
        request(seed=1, tokens=30),
        msgspec.structs.replace(wanted, temperature=0.5),
        msgspec.structs.replace(wanted, messages=[{"role": "system", "content": "Be."}, *wanted.messages]),
    ]
    answers = ["".join(say(each)[0]) for each in (wanted, *others)]
    assert len(set(answers)) == len(answers)


def test_pace_length_and_name_of_the_model_do_not_change_the_text() -> None:
    """Two simulated upstreams of one model agree, as replicas do."""
    whole, _ = say(request(tokens=40))
    assert say(request(tokens=20))[0] == whole[:20]
    assert say(request(tokens=40, tokens_per_second=100_000.0, jitter=1.0))[0] == whole
    assert say(msgspec.structs.replace(request(tokens=40), model="other"))[0] == whole


def test_the_order_of_a_messages_fields_does_not_change_the_text() -> None:
    """The same request may reach another worker through another encoder."""
    wanted = request(tokens=20)
    turned = msgspec.structs.replace(wanted, messages=[{"content": "Say it.", "role": "user"}])
    assert say(wanted) == say(turned)


def test_another_process_says_the_same() -> None:
    code = """
import asyncio
from app.providers.base import GenerationRequest, SimulatorOptions
from app.providers.simulator import Simulator
async def main():
    options = SimulatorOptions(seed=7, first_token_ms=0, tokens_per_second=0, tokens=50)
    wanted = GenerationRequest("m", [{"role": "user", "content": "Say it."}], simulator=options)
    print(ascii([getattr(event, "text", "") async for event in Simulator().generate(wanted)]), end="")
asyncio.run(main())
"""
    texts, _ = say(request(seed=7, tokens=50))
    for seed in ("0", "1"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.getcwd()}
        ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert ran.stdout == ascii([*texts, ""])


@given(seed=st.integers(0, 1000), cut=st.integers(0, 60))
@settings(max_examples=40)
def test_the_text_goes_on_behind_any_of_its_beginnings(seed: int, cut: int) -> None:
    wanted = request(seed=seed, tokens=60)
    whole, end = say(wanted)
    rest, last = say(wanted.behind("".join(whole[:cut])))
    assert rest == whole[cut:]
    assert last == end


@pytest.mark.parametrize("prefix", ["Something else ", "x", " "])
def test_a_text_that_it_did_not_begin_is_refused(prefix: str) -> None:
    texts, end = say(request(tokens=10).behind(prefix))
    assert texts == []
    assert isinstance(end, UpstreamInvalid)


def test_half_a_token_is_not_a_beginning() -> None:
    whole, _ = say(request(tokens=10))
    _, end = say(request(tokens=10).behind("".join(whole[:3])[:-1]))
    assert isinstance(end, UpstreamInvalid)


def test_a_beginning_that_is_the_whole_text_is_followed_by_the_end() -> None:
    wanted = request(tokens=10)
    whole, end = say(wanted)
    assert say(wanted.behind("".join(whole))) == ([], end)


def test_a_text_has_characters_of_one_to_four_bytes() -> None:
    """Whoever cuts text between bytes is found out."""
    text = "".join(say(request(tokens=3000))[0])
    assert {len(character.encode()) for character in text} == {1, 2, 3, 4}


# The length


def test_max_tokens_ends_a_longer_text_and_says_so() -> None:
    texts, end = say(msgspec.structs.replace(request(tokens=30), max_tokens=10))
    assert isinstance(end, Done)
    assert (len(texts), end.finish_reason, end.usage.output_tokens) == (10, "length", 10)


@pytest.mark.parametrize("max_tokens", [30, 31, None])
def test_a_text_that_is_not_cut_stops_by_itself(max_tokens: int | None) -> None:
    texts, end = say(msgspec.structs.replace(request(tokens=30), max_tokens=max_tokens))
    assert isinstance(end, Done)
    assert (len(texts), end.finish_reason) == (30, "stop")


def test_no_tokens_are_a_complete_answer() -> None:
    texts, end = say(request(tokens=0))
    assert isinstance(end, Done)
    assert (texts, end.finish_reason, end.usage.output_tokens) == ([], "stop", 0)


def test_without_a_wish_the_length_is_the_requests_own() -> None:
    lengths = {len(say(request(f"Prompt {number}"))[0]) for number in range(20)}
    assert len(lengths) > 5
    assert min(lengths) >= 40
    assert max(lengths) < 120


def test_words_are_counted_as_tokens_read() -> None:
    messages = [{"role": "system", "content": "Be good now."}, {"role": "user", "content": None}, {"role": "tool"}]
    _, end = say(msgspec.structs.replace(request(tokens=1), messages=messages))
    assert isinstance(end, Done)
    assert end.usage.input_tokens == 3


# The pace


async def arrivals(wanted: GenerationRequest) -> tuple[float, list[float]]:
    """When it began, and when each token came."""
    began = monotonic()
    return began, [monotonic() async for event in Simulator().generate(wanted) if isinstance(event, Token)]


async def test_tokens_come_at_their_pace() -> None:
    began, at = await arrivals(request(first_token_ms=100.0, tokens_per_second=200.0, tokens=100))
    assert 0.09 <= at[0] - began < 0.4
    assert 0.58 <= at[-1] - began < 0.9


async def test_a_late_token_does_not_delay_those_that_follow() -> None:
    began = monotonic()
    async for _ in Simulator().generate(request(tokens_per_second=100.0, tokens=50)):
        if monotonic() - began < 0.1:
            await asyncio.sleep(0.4)  # the reader was busy
    assert 0.47 <= monotonic() - began < 0.8


async def test_jitter_keeps_the_mean_pace() -> None:
    gaps = []
    for seed in range(2):
        _, at = await arrivals(request(seed=seed, tokens_per_second=500.0, tokens=200, jitter=0.9))
        gaps.append((at[-1] - at[0]) / 199)
        steps = sorted(later - sooner for sooner, later in pairwise(at))
        assert steps[20] < 0.0012
        assert steps[-20] > 0.0028
    assert 0.0018 < sum(gaps) / 2 < 0.0026


async def test_by_default_it_is_as_fast_as_a_model_is() -> None:
    wanted = GenerationRequest("m", [], simulator=SimulatorOptions(tokens=4))
    began, at = await arrivals(wanted)
    # A tenth less: uvloop's clock stands still within one turn of the loop.
    assert at[0] - began >= 0.9 * FIRST_TOKEN_MS / 1000
    assert at[3] - began >= 0.9 * (FIRST_TOKEN_MS / 1000 + 3 / TOKENS_PER_SECOND)


async def test_an_unpaced_stream_lets_its_neighbours_run() -> None:
    """Without a pause it would hold the event loop for all of its 20,000 tokens."""
    lags, stop = [], asyncio.Event()

    async def neighbour() -> None:
        while not stop.is_set():
            before = monotonic()
            await asyncio.sleep(0.001)
            lags.append(monotonic() - before)

    running = asyncio.create_task(neighbour())
    texts, _ = await said(request(tokens=20_000))
    stop.set()
    await running
    assert len(texts) == 20_000
    assert len(lags) >= 5
    assert max(lags) < 0.25


# The faults


@pytest.mark.parametrize(
    ("kind", "error"), [("error", UpstreamError), ("die", UpstreamTruncated), ("stall", UpstreamStalled)]
)
@pytest.mark.parametrize("at_token", [0, 1, 5, 10])
def test_a_fault_comes_at_its_token(kind: str, error: type[SluiceError], at_token: int) -> None:
    wanted = request(tokens=10, fault={"kind": kind, "at_token": at_token})
    texts, end = asyncio.run(said(wanted, Simulator(idle_seconds=0.01, first_token_seconds=0.01)))
    assert len(texts) == at_token
    assert type(end) is error
    assert texts == say(request(tokens=10))[0][:at_token]


def test_a_fault_behind_the_end_never_comes() -> None:
    texts, end = say(request(tokens=10, fault={"kind": "die", "at_token": 11}))
    assert isinstance(end, Done)
    assert len(texts) == 10


def test_a_fault_that_was_survived_does_not_come_again() -> None:
    """A stream that is taken up behind it goes on; the fault was that of the first attempt's connection."""
    whole, _ = say(request(tokens=10))
    wanted = request(tokens=10, fault={"kind": "die", "at_token": 5})
    rest, end = say(wanted.behind("".join(whole[:6])))
    assert rest == whole[6:]
    assert isinstance(end, Done)


@pytest.mark.parametrize(("at_token", "seconds"), [(0, 0.3), (3, 0.1)])
async def test_a_stall_ends_as_that_of_a_real_upstream_would(at_token: int, seconds: float) -> None:
    began = monotonic()
    wanted = request(tokens=10, fault={"kind": "stall", "at_token": at_token})
    _, end = await said(wanted, Simulator(idle_seconds=0.1, first_token_seconds=0.3))
    assert isinstance(end, UpstreamStalled)
    assert seconds * 0.9 <= monotonic() - began < seconds + 1


async def test_closing_it_ends_its_wait_at_once() -> None:
    async def stalled() -> None:
        async for _ in Simulator().generate(request(tokens=10, fault={"kind": "stall", "at_token": 2})):
            pass

    task = asyncio.create_task(stalled())
    await asyncio.sleep(0.02)
    began = monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert monotonic() - began < 1


def test_a_fault_is_told_without_whereabouts() -> None:
    for kind in ("error", "die"):
        _, end = say(request(tokens=3, fault={"kind": kind, "at_token": 1}))
        assert isinstance(end, SluiceError)
        assert end.message.endswith(".")
        assert end.as_event().retryable


def test_options_are_checked() -> None:
    assert msgspec.convert({"fault": {"kind": "die"}}, SimulatorOptions).fault == Fault("die", 0)
    for wrong in ({"seed": "x"}, {"fault": {"kind": "explode"}}, {"fault": {"at_token": 1}}):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(wrong, SimulatorOptions)
