"""The faults of upstreams, alone and in pairs."""

import json
from typing import Any

from tests.faults.case import HEALTHY, WHOLE, Case
from tests.support.upstream_script import Script

KEY = "sk-canary-0123456789abcdef"
HOST = "canary.upstream.internal"

SPLICE: dict[str, Any] = {"after_first_token": "splice"}
CONTINUE: dict[str, Any] = {"after_first_token": "continue"}
RESET: dict[str, Any] = {"after_first_token": "reset"}
SECOND = (0.9, 4.0)  # a deadline of one second has passed
OTHER = Script(tokens=["Quite ", "another ", "text."])
REST = Script(tokens=["tok3 ", "tok4 ", "tok5 ", "tok6 ", "tok7 "])
PART = "tok0 tok1 tok2 "
ERROR = {"message": f"no model at http://{HOST}:9100/v1 for key {KEY}", "type": "server_error"}
FRAME = "data: " + json.dumps({"error": ERROR})


def refused(code: str, message: str, status: int = 400) -> Script:
    return Script(status=status, body=json.dumps({"error": {"message": message, "code": code, "type": code}}))


CALL = [{"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": "{"}}]
CALLS = [CALL, [{"index": 0, "function": {"arguments": "}"}}]]

BEFORE = [
    Case("nobody listens", place="nobody", asked=(0, 1)),
    Case("connection is never taken", place="hangs", asked=(0, 1), seconds=SECOND),
    Case("closes without an answer", Script(response_hex="")),
    Case("resets without an answer", Script(response_hex="", how="rst")),
    Case("answers in something else than HTTP", Script(response_hex=b"+PONG\r\n\r\n".hex())),
    *[Case(f"status {status}", Script(status=status)) for status in (401, 408, 409, 425, 429, 500, 502, 503, 529)],
    Case("429 that wants a minute", Script(status=429, headers={"Retry-After": "60"})),
    Case("redirects elsewhere", Script(status=302, headers={"Location": f"http://{HOST}/"}, body="")),
    Case("200 with a page of HTML", Script(html=True)),
    Case("200 with an error as plain JSON", Script(plain_json=True, body=json.dumps({"error": ERROR}))),
    Case("error as the first event", Script(role_chunk=False, error_at=0)),
    Case("error as an event named error", Script(role_chunk=False, error_at=0, error_frame=f"event: error\n{FRAME}")),
    Case(
        "error beside empty choices",
        Script(role_chunk=False, error_at=0, error_frame="data: " + json.dumps({"choices": [], "error": ERROR})),
    ),
    Case("error behind the role chunk", Script(error_at=0)),
    Case(
        "error in pieces of a byte, behind a BOM and comments",
        Script(bom=True, between=": x\n\n", error_at=0, split_at=1),
    ),
    Case("never answers", Script(headers_delay_seconds=60), seconds=SECOND),
    Case("silent behind its headers", Script(role_chunk=False, stall_after=0), seconds=SECOND),
    Case("silent behind the role chunk", Script(stall_after=0), seconds=SECOND),
    Case("only comments, for ever", Script(stall_after=0, trickle=": ping\n\n"), seconds=SECOND),
    Case("only half an event, byte by byte", Script(stall_after=0, trickle="d"), seconds=SECOND),
    Case("ends before the first token", Script(die_after=0, how="fin")),
    Case("resets before the first token", Script(die_after=0, how="rst")),
    Case("cut in its thoughts", Script(reasoning=["Hm. ", "So. "], die_after=1, how="rst")),
    Case("a line of 16 MB", Script(giant_line_bytes=16 * 1024 * 1024)),
]

