"""Whose address a request comes from, as far as somebody vouches for it."""

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from starlette.types import Scope

Network = IPv4Network | IPv6Network
# What one customer usually has of IPv6; each address counted alone would be 2^64 accounts for everybody.
IPV6_PREFIX = 64


def parse_networks(text: str) -> tuple[Network, ...]:
    """The networks of a list, separated by commas. `unix:` is for NGINX; we believe whoever comes that way.

    Raises:
        ValueError: one is none.
    """
    return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip() not in ("", "unix:"))


class Addresses:
    """Reads addresses.

    Args:
        proxies: peers whose X-Real-IP is believed, besides whoever comes by a Unix socket, which is NGINX alone.
    """

    def __init__(self, proxies: Sequence[Network] = ()) -> None:
        self._proxies = tuple(proxies)

    def account(self, scope: Scope) -> str:
        """The account of a caller that nobody knows: `addr:<address>`, of IPv6 the network."""
        return f"addr:{_grouped(self._claimed(scope) or '')}"

    def _claimed(self, scope: Scope) -> str | None:
        peer = scope["client"][0] if scope.get("client") else ""
        if peer and not self._is_proxy(peer):
            return str(peer)
        named = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-real-ip"]
        # NGINX sends one. Of several, somebody has added some.
        return named[0] if len(named) == 1 else peer or None

    def _is_proxy(self, peer: str) -> bool:
        return bool(self._proxies) and _within(peer, self._proxies)


@lru_cache(maxsize=4096)
def _within(peer: str, networks: tuple[Network, ...]) -> bool:
    try:
        address = ip_address(peer)
    except ValueError:
        return False
    return any(address.version == network.version and address in network for network in networks)


@lru_cache(maxsize=4096)
def _grouped(text: str) -> str:
    try:
        address = ip_address(text)
    except ValueError:
        return "unknown"
    mapped = getattr(address, "ipv4_mapped", None)
    if mapped is not None:
        return str(mapped)
    return str(ip_network((address, IPV6_PREFIX), strict=False)) if address.version == 6 else str(address)
