"""Golden bytes: what is stored may be read by a later version, which must find what was written."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.events import Done, Event, Failed, Reset, Token, Usage
from app.providers.base import Fault, GenerationRequest, SimulatorOptions
from app.streams.log import StreamRecord
from app.streams.packing import Unreadable, pack_events, pack_record, unpack_events, unpack_record

EVENTS: list[Event] = [
    Token("Grüße\n", index=1),
    Token("hm", "thought"),
    Token('[{"index":0}]', "tool_call"),
    Done("stop", Usage(3, 5), 1200),
    Failed("upstream_stalled", "It stopped.", 504, True, 7),
    Reset("failover"),
]
GOLDEN_EVENTS = bytes.fromhex(
    "96"
    "84a474797065a5746f6b656ea474657874a84772c3bcc39f650aa46b696e64a7636f6e74656e74a5696e64657801"
    "84a474797065a5746f6b656ea474657874a2686da46b696e64a774686f75676874a5696e64657800"
    "84a474797065a5746f6b656ea474657874ad5b7b22696e646578223a307d5da46b696e64a9746f6f6c5f63616c6ca5696e64657800"
    "84a474797065a4646f6e65ad66696e6973685f726561736f6ea473746f70a57573616765"
    "82ac696e7075745f746f6b656e7303ad6f75747075745f746f6b656e7305ab6475726174696f6e5f6d73cd04b0"
    "86a474797065a66661696c6564a4636f6465b0757073747265616d5f7374616c6c6564a76d657373616765ab49742073746f707065642e"
    "a6737461747573cd01f8a9726574727961626c65c3b372657472795f61667465725f7365636f6e647307"
    "82a474797065a57265736574a6726561736f6ea86661696c6f766572"
)
GOLDEN_RECORD = bytes.fromhex(
    "8ca973747265616d5f6964b673737373737373737373737373737373737373737373a97072696e636970616ca5616c696365a773757266"
    "616365a66f70656e6169a77265717565737488a56d6f64656ca16da86d657373616765739182a4726f6c65a475736572a7636f6e74656e"
    "74a24869aa6d61785f746f6b656e7305ab74656d7065726174757265c0a973696d756c61746f7286a47365656407ae66697273745f746f"
    "6b656e5f6d73c0b1746f6b656e735f7065725f7365636f6e64c0a6746f6b656e73c0a66a6974746572c0a56661756c7482a46b696e64a3"
    "646965a861745f746f6b656e03a5657874726181a475736572c0a76865616465727381ab7472616365706172656e74a430302d31a67072"
    "65666978a0ad6f6e5f646973636f6e6e656374a56772616365ad67726163655f7365636f6e6473cb402e000000000000ac637265617465"
    "645f756e6978ce6553f100ab6964656d706f74656e6379a16ba9626f64795f68617368a162a56772616e74c0a86d65746164617461"
    "80aa61736b65645f756e6978cb0000000000000000"
)
RECORD = StreamRecord(
    stream_id="s" * 22,
    principal="alice",
    surface="openai",
    request=GenerationRequest(
        model="m",
        messages=[{"role": "user", "content": "Hi"}],
        max_tokens=5,
        simulator=SimulatorOptions(seed=7, fault=Fault("die", 3)),
        extra={"user": None},
        headers={"traceparent": "00-1"},
    ),
    on_disconnect="grace",
    grace_seconds=15.0,
    created_unix=1_700_000_000,
    idempotency="k",
    body_hash="b",
)

texts = st.text(st.characters(exclude_categories=["Cs"]))
tokens = st.builds(Token, texts, st.sampled_from(["content", "thought", "tool_call"]), st.integers(0, 10**9))
endings = st.builds(Done, texts, st.builds(Usage, st.integers(0, 10**9), st.integers(0, 10**9)), st.integers(0, 10**9))
failures = st.builds(Failed, texts, texts, st.integers(400, 599), st.booleans(), st.none() | st.integers(0, 10**6))


def test_events_are_packed_to_golden_bytes() -> None:
    assert pack_events(EVENTS) == GOLDEN_EVENTS
    assert unpack_events(GOLDEN_EVENTS) == EVENTS


def test_a_record_is_packed_to_golden_bytes() -> None:
    assert pack_record(RECORD) == GOLDEN_RECORD
    assert unpack_record(GOLDEN_RECORD) == RECORD


LATER = {"grant": b"\xa5grant\xc0", "metadata": b"\xa8metadata\x80", "asked_unix": b"\xaaasked_unix\xcb" + bytes(8)}


@pytest.mark.parametrize("first", LATER)
def test_a_record_from_before_these_fields_can_be_read(first: str) -> None:
    missing = list(LATER)[list(LATER).index(first) :]
    fields, later = 12 - len(missing), b"".join(LATER[name] for name in missing)
    assert GOLDEN_RECORD.endswith(later)
    assert unpack_record(bytes([0x80 + fields]) + GOLDEN_RECORD[1 : -len(later)]) == RECORD


def test_what_a_later_version_added_is_passed_over() -> None:
    packed = msgspec.msgpack.encode([{"type": "token", "text": "a", "kind": "content", "index": 1, "logprob": -0.1}])
    assert unpack_events(packed) == [Token("a", index=1)]
    later = {**msgspec.to_builtins(RECORD), "priority": 3}
    simulator = later["request"]["simulator"]
    later["request"] = {**later["request"], "seed": 1}
    later["request"]["simulator"] = {**simulator, "pace": "slow", "fault": {**simulator["fault"], "for_seconds": 2}}
    assert unpack_record(msgspec.msgpack.encode(later)) == RECORD


def test_what_an_earlier_version_did_not_have_gets_its_default() -> None:
    assert unpack_events(msgspec.msgpack.encode([{"type": "token", "text": "a"}])) == [Token("a")]
    earlier = msgspec.to_builtins(RECORD)
    del earlier["idempotency"], earlier["body_hash"], earlier["request"]["headers"]
    known = unpack_record(msgspec.msgpack.encode(earlier))
    assert (known.idempotency, known.body_hash, known.request.headers) == ("", "", {})


@given(st.lists(tokens | endings | failures | st.builds(Reset, texts)))
def test_any_events_come_back(events: list[Event]) -> None:
    assert unpack_events(pack_events(events)) == events
    assert unpack_events(memoryview(pack_events(tuple(events)))) == events


@pytest.mark.parametrize("damaged", [b"", b"\x91", b"\xc1", b"\x91\x81\xa4type\xa4what", pack_record(RECORD)[:-1]])
def test_damaged_bytes_are_refused(damaged: bytes) -> None:
    with pytest.raises(Unreadable):
        unpack_events(damaged)
    with pytest.raises(Unreadable):
        unpack_record(damaged)