REPEATED = [
    Case(
        "500 twice, then healthy, alone",
        (Script(status=500), Script(status=500), HEALTHY),
        None,
        upstream={"retries_max": 2},
        asked=(3, 0),
    ),
    Case(
        "429 for 200 ms, alone",
        (Script(status=429, headers={"retry-after-ms": "200"}), HEALTHY),
        None,
        upstream={"retries_max": 1},
        asked=(2, 0),
        seconds=(0.2, 4),
    ),
    Case(
        "silent once, then it would work; the other fails twice",
        (Script(stall_after=0), HEALTHY),
        (Script(status=500), Script(status=503), HEALTHY),
        upstream={"retries_max": 2},
        other={"retries_max": 2},
        asked=(1, 3),
        seconds=SECOND,
    ),
    Case(
        "429 for a minute, alone",
        Script(status=429, headers={"Retry-After": "60"}),
        None,
        upstream={"retries_max": 2},
        end="upstream_rate_limited",
        status=429,
        text="",
        asked=(1, 0),
        retry_after="60",
    ),
    Case(
        "401, alone",
        Script(status=401, body=json.dumps({"error": ERROR})),
        None,
        upstream={"retries_max": 2},
        end="upstream_unauthorized",
        status=401,
        text="",
        asked=(1, 0),
    ),
    Case(
        "500 for ever, alone",
        Script(status=500, body=json.dumps({"error": ERROR})),
        None,
        client="native",
        upstream={"retries_max": 2},
        end="upstream_error",
        status=500,
        text="",
        asked=(3, 0),
    ),
    Case(
        "never answers, alone",
        Script(headers_delay_seconds=60),
        None,
        end="upstream_timeout",
        status=504,
        text="",
        asked=(1, 0),
        seconds=SECOND,
    ),
    Case(
        "nobody listens at either",
        place="nobody",
        second_place="nobody",
        end="upstream_unreachable",
        status=502,
        text="",
        asked=(0, 0),
    ),
    Case(
        "silent, and the other fails",
        Script(stall_after=0),
        Script(status=503),
        end="upstream_error",
        status=503,
        text="",
        seconds=SECOND,
    ),
    Case(
        "the answer as a whole takes too long",
        Script(tokens=100, delay_seconds=0.1),
        None,
        client="native",
        model={"answer_seconds": 1},
        end="upstream_timeout",
        text="tok0 ",
        asked=(1, 0),
        seconds=SECOND,
    ),
]

REFUSED = [
    *[
        Case(
            f"status {status}, of the caller's making",
            Script(status=status),
            upstream={"retries_max": 2},
            end="upstream_forbidden" if status == 403 else "upstream_rejected",
            status=status,
            text="",
            asked=(1, 0),
        )
        for status in (400, 403, 404, 413, 422)
    ],
    Case(
        "longer than the context",
        refused("context_length_exceeded", "too long"),
        end="context_length_exceeded",
        status=400,
        text="",
        asked=(1, 0),
    ),
    Case(
        "longer than the context, said in words and by 500",
        refused("internal", "maximum context length is 4096", 500),
        client="native",
        end="context_length_exceeded",
        status=400,
        text="",
        asked=(1, 0),
    ),
    Case(
        "content filter as the first event",
        Script(error_at=0, error_frame='data: {"error":{"message":"refused","code":"content_filter"}}'),
        upstream={"retries_max": 2},
        end="content_filter",
        status=400,
        text="",
        asked=(1, 0),
    ),
]


def alone(name: str, script: Script, end: str, **more: Any) -> Case:
    """No policy, nobody else: the part that came, and an honest end."""
    return Case(name, script, None, end=end, **{"text": PART, "asked": (1, 0), **more})


AFTER_ALONE = [
    alone("ends in the middle, as if it were whole", Script(die_after=3, how="fin"), "upstream_truncated"),
    alone("breaks off in the middle", Script(die_after=3), "upstream_truncated", client="native"),
    alone("resets in the middle", Script(die_after=3, how="rst"), "upstream_truncated"),
    alone("stalls in the middle", Script(stall_after=3), "upstream_stalled", seconds=SECOND),
    alone(
        "stalls, and only comments come",
        Script(stall_after=3, trickle=": ping\n\n"),
        "upstream_stalled",
        seconds=SECOND,
    ),
    alone(
        "stalls, and our own heartbeats go on",
        Script(stall_after=3),
        "upstream_stalled",
        client="native",
        upstream={"idle_seconds": 5},
        seconds=(4.5, 9),
        heartbeat=True,
    ),
    alone("says in the middle that it failed", Script(error_at=3, error_frame=FRAME), "upstream_error"),
    alone("sends what is no JSON", Script(error_at=3, error_frame="data: {no json"), "upstream_invalid"),
    alone(
        "ends before [DONE] and any finish_reason",
        Script(finish_reason=None, missing_done=True),
        "upstream_truncated",
        text=WHOLE,
    ),
    alone("[DONE] without a finish_reason", Script(finish_reason=None), "done", text=WHOLE),
    alone("a finish_reason without [DONE]", Script(missing_done=True), "done", text=WHOLE),
    alone("resets behind its finish_reason", Script(missing_done=True, die_at_end=True, how="rst"), "done", text=WHOLE),
    alone(
        "cut in the middle, no stream asked for",
        Script(die_after=3, how="fin"),
        "upstream_truncated",
        client="SDK batch",
        status=502,
        text="",
    ),
]

