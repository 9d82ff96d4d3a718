"""Parts of requests that harm a server which trusts them."""


def nested(depth: int) -> bytes:
    return b'{"prompt": "x", "more": ' + b"[" * depth + b"]" * depth + b"}"


# Bodies that are small, and cost their reader all that he has.
BOMBS = {
    "deep arrays": nested(20_000),
    "deep objects": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "deep and unclosed": b"[" * 60_000,
    "as deep as Python goes": nested(900),
    "a number of many digits": b'{"prompt": "x", "max_tokens": ' + b"9" * 60_000 + b"}",
    "a number beyond a float": b'{"prompt": "x", "temperature": 1e999999}',
    "not a number": b'{"prompt": "x", "temperature": NaN}',
    "infinity": b'{"prompt": "x", "temperature": -Infinity}',
    "half a character": b'{"prompt": "\\ud800"}',
    "not UTF-8": b'{"prompt": "\xff\xfe"}',
    "another encoding": '{"prompt": "x"}'.encode("utf-16"),
    "many keys twice": b'{"prompt": "x", ' + b'"max_tokens": 0, ' * 3_000 + b'"max_tokens": 0}',
    "nothing": b"",
    "a lone quote": b'"',
}
# Values of X-Request-ID that would forge a field of a log, end a line, or fill a disk.
FORGED_NAMES = [
    b"",
    b"a=1 tenant=x",
    b"x" * 65,
    b"x" * 8192,
    b"\xe9t\xe9",
    "水".encode(),
    b"a\r\nset-cookie: x=1",
    b"a\n",
    b"a\x00b",
    b'"},{"event":"forged"',
    b" a",
    b"a b",
    b"../../etc",
    b"%0d%0a",
]
