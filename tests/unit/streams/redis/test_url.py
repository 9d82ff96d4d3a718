"""Which servers a URL means, and that no message shows a password."""

import pytest

from app.streams.redis.url import parse_redis_url


@pytest.mark.parametrize(
    ("text", "kind", "addresses", "db"),
    [
        ("redis://localhost", "standalone", [("localhost", 6379)], 0),
        ("redis://10.0.0.1:7000/3", "standalone", [("10.0.0.1", 7000)], 3),
        ("rediss://[::1]:7000", "standalone", [("::1", 7000)], 0),
        ("redis://[fe80::1]/2", "standalone", [("fe80::1", 6379)], 2),
        ("redis+sentinel://a,b:1/main", "sentinel", [("a", 26379), ("b", 1)], 0),
        ("rediss+sentinel://a:1,b:2/main/4", "sentinel", [("a", 1), ("b", 2)], 4),
        ("redis+cluster://a:1,b:2,c", "cluster", [("a", 1), ("b", 2), ("c", 6379)], 0),
    ],
)
def test_a_url_names_servers(text: str, kind: str, addresses: list[tuple[str, int]], db: int) -> None:
    url = parse_redis_url(text)
    assert (url.kind, list(url.addresses), url.db) == (kind, addresses, db)
    assert url.tls == text.startswith("rediss")
    assert url.service == ("main" if kind == "sentinel" else "")
    assert (url.username, url.password) == (None, None)


def test_credentials_and_options_are_taken_decoded() -> None:
    url = parse_redis_url("rediss://us%40er:p%2F%3A%40ss@h:1/2?ssl_ca_certs=/etc/ca.pem&ssl_cert_reqs=none")
    assert (url.username, url.password) == ("us@er", "p/:@ss")
    assert url.options == {"ssl_ca_certs": "/etc/ca.pem", "ssl_cert_reqs": "none"}
    assert url.safe == "rediss://h:1/2"
    assert parse_redis_url("redis://:secret@h").password == "secret"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("http://u:secret@h", "scheme"),
        ("redis+x://u:secret@h", "scheme"),
        ("redis://u:secret?x@h", "percent-encoded"),
        ("redis://u:secret@h:0", "host:port"),
        ("redis://u:secret@h:x", "host:port"),
        ("redis://u:secret@", "host:port"),
        ("redis://u:secret@a,b", "several hosts"),
        ("redis://u:secret@h/one", "database"),
        ("redis://u:secret@h/1/2", "database"),
        ("redis+cluster://u:secret@a,b/1", "database in a cluster"),
        ("redis+sentinel://u:secret@a,b", "service"),
        ("redis+sentinel://u:secret@a,b/main/x", "database"),
        ("redis://u:secret@h?socket_timeout=1", "unknown option socket_timeout"),
    ],
)
def test_what_is_no_url_is_refused_without_its_password(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as refused:
        parse_redis_url(text)
    assert "secret" not in str(refused.value)
