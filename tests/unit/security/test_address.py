"""A caller's address is what somebody vouches for, and never what the caller says."""

from typing import Any

import pytest

from app.security.address import Addresses, parse_networks


def scope(peer: str | None, *headers: tuple[bytes, bytes]) -> Any:
    return {"type": "http", "client": (peer, 1234) if peer is not None else None, "headers": list(headers)}


REAL = (b"x-real-ip", b"203.0.113.7")
FORGED = [
    (b"x-forwarded-for", b"203.0.113.7"),
    (b"forwarded", b"for=203.0.113.7"),
    (b"x-client-ip", b"203.0.113.7"),
    (b"x_real_ip", b"203.0.113.7"),
    (b"cf-connecting-ip", b"203.0.113.7"),
]


@pytest.mark.parametrize("peer", [None, ""])
def test_who_comes_by_the_unix_socket_is_who_nginx_says(peer: str | None) -> None:
    assert Addresses().account(scope(peer, REAL)) == "addr:203.0.113.7"


def test_who_comes_by_tcp_is_the_peer_whatever_it_says() -> None:
    assert Addresses().account(scope("198.51.100.9", REAL, *FORGED)) == "addr:198.51.100.9"


@pytest.mark.parametrize("header", FORGED)
def test_no_other_header_says_who_somebody_is(header: tuple[bytes, bytes]) -> None:
    assert Addresses().account(scope(None, header)) == "addr:unknown"
    assert Addresses(parse_networks("10.0.0.0/8")).account(scope("10.1.1.1", header)) == "addr:10.1.1.1"


def test_a_named_proxy_is_believed_and_no_other() -> None:
    addresses = Addresses(parse_networks("10.0.0.0/8, 2001:db8::/32"))
    assert addresses.account(scope("10.1.2.3", REAL)) == "addr:203.0.113.7"
    assert addresses.account(scope("2001:db8::1", REAL)) == "addr:203.0.113.7"
    assert addresses.account(scope("11.1.2.3", REAL)) == "addr:11.1.2.3"


def test_of_several_claims_none_is_believed() -> None:
    assert Addresses().account(scope(None, REAL, (b"x-real-ip", b"203.0.113.8"))) == "addr:unknown"


@pytest.mark.parametrize(
    ("claim", "account"),
    [
        (b"2001:db8:1:2:3:4:5:6", "addr:2001:db8:1:2::/64"),
        (b"2001:db8:1:2:ffff::1", "addr:2001:db8:1:2::/64"),
        (b"::ffff:203.0.113.7", "addr:203.0.113.7"),
        (b"not an address", "addr:unknown"),
        (b"203.0.113.7\x00", "addr:unknown"),
        (b"", "addr:unknown"),
    ],
)
def test_an_address_is_counted_as_one_customer(claim: bytes, account: str) -> None:
    assert Addresses().account(scope(None, (b"x-real-ip", claim))) == account


def test_a_list_of_networks_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="nonsense"):
        parse_networks("10.0.0.0/8,nonsense")