AFTER = [
    Case("ends in the middle", Script(die_after=3, how="fin"), model=SPLICE),
    Case("breaks off in the middle", Script(die_after=3), model=SPLICE),
    Case("resets in the middle", Script(die_after=3, how="rst"), model=SPLICE),
    Case("stalls in the middle", Script(stall_after=3), model=SPLICE, seconds=SECOND),
    Case("stalls, and only comments come", Script(stall_after=3, trickle=": ping\n\n"), model=SPLICE, seconds=SECOND),
    Case("fails in the middle by its own account", Script(error_at=3, error_frame=FRAME), model=SPLICE),
    Case("cut behind its last token", Script(die_after=8, how="fin"), model=SPLICE),
    Case(
        "cut; the other cuts its words elsewhere",
        Script(die_after=3),
        Script(tokens=[WHOLE[:7], WHOLE[7:20], WHOLE[20:]]),
        model=SPLICE,
    ),
    Case(
        "cut; the other is given the text so far", Script(die_after=3), REST, model=CONTINUE, other={"prefill": "vllm"}
    ),
    Case("cut; the other says the text again first", Script(die_after=3), model=CONTINUE, other={"prefill": True}),
    Case(
        "cut; the other refuses the text so far",
        Script(die_after=3),
        (Script(status=400), HEALTHY),
        model=CONTINUE,
        other={"prefill": True},
        asked=(1, 2),
    ),
    Case(
        "cut, then the other cut, then the first again",
        (Script(die_after=3), HEALTHY),
        Script(die_after=5),
        model=SPLICE,
        upstream={"retries_max": 1},
        asked=(2, 1),
    ),
    Case(
        "cut; the other says something else",
        Script(die_after=3),
        OTHER,
        model=SPLICE,
        end="upstream_truncated",
        text=PART,
    ),
    Case(
        "cut; the other says something else; native",
        Script(die_after=3),
        OTHER,
        client="native",
        model=SPLICE,
        other={"retries_max": 1},
        text=OTHER.text,
        asked=(1, 2),
        resets=1,
    ),
    Case(
        "cut; begun again; native", Script(die_after=3), OTHER, client="native", model=RESET, text=OTHER.text, resets=1
    ),
    Case(
        "cut; OpenAI's surface cannot begin again",
        Script(die_after=3),
        OTHER,
        model=RESET,
        end="upstream_truncated",
        text=PART,
        asked=(1, 0),
    ),
    Case("cut; the policy is to say so", Script(die_after=3), end="upstream_truncated", text=PART, asked=(1, 0)),
    Case("cut at both", Script(die_after=3), Script(die_after=3), model=SPLICE, end="upstream_truncated", text=PART),
    Case(
        "stalls at both",
        Script(stall_after=3),
        Script(stall_after=3),
        model=SPLICE,
        end="upstream_stalled",
        text=PART,
        seconds=(1.8, 6),
    ),
    Case(
        "cut; the other is full of errors",
        Script(die_after=3),
        Script(status=500),
        model=SPLICE,
        end="upstream_truncated",
        text=PART,
    ),
    Case(
        "cut in a tool call",
        Script(tokens=2, tool_calls=CALLS, die_after=3),
        model=CONTINUE,
        end="upstream_truncated",
        text="tok0 tok1 ",
        asked=(1, 0),
    ),
    Case(
        "cut in a tool call; native",
        Script(tokens=2, tool_calls=CALLS, die_after=3),
        Script(tokens=2, tool_calls=CALLS),
        client="native",
        model=CONTINUE,
        text="tok0 tok1 ",
        resets=1,
    ),
    Case("cut, no stream asked for", Script(die_after=3), OTHER, client="SDK batch", text=OTHER.text),
    Case("cut, no stream asked for; native", Script(die_after=3), OTHER, client="native batch", text=OTHER.text),
    Case(
        "cut within the tokens that are held back",
        Script(die_after=3),
        OTHER,
        model={"hold_tokens": 5},
        text=OTHER.text,
    ),
]

ODD = Script(
    tokens=[
        "日本",
        "🌊語",
        " a\u2028b\u2029c\u0085d ",
        "\r\n\r\ndata: [DONE]\r\n\r\n",
        'data: {"error":1}\n\n',
        " ende\x0b\x1c",
    ]
)
TEXTS = [
    alone("every byte a segment of its own", Script(tokens=ODD.tokens, split_at=1), "done", text=ODD.text),
    alone(
        "lines that end in CRLF, cut between the two",
        Script(tokens=ODD.tokens, newline="\r\n", split_at=1),
        "done",
        text=ODD.text,
    ),
    alone(
        "a BOM, and comments and pings in between",
        Script(tokens=ODD.tokens, bom=True, between="event: ping\ndata:\n\n: x\n\n"),
        "done",
        text=ODD.text,
    ),
    alone("text with frames of its own; native", ODD, "done", text=ODD.text, client="native"),
]

GROUPS = {
    "Before the first token": BEFORE,
    "Repeats, and both at fault": REPEATED,
    "Refusals of the request": REFUSED,
    "After the first token, alone": AFTER_ALONE,
    "After the first token, with another": AFTER,
    "What came is what was said": TEXTS,
}
